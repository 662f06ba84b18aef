"""Jobs of the local backend for the workbench's pages, written as the trainer does, not trained."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from job_records import make_record

from cloudft.backends.local import job_folder as names
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord, Store

TIME = "2026-01-02T03:04:05.678+00:00"


def train_line(step: int, loss: float, **values: Any) -> str:
    """Return a line of metrics.jsonl, as local_backend/training/loss_curve.py writes it.

    `values` adds keys, or replaces them.
    """
    try:
        perplexity = math.exp(loss)
    except OverflowError:
        perplexity = math.inf
    row = {"step": step, "epoch": 0, "split": "train", "loss": loss, "perplexity": perplexity}
    row |= {"learningRate": 1e-4, "tokensPerSecond": 1200.5, "timestamp": TIME} | values
    return json.dumps(row) + "\n"


def validation_line(step: int, loss: float, validation_set: str | None = None) -> str:
    """Return the line of a validation, of one of several sets or of all of them."""
    named = {} if validation_set is None else {"validationSet": validation_set}
    return train_line(
        step, loss, split="validation", learningRate=None, tokensPerSecond=None, **named
    )


def falling_curve(steps: int, *, seed: int = 1) -> str:
    """Return the lines of a run whose loss falls, with about ten validations of two sets."""
    draw, every = random.Random(seed), max(1, steps // 10)
    lines = []
    for step in range(steps):
        loss = 0.6 + 3 * math.exp(-5 * step / steps) + 0.2 * draw.random()
        rate = 1e-4 * (1 - step / steps)
        lines.append(train_line(step, loss, learningRate=rate))
        if step % every == every - 1:
            lines += [validation_line(step, loss + 0.3)]
            lines += [validation_line(step, loss + 0.5, "german")]
    return "".join(lines)


def make_local_job(home: Home, job_id: str, curve: str = "", **record: Any) -> JobRecord:
    """Write a job that was submitted, with a curve. Without an ending it has failed."""
    store = Store(home.jobs)
    made = make_record(store, job_id, request={"id": job_id, "hyperParameters": {}}, **record)
    with store.create(made):
        pass
    store.mark_submitted(job_id, job_id)
    request = {
        "version": 1,
        "id": job_id,
        "name": made.name,
        "attempt": 0,
        "baseModel": made.base_model,
        "customizationType": "FINE_TUNING",
        "format": "converse",
        "method": "lora",
        "lora": {"r": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": "all-linear"},
        "hyperParameters": {"epochCount": 2},
        "seed": 7,
        "model": {"name": "tiny"},
        "data": {},
    }
    (made.folder / names.JOB).write_text(json.dumps(request), "utf-8")
    (made.folder / names.LOCK).touch()
    (made.folder / names.METRICS).write_text(curve, "utf-8")
    (made.folder / names.LOG).write_text("device cpu, computing in float32\n", "utf-8")
    return store.get(job_id)


def write_state(record: JobRecord, step: int, total: int, **summary: Any) -> None:
    """Write the progress of a job as the trainer does after a step."""
    progress = {"step": step, "totalSteps": total, "epoch": 0, "loss": 1.25, "activity": "training"}
    progress |= {"tokensPerSecond": 1200.5, "secondsLeft": 75.0}
    state = {"progress": progress, "summary": summary, "updatedAt": TIME}
    state["statusDetails"] = {
        "validationDetails": "Completed",
        "dataProcessingDetails": "Completed",
        "trainingDetails": "InProgress",
    }
    new = record.folder / ".state.json"
    new.write_text(json.dumps(state), "utf-8")
    new.replace(record.folder / names.STATE)


def write_ending(record: JobRecord, status: str, message: str | None = None) -> None:
    """Write how a job has ended."""
    ending = {"status": status, "failureMessage": message, "endedAt": TIME}
    (record.folder / names.ENDED).write_text(json.dumps(ending), "utf-8")


def append_lines(record: JobRecord, text: str, name: str = names.METRICS) -> None:
    """Append to a file of a job in one write, as the trainer does."""
    with (record.folder / name).open("ab", buffering=0) as file:
        file.write(text.encode())


@contextlib.contextmanager
def running_trainer(record: JobRecord) -> Iterator[None]:
    """Hold the lock of a job, as its trainer does while it lives."""
    with (record.folder / names.LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_checkpoint(record: JobRecord, step: int, files: Mapping[str, bytes]) -> Path:
    """Write the folder of a checkpoint."""
    folder = record.folder / names.CHECKPOINTS / f"step-{step:08d}"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
