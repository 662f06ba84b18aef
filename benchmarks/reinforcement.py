"""Compare a step of reinforcement with TRL's: `python benchmarks/reinforcement.py`.

`make bench-reinforcement` runs it. A step samples 8 answers of 64 tokens to each of 8 prompts of
the example aws-cli, gets their rewards and updates SmolLM2's adapters. Contestants take turns, each
in a fresh process, with the same prompts, reward and precision; TRL with the answers to one prompt
and with all of them in a micro-batch. `update` compares the update alone with the supervised
trainer's, on the same sequences. The table is appended to benchmarks/RESULTS.md. The rows of TRL
need trl.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
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

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "train"), str(HERE.parent)]
PROMPTS, GROUP, NEW_TOKENS, RATE = 8, 8, 64, 1e-5
GRADER = '''
def lambda_handler(event, context):
    """Reward different words: the share of an answer's words that are not repeated."""
    answers = [sample["messages"][-1]["content"].split() for sample in event]
    rewards = [len(set(words)) / max(1, len(words)) for words in answers]
    return [
        {"id": sample["id"], "aggregate_reward_score": reward}
        for sample, reward in zip(event, rewards)
    ]
'''


def prompts(count: int) -> list[list[dict[str, str]]]:
    """Return the first turns of the example's records."""
    import contestant

    return [row["messages"][:-1] for row in contestant.records("aws-cli", 0, count)]


def run_trl(steps: int, micro: int, dtype: str) -> dict[str, Any]:
    """Run TRL's GRPOTrainer with PEFT and `micro` sequences at a time."""
    import torch
    from contestant import LORA, WEIGHTS
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from local_backend.models.load_tokenizer import load_tokenizer
    from local_backend.models.weights import locate_weights

    source, half = locate_weights("smollm2-135m", WEIGHTS), dtype == "bfloat16"
    tokenizer, _ = load_tokenizer(source)
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.bfloat16 if half else torch.float32
    )
    times: list[list[float]] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            times.append([time.time(), 0.0])

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times[-1][1] = time.time()

    def reward(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
        answers = [one[0]["content"].split() for one in completions]
        return [len(set(words)) / max(1, len(words)) for words in answers]

    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=PROMPTS * GROUP // micro,
        num_generations=GROUP,
        max_completion_length=NEW_TOKENS,
        generation_kwargs={"min_new_tokens": NEW_TOKENS},
        max_steps=steps,
        learning_rate=RATE,
        bf16=half,
        use_cpu=True,
        gradient_checkpointing=False,
        optim="adamw_torch_fused",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        shuffle_dataset=False,
    )
    adapters = LoraConfig(
        r=LORA["r"], lora_alpha=LORA["alpha"], target_modules="all-linear", task_type="CAUSAL_LM"
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": p} for p in prompts(PROMPTS * steps)]),
        processing_class=tokenizer,
        peft_config=adapters,
        callbacks=[Clock()],
    )
    trainer.train()
    return {"seconds": [end - start for start, end in times]}


def prepare(steps: int, dtype: str) -> Any:
    """Return a run of the trainer over the prompts, in a folder of its own."""
    import contestant

    from local_backend.job_dir import JobDir
    from local_backend.progress import ProgressReporter
    from local_backend.settings import read_settings
    from local_backend.training.prepare_run import prepare_run

    folder = Path(tempfile.mkdtemp())
    rows = [{"messages": turns} for turns in prompts(PROMPTS * steps)]
    contestant.write_job(folder, rows, "lora", dtype, batch=PROMPTS)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (folder / "data" / "train.jsonl").write_bytes(data)
    (folder / "grader.py").write_text(GRADER)
    job = json.loads((folder / "job.json").read_text())
    job |= {"customizationType": "REINFORCEMENT_FINE_TUNING", "format": "reinforcement"}
    job["data"]["train"]["sha256"] = hashlib.sha256(data).hexdigest()
    job["hyperParameters"] |= {
        "learningRate": RATE,
        "trainingSamplePerPrompt": GROUP,
        "inferenceMaxTokens": NEW_TOKENS,
        "maxPromptLength": 1024,
        "evalInterval": 100,
    }
    digest = hashlib.sha256(GRADER.encode()).hexdigest()
    job["grader"] = {
        "path": "grader.py",
        "sha256": digest,
        "timeoutSeconds": 30,
        "memoryMb": 512,
    }
    job["reinforcement"] = {}
    (folder / "job.json").write_text(json.dumps(job))
    settings = read_settings(JobDir(folder))
    run = prepare_run(JobDir(folder), settings, ProgressReporter(JobDir(folder)))
    run.loaded.stop_ids = []  # every answer has all of its tokens, as TRL's have
    return run


def run_cloudft(steps: int, dtype: str) -> dict[str, Any]:
    """Run the trainer's own steps."""
    from local_backend.training.reinforcement.grpo import open_grpo
    from local_backend.training.train_loop import train_step

    run, seconds = prepare(steps, dtype), []
    with open_grpo(run):
        for _ in range(steps):
            started = time.time()
            train_step(run)
            seconds.append(time.time() - started)
    return {"seconds": seconds}


def run_update(steps: int, dtype: str) -> dict[str, Any]:
    """Time the update with the policy's loss, and the supervised one's on the same sequences."""
    from local_backend.data.examples import flatten_rows
    from local_backend.training.loss import make_loss
    from local_backend.training.objectives import find_objective
    from local_backend.training.reinforcement.grpo import open_grpo
    from local_backend.training.train_loop import compute_mean_loss, next_batch

    run = prepare(1, dtype)
    policy = (run.objective, run.loss)
    objective = find_objective("FINE_TUNING")
    supervised = (objective, make_loss(run.loaded, objective, "auto", run.dtype, run.device))
    times: dict[str, list[float]] = {"policy": [], "supervised": []}
    with open_grpo(run):
        batch = run.grpo.make_batch(run, 0, next_batch(run)[1])
        batch.begin_update()
        rows = {
            "policy": batch.examples,
            "supervised": flatten_rows(batch.examples),
        }
        for _ in range(steps + 1):
            for name, (run.objective, run.loss) in (("policy", policy), ("supervised", supervised)):
                run.optimizer.zero_grad(set_to_none=True)
                started = time.time()
                compute_mean_loss(run, rows[name], backward=True)
                times[name].append(time.time() - started)
    return {name: each[1:] for name, each in times.items()}


def in_process(name: str, steps: int, dtype: str) -> dict[str, Any]:
    """Run one contestant in this process."""
    import contestant

    if name.startswith("trl-"):
        result = run_trl(steps, int(name.removeprefix("trl-")), dtype)
    else:
        result = (run_update if name == "update" else run_cloudft)(steps, dtype)
    return result | {"peak": contestant.peak_memory()}


def run(name: str, steps: int, dtype: str) -> dict[str, Any]:
    """Return one contestant's figures, of a fresh process. Raise RuntimeError."""
    environ = {"MALLOC_ARENA_MAX": "1", "GOMP_SPINCOUNT": "1000", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--contestant", name, "--steps", str(steps)]
    done = subprocess.run(
        [*command, "--dtype", dtype], capture_output=True, text=True, env=os.environ | environ
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def table(names: list[str], steps: int, rounds: int, dtype: str) -> list[str]:
    """Return the rows: seconds a step after the first, and how often ours fits into theirs."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names:
            results[name].append(run(name, steps, dtype))
            print(turn, name, results[name][-1], file=sys.stderr)
    lines = ["| trainer | s/step | theirs to ours, by round | peak |", "| --- | --- | --- | --- |"]
    seconds = {n: [statistics.mean(r["seconds"][1:]) for r in rows] for n, rows in results.items()}
    for name, rows in results.items():
        pairs = zip(seconds[name], seconds[names[0]], strict=True)
        ratios = ", ".join(f"{theirs / ours:.2f}" for theirs, ours in pairs)
        peak = max(row["peak"] for row in rows)
        lines.append(
            f"| {name} | {statistics.mean(seconds[name]):.1f} | {ratios} | {peak:.2f} GB |"
        )
    return lines


def main() -> int:
    """Run all contestants and append the table; with --contestant, print the figures of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--contestant")
    parser.add_argument("--smallest", action="store_true", help="our trainer alone, not recorded")
    args = parser.parse_args()
    if args.contestant:
        replies = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        result = in_process(args.contestant, args.steps, args.dtype)
        print(json.dumps(result), file=replies, flush=True)
        return 0
    if args.smallest:
        print("\n".join(table(["ours"], 2, 1, args.dtype)))
        return 0
    trl = importlib.util.find_spec("trl") is not None
    names = ["ours", *(["trl-8", "trl-64"] if trl else [])]
    update = run("update", args.steps, args.dtype)
    policy, supervised = (statistics.median(update[name]) for name in ("policy", "supervised"))
    lines = [
        f"\n## Reinforcement (`make bench-reinforcement`, {datetime.date.today()})\n",
        f"{PROMPTS} prompts, {GROUP} answers of {NEW_TOKENS} tokens to each; {args.dtype},"
        f" {args.rounds} rounds of {args.steps} steps, the first not timed\n",
        *table(names, args.steps, args.rounds, args.dtype),
        "",
        f"The update alone: {policy:.2f} s; the supervised loss on the same sequences:"
        f" {supervised:.2f} s; the policy's tokens a second are {supervised / policy:.2f} of its.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    with (HERE / "RESULTS.md").open("a") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
