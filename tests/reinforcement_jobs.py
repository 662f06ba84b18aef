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
