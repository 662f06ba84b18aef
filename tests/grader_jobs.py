"""Graders and reinforcement jobs for tests: a grader's file, prompts, and a job file for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from job_files import write_job_file

EXACT_GRADER = '''"""Reward 1 for the reference answer, and a little for a short one."""


def lambda_handler(event, context):
    graded = []
    for sample in event:
        answer = sample["messages"][-1]["content"]
        is_right = answer == sample["metadata"]["reference_answer"]
        reward = float(is_right) + 0.5 / (1 + len(answer))
        metrics = [{"name": "length", "value": len(answer), "type": "Metric"}]
        graded.append(
            {"id": sample["id"], "aggregate_reward_score": reward, "metrics_list": metrics}
        )
    return graded
'''
FAULTY_GRADER = "def lambda_handler(event, context):\n    raise KeyError('reference_answer')\n"


def prompts(count: int) -> list[dict[str, Any]]:
    """Return prompts with the answers that the grader compares with."""
    return [
        {
            "messages": [{"role": "user", "content": f"say {number}"}],
            "reference_answer": str(number),
        }
        for number in range(count)
    ]


def write_grader_job(
    folder: Path,
    *,
    grader: str = EXACT_GRADER,
    model: Path | str = "nova-2-lite",
    records: int = 100,
    reinforcement: Mapping[str, Any] | None = None,
    **more: Any,
) -> Path:
    """Write a reinforcement job with its grader and its prompts; return the job file."""
    (folder / "graders").mkdir(parents=True, exist_ok=True)
    (folder / "graders" / "tickets.py").write_text(grader, encoding="utf-8")
    path = write_job_file(
        folder,
        Path(model),
        records=prompts(records),
        customization_type="REINFORCEMENT_FINE_TUNING",
        reinforcement={"grader": "graders/tickets.py", **(reinforcement or {})},
        **more,
    )
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    spec["hyperparameters"] = {}
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path
