"""Compare a step of DPO with TRL's DPOTrainer: `python benchmarks/train/preference.py`.

Contestants take turns, each in a fresh process, on the same pairs: an answer of the example, and
that of another record. Ratios are of one round's figures. TRL has its best settings on a CPU:
reference log-probabilities computed before, and no padding where its name says so; grouping by
length (group_by_length) fails with its pairs. With --smallest our trainer runs alone and nothing is
recorded. The rows of TRL need trl.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from contestant import BATCH, LORA, RATE, ROOT, SEED, WARM_UP, WEIGHTS, peak_memory, records

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
NAMES = ("ours", "trl", "trl-padding-free")
ENVIRON = {"MALLOC_ARENA_MAX": "1", "GOMP_SPINCOUNT": "1000", "HF_HUB_OFFLINE": "1"}


def pairs(name: str, first: int, count: int) -> list[dict[str, Any]]:
    """Return pairs as messages: the answer of a record, and that of the one after the next 7."""
    rows = [row["messages"] for row in records(name, first, count + 7)]
    return [
        {"prompt": row[:-1], "chosen": row[-1:], "rejected": other[-1:]}
        for row, other in zip(rows, rows[7:], strict=False)
    ]


def write_job(folder: Path, rows: list[dict[str, Any]], dtype: str) -> None:
    """Write a job folder as the local backend does."""
    import contestant

    contestant.canonical = canonical  # type: ignore[assignment]
    contestant.write_job(folder, rows, "lora", dtype)
    job = json.loads((folder / "job.json").read_text())
    job |= {
        "customizationType": "PREFERENCE_OPTIMIZATION",
        "format": "preference",
        "preference": {
            "method": "dpo",
            "beta": 0.1,
            "label_smoothing": 0.0,
            "simpo_gamma": 0.5,
        },
    }
    (folder / "job.json").write_text(json.dumps(job))


def canonical(row: dict[str, Any]) -> dict[str, Any]:
    """Return a pair as it is staged."""

    def turns(messages: list[dict[str, str]]) -> list[dict[str, Any]]:
        return [
            {"role": m["role"], "content": [{"text": m["content"]}]}
            for m in messages
            if m["role"] != "system"
        ]

    system = [{"text": m["content"]} for m in row["prompt"] if m["role"] == "system"]
    return {
        **({"system": system} if system else {}),
        **{name: turns(row[name]) for name in ("prompt", "chosen", "rejected")},
    }


def run_cloudft(rows: list[dict[str, Any]], steps: int, dtype: str) -> dict[str, Any]:
    """Run the trainer itself from its job folder; steps take the pairs in order."""
    from local_backend.job_dir import JobDir
    from local_backend.progress import ProgressReporter
    from local_backend.settings import read_settings
    from local_backend.training.prepare_run import prepare_run
    from local_backend.training.train_loop import compute_mean_loss, step_optimizer

    job = JobDir(Path(tempfile.mkdtemp()))
    write_job(job.path, rows, dtype)
    run = prepare_run(job, read_settings(job), ProgressReporter(job))
    result: dict[str, Any] = {"losses": [], "times": [], "tokens": []}
    for step in range(steps):
        batch = run.train.examples[step * BATCH : (step + 1) * BATCH]
        started = time.time()
        run.optimizer.zero_grad(set_to_none=True)
        result["losses"].append(compute_mean_loss(run, batch, backward=True))
        step_optimizer(run)
        result["times"].append((started, time.time()))
        result["tokens"].append(sum(len(e.ids) for e in batch))
    return result


def run_trl(name: str, rows: list[dict[str, Any]], steps: int, dtype: str) -> dict[str, Any]:
    """Run TRL's DPOTrainer with PEFT."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from local_backend.models.load_tokenizer import load_tokenizer
    from local_backend.models.weights import locate_weights

    torch.manual_seed(SEED)
    source, half = locate_weights("smollm2-135m", WEIGHTS), dtype == "bfloat16"
    tokenizer, _ = load_tokenizer(source)
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.bfloat16 if half else torch.float32
    )
    model.config.use_cache = False
    result: dict[str, Any] = {"losses": [], "times": [], "tokens": []}

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            result["times"].append([time.time(), 0.0])

        def on_step_end(self, *_: Any, **__: Any) -> None:
            result["times"][-1][1] = time.time()

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                result["losses"].append(float(logs["loss"]))

    config = DPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH,
        max_steps=steps,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        bf16=half,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=SEED,
        optim="adamw_torch_fused",
        gradient_checkpointing=False,
        max_length=None,
        beta=0.1,
        precompute_ref_log_probs=True,
        padding_free="padding-free" in name,
        train_sampling_strategy="sequential",
    )
    trainer = DPOTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=LORA["r"],
            lora_alpha=LORA["alpha"],
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        callbacks=[Clock()],
    )
    collate = trainer.data_collator

    def counted(batch: Any) -> Any:
        result["tokens"].append(
            sum(
                2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])
                for row in batch
            )
        )
        return collate(batch)

    trainer.data_collator = counted
    trainer.train()
    return {**result, "tokens": result["tokens"][:steps]}


def contest(name: str, args: argparse.Namespace, first: int) -> dict[str, Any]:
    """Return one contestant's figures of a process of its own."""
    command = [sys.executable, __file__, "--contestant", name, "--first", str(first)]
    command += ["--steps", str(args.steps), "--records", args.records, "--dtype", args.dtype]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ENVIRON)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def play(args: argparse.Namespace) -> dict[str, Any]:
    """Run a contestant in this process and return its figures."""
    sys.path.insert(0, str(ROOT))
    rows = pairs(args.records, args.first, args.steps * BATCH)
    if args.contestant == "ours":
        result = run_cloudft(rows, args.steps, args.dtype)
    else:
        result = run_trl(args.contestant, rows, args.steps, args.dtype)
    seconds = result["times"][-1][1] - result["times"][WARM_UP][0]
    return {
        "tokensPerSecond": sum(result["tokens"][WARM_UP:]) / seconds,
        "pairsPerSecond": BATCH * (len(result["tokens"]) - WARM_UP) / seconds,
        "peak": peak_memory(),
        "losses": result["losses"],
    }


def table(args: argparse.Namespace, names: tuple[str, ...]) -> list[str]:
    """Return the rows of all contestants."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(args.rounds):
        for name in names:
            results[name].append(contest(name, args, turn * args.steps * BATCH))
            print(turn, name, results[name][-1]["tokensPerSecond"], file=sys.stderr)
    lines = [
        "| trainer | tok/s | ours to it, by round | pairs/s | peak | last loss |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, rows in results.items():
        ratios = ", ".join(
            f"{mine['tokensPerSecond'] / row['tokensPerSecond']:.2f}"
            for mine, row in zip(results[names[0]], rows, strict=True)
        )
        speed = statistics.mean(row["tokensPerSecond"] for row in rows)
        rate = statistics.mean(row["pairsPerSecond"] for row in rows)
        lines.append(
            f"| {name} | {speed:.0f} | {ratios} | {rate:.2f} |"
            f" {max(row['peak'] for row in rows):.2f} GB | {rows[-1]['losses'][-1]:.3f} |"
        )
    return lines


def main() -> int:
    """Run all contestants and append the table, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--records", choices=["aws-cli", "intents"], default="aws-cli")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--smallest", action="store_true")
    parser.add_argument("--contestant", choices=NAMES)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    if args.contestant:
        replies = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        print(json.dumps(play(args)), file=replies, flush=True)
        return 0
    if args.smallest:
        args.steps, args.rounds, args.records = 3, 1, "intents"
        print("\n".join(table(args, NAMES[:1])))
        return 0
    names = NAMES if importlib.util.find_spec("trl") else NAMES[:1]
    lines = [f"\n## DPO (`benchmarks/train/preference.py`, {datetime.date.today()})\n"]
    lines += [f"{args.records}, {args.rounds} rounds of {args.steps} steps of {BATCH} pairs,"]
    lines += [f"LoRA, {args.dtype}; the first {WARM_UP} steps not timed\n", *table(args, names)]
    text = "\n".join(lines) + "\n"
    print(text)
    with RESULTS.open("a") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
