"""Run one trainer on a GPU in a process of its own; print its figures as JSON.

    python benchmarks/gpu/contestant.py NAME MODEL_FOLDER RECORDS_FILE STEPS

NAME is one of CONTESTANTS in __main__.py. Each step takes 8 records; a packing trainer takes rows
of as many tokens. The first two steps are not timed. Written without a GPU at hand: never run.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

BATCH, WARM_UP, RATE, SEED = 8, 2, 2e-4, 7
R, ALPHA = 16, 32
ROW_TOKENS = 1024
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
HERE = Path(__file__).parent


def figures(times: list[tuple[float, float]], tokens: list[int], losses: list[float]) -> Any:
    """Return what is printed; `times` are the start and the end of each step."""
    return {
        "tokensPerSecond": sum(tokens[WARM_UP:]) / (times[-1][1] - times[WARM_UP][0]),
        "firstStep": times[0][1] - times[0][0],
        "peak": torch.cuda.max_memory_allocated() / 1e9,
        "losses": losses,
    }


def run_cloudft(name: str, model: str, rows: list[Any], steps: int) -> Any:
    """Run the trainer itself from a job folder."""
    sys.path.insert(0, str(HERE.parent / "train"))
    import contestant

    from local_backend.job_dir import JobDir
    from local_backend.progress import ProgressReporter
    from local_backend.settings import read_settings
    from local_backend.training.prepare_run import prepare_run
    from local_backend.training.train_loop import compute_mean_loss, step_optimizer

    folder = Path(tempfile.mkdtemp())
    method = "qlora" if name.endswith("qlora") else "lora"
    contestant.write_job(folder, rows, method, "bfloat16", batch=BATCH, seed=SEED)
    job = json.loads((folder / "job.json").read_text()) | {"device": "cuda"}
    job["model"] = {"name": "measured", "weights": [{"kind": "folder", "path": model}]}
    (folder / "job.json").write_text(json.dumps(job))
    # The trainer prints; standard output is for the figures.
    output, sys.stdout = sys.stdout, sys.stderr
    run = prepare_run(
        JobDir(folder), read_settings(JobDir(folder)), ProgressReporter(JobDir(folder))
    )
    sys.stdout = output
    times, tokens, losses = [], [], []
    for step in range(steps):
        batch = run.train.examples[step * BATCH : (step + 1) * BATCH]
        started = time.time()
        run.optimizer.zero_grad(set_to_none=True)
        losses.append(compute_mean_loss(run, batch, backward=True))
        step_optimizer(run)
        torch.cuda.synchronize()
        times.append((started, time.time()))
        tokens.append(sum(len(example.ids) for example in batch))
    return figures(times, tokens, losses)


def time_steps() -> tuple[Any, list[tuple[float, float]], list[float]]:
    """Return a callback of transformers, and what it fills: times and losses of steps."""
    from transformers import TrainerCallback

    times: list[tuple[float, float]] = []
    losses: list[float] = []

    class Timer(TrainerCallback):  # type: ignore[misc]  # untyped in some versions
        """Takes the time of each step."""

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            torch.cuda.synchronize()
            times.append((time.time(), 0.0))

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            torch.cuda.synchronize()
            times[-1] = (times[-1][0], time.time())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                losses.append(logs["loss"])

    return Timer(), times, losses


def sft_config(name: str, steps: int) -> Any:
    """Return TRL's settings: packed rows without padding, assistants' tokens only."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=RATE,
        lr_scheduler_type="linear",
        warmup_steps=0,
        bf16=True,
        packing=True,
        packing_strategy="bfd",
        max_length=ROW_TOKENS,
        use_liger_kernel="liger" in name,
        gradient_checkpointing=False,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        seed=SEED,
    )


def run_trl(name: str, model: str, rows: list[Any], steps: int) -> Any:
    """Run TRL's SFTTrainer, whose model Unsloth has patched where that is the contestant."""
    if name == "unsloth":
        from unsloth import FastLanguageModel  # type: ignore[import-not-found]  # before trl

        loaded, tokenizer = FastLanguageModel.from_pretrained(
            model, max_seq_length=ROW_TOKENS, dtype=torch.bfloat16, load_in_4bit=False
        )
        loaded = FastLanguageModel.get_peft_model(
            loaded, r=R, lora_alpha=ALPHA, lora_dropout=0, target_modules=TARGETS
        )
        adapters = None
    else:
        from peft import LoraConfig
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model)
        loaded = AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.bfloat16, device_map={"": 0}, attn_implementation="sdpa"
        )
        adapters = LoraConfig(r=R, lora_alpha=ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM")
    from datasets import Dataset
    from trl import SFTTrainer

    timer, times, losses = time_steps()
    trainer = SFTTrainer(
        model=loaded,
        args=sft_config(name, steps),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=adapters,
        callbacks=[timer],
    )
    output, sys.stdout = sys.stdout, sys.stderr
    trainer.train()
    sys.stdout = output
    packed = [len(row["input_ids"]) for row in trainer.train_dataset]
    tokens = [round(sum(packed) / len(packed))] * len(times)
    return figures(times, tokens, losses)


def main(name: str, model: str, records: str, steps: int) -> None:
    """Print the figures."""
    rows = [json.loads(line) for line in Path(records).read_text().splitlines()]
    train = run_cloudft if name.startswith("ours") else run_trl
    print(json.dumps(train(name, model, rows, steps)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
