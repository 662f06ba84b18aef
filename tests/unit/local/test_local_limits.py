"""`check` refuses settings of `local` that are valid numbers and can't work, by their field."""

from __future__ import annotations

from typing import Any

import pytest
from processes import JobFile

from cloudft.backends.local import preflight
from cloudft.spec.load import load_job


@pytest.mark.parametrize(
    ("local", "field", "fix"),
    [
        ({"processes": 5}, "local.processes", "set it to 4 or less"),
        (
            {"processes": 1024, "hyperparameters": {"batchSize": 1024}},
            "local.processes",
            "set it to auto",
        ),
        ({"lora": {"r": 10_000}}, "local.lora.r", "set it to 32 or less"),
        ({"lora": {"r": 33}}, "local.lora.r", "set it to 32 or less"),
        ({"model": "smollm2-135m", "lora": {"r": 16_000}}, "local.lora.r", "set it to 64 or less"),
        ({"lora": {"r": 8, "alpha": 1e6}}, "local.lora.alpha", "set it to 16"),
        ({"lora": {"r": 32, "alpha": 64}, "processes": 4}, None, None),
        ({"method": "full", "lora": {"r": 10_000}}, None, None),
    ],
)
def test_what_the_model_or_the_batch_can_not_take_is_refused(
    job_file: JobFile, local: dict[str, Any], field: str | None, fix: str | None
) -> None:
    """The tiny model is 32 wide, and a batch has 4 records."""
    found = [
        f for f in preflight.check_job(load_job(job_file(local=local))) if f.severity == "error"
    ]
    assert [f.field for f in found] == ([field] if field else [])
    if fix:
        assert fix in found[0].fix and found[0].line
