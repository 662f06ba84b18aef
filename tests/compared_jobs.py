"""Make up ended jobs of one home, with curves and evaluations, without any training."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sample_pages
from job_records import make_record

from cloudft.evaluate.results import Evaluation, save_evaluation
from cloudft.storage.artifacts import TRAINING_CSV
from cloudft.storage.store import JobRecord, Store
from cloudft.types import to_json

LABELS = ("billing", "deliveries", "returns", "other")
HYPERPARAMETERS = {"epochCount": 2, "learningRate": 1e-4, "batchSize": 8}
WEIGHTS = [{"kind": "hub", "repo": "HuggingFaceTB/SmolLM2-135M", "revision": "93efa2f097d58c2a"}]


def make_job(
    home: Path,
    job_id: str,
    *,
    spec: Mapping[str, Any] | None = None,
    hyper: Mapping[str, Any] | None = None,
    steps: int = 120,
    first_loss: float = 3.0,
    **changes: Any,
) -> JobRecord:
    """Write a completed local job with a curve; return its record."""
    store = Store(home / "jobs")
    parameters = {**HYPERPARAMETERS, **(hyper or {})}
    name = job_id.rpartition("-")[0]
    whole = {
        "name": name,
        "base_model": "smollm2-135m",
        "customization_type": "FINE_TUNING",
        "data": {"train": ["/data/tickets.jsonl"], "validation": 0.1},
        "seed": 7,
        "local": {"method": "lora", "lora": {"r": 16, "alpha": 32.0, "target_modules": "all"}},
        **(spec or {}),
    }
    manifest = {
        "sha256": "5b" * 32,
        "format": "converse",
        "files": {"train": {"name": "train.jsonl", "sha256": "c1" * 32, "records": 1800,
                            "tokens": 91_000}},
        "sources": [{"role": "train", "path": "/data/tickets.jsonl", "sha256": "9a" * 32,
                     "records": 2000, "shape": "chat"}],
    }  # fmt: skip
    values: dict[str, Any] = {
        "base_model": "smollm2-135m",
        "hyper_parameters": parameters,
        "spec": whole,
        "manifest": manifest,
        "request": {"id": job_id, "model": {"weights": WEIGHTS}},
    }
    record = make_record(store, job_id, **values | changes)
    with store.create(record):
        store.mark_submitted(job_id, job_id)
    _write_run(record, parameters, sample_pages.make_curves(steps, first_loss))
    return store.get(job_id)


def _write_run(record: JobRecord, parameters: Mapping[str, Any], points: list[Any]) -> None:
    """Write what the trainer leaves in a job's folder."""
    folder, seed = record.folder, record.spec["seed"]
    request = {
        "version": 1, "id": record.id, "name": record.name, "attempt": 0,
        "customizationType": record.customization_type, "format": "converse", "method": "lora",
        "lora": {"r": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": "all"},
        "hyperParameters": dict(parameters), "seed": seed, "baseModel": record.base_model,
        "model": {"name": record.base_model, "weights": WEIGHTS}, "data": {},
    }  # fmt: skip
    summary = {"model": "smollm2-135m", "method": "lora", "device": "cpu", "dtype": "float32"}
    ended = {"status": "Completed", "endedAt": "2026-01-02T03:24:35.678+00:00"}
    curve = folder / "artifacts" / TRAINING_CSV
    curve.parent.mkdir(parents=True)
    curve.write_text("")
    (folder / "job.json").write_text(json.dumps(request))
    (folder / "state.json").write_text(json.dumps({"summary": summary}))
    (folder / "ended.json").write_text(json.dumps(ended))
    lines = (json.dumps(to_json(dataclasses.replace(p))) for p in points)
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


def evaluate_job(
    record: JobRecord,
    share_right: float,
    *,
    day: int = 1,
    records: int = 48,
    data: str = "held-out",
    prompt: str = "Where is my parcel {}?",
) -> Evaluation:
    """Save an evaluation of a classifier: the base is right in 4 of 10 records. Return it."""
    draw, base_draw = random.Random(f"{record.id} {data}"), random.Random(data)
    scored = [
        _scored_record(n, data, prompt.format(n), base_draw.random() < 0.4,
                       draw.random() < share_right)
        for n in range(records)
    ]  # fmt: skip
    base, tuned = (
        sum(one[name]["score"] for one in scored) / records for name in ("base", "tuned")
    )
    evaluation: Any = {
        "version": 1,
        "job": record.id,
        "createdAt": f"2026-01-{day + 2:02}T10:00:00.000+00:00",
        "data": {"sha256": data.encode().hex().ljust(64, "0"), "role": "given"},
        "warnings": [],
        "identities": {"base": "b" * 64, "tuned": record.id.ljust(64, "t")},
        "decoding": {"maxNewTokens": 16, "temperature": 0.0, "topP": 1.0, "seed": 7},
        "task": "classification",
        "metric": "accuracy",
        "n": records,
        "base": {"accuracy": base},
        "tuned": {"accuracy": tuned},
        "delta": {"accuracy": {"value": tuned - base, "low": None, "high": None}},
        "significance": {
            "test": "McNemar (exact)",
            "pValue": 0.01,
            "effect": {"name": "Cohen's h", "value": 0.5},
            "fixed": None,
            "broken": None,
            "verdict": "better",
            "sentence": "The tuned model is better.",
        },
        "slices": [],
        "labels": list(LABELS),
        "records": scored,
    }
    save_evaluation(record.folder, evaluation)
    found: Evaluation = evaluation
    return found


def _scored_record(
    number: int, data: str, prompt: str, base_is_right: bool, tuned_is_right: bool
) -> dict[str, Any]:
    label = LABELS[number % len(LABELS)]

    def answer(is_right: bool) -> dict[str, Any]:
        return {"text": label if is_right else "nothing", "score": float(is_right)}

    return {
        "key": f"{data}-{number}",
        "file": f"{data}.jsonl",
        "line": number + 1,
        "prompt": prompt,
        "reference": label,
        "base": answer(base_is_right),
        "tuned": answer(tuned_is_right),
    }
