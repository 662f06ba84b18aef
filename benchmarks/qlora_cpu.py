"""Compare QLoRA with LoRA on a CPU: memory and seconds of a step, each in a fresh process.

    python benchmarks/qlora_cpu.py

Both train in bfloat16 with the records of an example: smollm2-135m, and random Llamas of about 360
million and 1.1 billion parameters with its tokenizer. Methods take turns. `lora-padded` is LoRA on
the path that QLoRA takes. `peak` is the resident memory of the steps, `anonymous` the part that no
file backs, `loading` the peak before them. QLoRA needs bitsandbytes, which nothing here installs.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smallest import ROOT, build_parser

sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "train")]
METHODS = ("lora", "lora-padded", "qlora")
SHAPES = {
    "360m": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24},
    "1.1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 21},
}
"""Random Llamas: the widths of SmolLM2-360M and TinyLlama, roughly."""
BATCH, WARM_UP = 4, 1
ENVIRON = {"MALLOC_ARENA_MAX": "1", "GOMP_SPINCOUNT": "1000", "HF_HUB_OFFLINE": "1"}
MADV_DONTNEED = 4
REFUSAL = "QLoRA is not measured: bitsandbytes is not installed (pip install 'cloudft[qlora]')"


def build_llama(folder: Path, shape: str) -> Path:
    """Write a random bfloat16 Llama with SmolLM2's tokenizer to `folder`, and return the folder."""
    import contestant
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from local_backend.models.weights import locate_weights

    tokenizer = AutoTokenizer.from_pretrained(
        locate_weights("smollm2-135m", contestant.WEIGHTS)  # type: ignore[arg-type]
    )
    config = LlamaConfig(
        **SHAPES[shape],
        vocab_size=len(tokenizer),
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def status_bytes(name: str) -> int:
    """Return a size of this process from /proc/self/status in bytes."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024


def drop_mapped_weights() -> None:
    """Unmap what was read of weight files: what a step needs of them is read again.

    Otherwise the file that 4-bit weights were made from would count as resident.
    """
    libc = ctypes.CDLL("libc.so.6", use_errno=True)
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(".safetensors"):
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)


@contextmanager
def peak_of(name: str) -> Iterator[list[int]]:
    """Yield a list that holds the largest value of a size, read every few milliseconds."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], status_bytes(name))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def measure(method: str, folder: str, steps: int) -> dict[str, Any]:
    """Return the figures of one method on a model folder (empty: smollm2-135m), in this process."""
    import contestant

    from local_backend.job_dir import JobDir
    from local_backend.models import four_bits
    from local_backend.progress import ProgressReporter
    from local_backend.settings import read_settings
    from local_backend.training.prepare_run import prepare_run
    from local_backend.training.train_loop import compute_mean_loss, step_optimizer

    four_bits.LEAST_PARAMETERS = 0  # also what a job is refused
    job = Path(tempfile.mkdtemp())
    rows = contestant.records("aws-cli", 0, steps * BATCH)
    packed = False if method == "lora-padded" else "auto"
    contestant.write_job(job, rows, method.split("-")[0], "bfloat16", batch=BATCH, packed=packed)
    if folder:
        content = json.loads((job / "job.json").read_text())
        content["model"] = {"name": "random", "weights": [{"kind": "folder", "path": folder}]}
        (job / "job.json").write_text(json.dumps(content))
    run = prepare_run(JobDir(job), read_settings(JobDir(job)), ProgressReporter(JobDir(job)))
    loading = status_bytes("VmHWM")
    seconds, cpu, losses = [], [], []
    with peak_of("RssAnon") as anonymous:
        for step in range(steps):
            batch = run.train.examples[step * BATCH : (step + 1) * BATCH]
            if step == WARM_UP:
                drop_mapped_weights()
                Path("/proc/self/clear_refs").write_text("5")
                anonymous[0] = 0
            started, used = time.perf_counter(), time.process_time()
            run.optimizer.zero_grad(set_to_none=True)
            losses.append(compute_mean_loss(run, batch, backward=True))
            step_optimizer(run)
            seconds.append(time.perf_counter() - started)
            cpu.append(time.process_time() - used)
    return {
        "seconds": sum(seconds[WARM_UP:]) / (steps - WARM_UP),
        "cpu": sum(cpu[WARM_UP:]) / (steps - WARM_UP),
        "peak": status_bytes("VmHWM") / 1e9,
        "anonymous": anonymous[0] / 1e9,
        "loading": loading / 1e9,
        "weights": run.reporter.summary["weightBytes"] / 1e9,
        "losses": losses,
    }


def run_in_process(method: str, folder: str, steps: int) -> dict[str, Any]:
    """Return the figures of one method, measured in a fresh process."""
    command = [sys.executable, __file__, "--case", method, folder, str(steps)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | ENVIRON
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def table(title: str, folder: str, methods: tuple[str, ...], steps: int, rounds: int) -> list[str]:
    """Return the rows of one model."""
    results: dict[str, list[dict[str, Any]]] = {method: [] for method in methods}
    for _ in range(rounds):
        for method in methods:
            results[method].append(run_in_process(method, folder, steps))
            figures = results[method][-1]
            print(
                title, method, {k: v for k, v in figures.items() if k != "losses"}, file=sys.stderr
            )
    lines = []
    for method in methods:
        mid = {
            name: statistics.median(figures[name] for figures in results[method])
            for name in ("seconds", "cpu", "peak", "anonymous", "loading", "weights")
        }
        lines.append(
            f"| {title} | {method} | {mid['seconds']:.2f} s | {mid['cpu']:.2f} s |"
            f" {mid['weights']:.2f} GB | {mid['peak']:.2f} GB | {mid['anonymous']:.2f} GB |"
            f" {mid['loading']:.2f} GB | {results[method][0]['losses'][-1]:.3f} |"
        )
    return lines


def main() -> int:
    """Print the table."""
    parser = build_parser(__doc__)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="*", default=["smollm2-135m", *SHAPES])
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        output, sys.stdout = sys.stdout, sys.stderr  # the trainer prints
        print(json.dumps(measure(*args.case[:2], int(args.case[2]))), file=output)
        return 0
    methods, steps, rounds, models = METHODS, args.steps, args.rounds, args.models
    if args.smallest:
        methods, steps, rounds, models = ("lora", "qlora"), 2, 1, ["smollm2-135m"]
    if importlib.util.find_spec("bitsandbytes") is None:
        print(REFUSAL)
        methods = tuple(method for method in methods if method != "qlora")
    print(
        "| model | method | a step | CPU time | weights | peak | anonymous | loading | loss |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            source = str(build_llama(Path(folder), model)) if model in SHAPES else ""
            print("\n".join(table(model, source, methods, steps, rounds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
