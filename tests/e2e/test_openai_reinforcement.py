"""Reinforcement by Bedrock's OpenAI-compatible API, from a job file to a model that answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from endpoint import running_endpoint
from processes import Cli
from reinforcement_jobs import PAYS_FOR_A_CAPITAL

ARN = "arn:aws:lambda:us-west-2:000000000000:function:grader"
SETTINGS = (
    *("local.device=cpu", "local.dtype=float32", "local.lora.r=4", "local.lora.alpha=8"),
    "local.hyperparameters.inferenceMaxTokens=4",
    "local.hyperparameters.trainingSamplePerPrompt=2",
)
SETS = [word for setting in SETTINGS for word in ("--set", setting)]
STEPS = 4


def test_a_job_learns_from_its_grader_through_the_api(
    cli: Cli, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grader = tmp_path / "grader.py"
    grader.write_text(PAYS_FOR_A_CAPITAL, encoding="utf-8")
    records = [
        {"messages": [{"role": "user", "content": f"{n} + 1?"}], "reference_answer": str(n + 1)}
        for n in range(100)
    ]
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    (tmp_path / "train.jsonl").write_text(lines, encoding="utf-8")
    spec: dict[str, Any] = {
        "name": "capitals",
        "base_model": "qwen3-32b",
        "customization_type": "REINFORCEMENT_FINE_TUNING",
        "data": {"train": "train.jsonl"},
        "reinforcement": {
            "lambda_arn": ARN,
            "hyperparameters": {"epochCount": 1, "batchSize": 100 // STEPS},
        },
        "bedrock": {"region": "us-west-2"},
    }
    (tmp_path / "cloudft.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    words = ("--stand-in", tiny_model, *SETS, "--grader", f"{ARN}={grader}")
    with running_endpoint(*words) as endpoint:
        for name, text in endpoint.environ.items():
            monkeypatch.setenv(name, text)
        monkeypatch.setenv("AWS_REGION", "us-west-2")

        def run(*command: str) -> Any:
            done = cli(*command, "--output", "json", timeout=200)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        job = run("submit", "--backend", "bedrock", "--wait")
        assert job["status"] == "Completed", job
        points = run("metrics", job["id"])
        assert [point["step"] for point in points] == list(range(STEPS))
        assert all(0 <= point["reward"] <= 1 and point["entropy"] > 0 for point in points)
        answers = run("generate", job["id"], "--prompt", "2 + 2?", "--max-new-tokens", "4")
        assert answers[0]["tuned"]["text"]
