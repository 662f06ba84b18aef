"""Job folders that learn from a grader, for the trainer without cloudft."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny

PAYS_FOR_A_CAPITAL = """
def lambda_handler(event, context):
    return [
        {"id": s["id"], "aggregate_reward_score": float(s["messages"][-1]["content"][:1].isupper())}
        for s in event
    ]
"""
"""Pays for an answer that begins with a capital letter: one token decides it."""
PAYS_FOR_LENGTH = """
def lambda_handler(event, context):
    return [
        {"id": s["id"], "aggregate_reward_score": len(s["messages"][-1]["content"]) / 100}
        for s in event
    ]
"""
PAYS_NOTHING = """
def lambda_handler(event, context):
    return [{"id": s["id"], "aggregate_reward_score": 0.0} for s in event]
"""
PAYS_AT_RANDOM = """
import hashlib

def lambda_handler(event, context):
    return [
        {"id": s["id"], "aggregate_reward_score": hashlib.md5(repr(s).encode()).digest()[0] / 255}
        for s in event
    ]
"""
"""Never ends early: no answer is better than another for long, and none gets the same."""
PARAMETERS = {
    "epochCount": 4,
    "batchSize": 4,
    "learningRate": 2e-2,
    "learningRateWarmupSteps": 0,
    "trainingSamplePerPrompt": 8,
    "inferenceMaxTokens": 4,
}


def prompts(count: int) -> list[dict[str, Any]]:
    """Return `count` records of a prompt with its reference answer and one more key."""
    return [
        {
            "messages": [{"role": "user", "content": f"Where is parcel {number}?"}],
            "reference_answer": tiny.CITIES[number % len(tiny.CITIES)],
            "ticket": number,
        }
        for number in range(count)
    ]


def job_options(folder: Path, grader: str, **options: Any) -> dict[str, Any]:
    """Return what write_job_file takes for such a job; its grader is written into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "grader.py").write_text(grader, encoding="utf-8")
    parameters = PARAMETERS | dict(options.pop("hyperparameters", {}))
    return {
        "customization_type": "REINFORCEMENT_FINE_TUNING",
        "reinforcement": {"grader": str(folder / "grader.py"), "hyperparameters": {}},
        "local": {
            "device": "cpu",
            "dtype": "float32",
            "lora": {"r": 4, "alpha": 8},
            "hyperparameters": parameters,
        },
        **options,
    }


def write_reinforcement_job(
    folder: Path,
    model: Path,
    data: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    grader: str = PAYS_FOR_A_CAPITAL,
    parameters: Mapping[str, float] | None = None,
    **changes: Any,
) -> Path:
    """Write a job folder with its grader; see tiny.write_job_dir."""
    folder.mkdir(parents=True)
    code = folder / "grader.py"
    code.write_text(grader, encoding="utf-8")
    digest = hashlib.sha256(code.read_bytes()).hexdigest()
    file = {"path": code.name, "sha256": digest, "timeoutSeconds": 10, "memoryMb": 512}
    return tiny.write_job_dir(
        folder,
        model,
        data,
        customizationType="REINFORCEMENT_FINE_TUNING",
        format="reinforcement",
        hyperParameters=PARAMETERS | dict(parameters or {}),
        grader=file,
        **changes,
    )
