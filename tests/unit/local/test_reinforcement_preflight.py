"""What `check` says of a reinforcement job before it runs on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import reinforcement_jobs as jobs
from job_files import write_job_file

from cloudft.backends.local import preflight
from cloudft.backends.local.reinforcement import check_reinforcement
from cloudft.spec.load import load_job


@pytest.mark.parametrize(
    ("reinforcement", "local", "field"),
    [
        (
            {"lambda_arn": "arn:aws:lambda:us-east-1:123456789012:function:g"},
            {},
            "reinforcement.grader",
        ),
        ({"hyperparameters": {"trainingSamplePerPrompt": 1}}, {}, "trainingSamplePerPrompt"),
        ({"hyperparameters": {"evalSteps": 1}}, {}, "evalSteps"),
        ({"hyperparameters": {"inferenceMaxTokens": 256}}, {}, "inferenceMaxTokens"),
        ({}, {"processes": 2}, "local.processes"),
        ({}, {"method": "full", "reinforcement": {"beta": 0.1}}, "local.reinforcement.beta"),
    ],
    ids=["no file", "one answer", "unknown", "no room", "processes", "no reference"],
)
def test_what_can_not_work_here_is_an_error_with_its_field(
    tmp_path: Path,
    tiny_model: Path,
    reinforcement: dict[str, Any],
    local: dict[str, Any],
    field: str,
) -> None:
    options = jobs.job_options(tmp_path, jobs.PAYS_NOTHING, records=jobs.prompts(4))
    if "lambda_arn" in reinforcement:
        options["reinforcement"] = reinforcement
    else:
        options["reinforcement"] |= reinforcement
    options["local"] = {"device": "cpu", **local}
    job = load_job(write_job_file(tmp_path / "job", tiny_model, **options))
    [finding] = check_reinforcement(job)
    assert (finding.severity, finding.field and finding.field.endswith(field)) == ("error", True)
    assert finding.fix


@pytest.mark.parametrize(
    ("kind", "more", "found"),
    [
        (
            "REINFORCEMENT_FINE_TUNING",
            {"distillation": {"teacher": "nova-pro"}},
            ("error", "distillation"),
        ),
        (
            "REINFORCEMENT_FINE_TUNING",
            {"hyperparameters": {"epochCount": 3}},
            ("error", "hyperparameters"),
        ),
        ("FINE_TUNING", {"reinforcement": {"grader": "grader.py"}}, ("error", "reinforcement")),
        ("PREFERENCE_OPTIMIZATION", {"distillation": {}}, ("error", "distillation")),
        (
            "FINE_TUNING",
            {"local": {"reinforcement": {"beta": 0.1}}},
            ("warning", "local.reinforcement"),
        ),
    ],
    ids=["distillation", "hyperparameters", "reinforcement", "preference", "local"],
)
def test_a_setting_of_another_type_is_not_ignored(
    tmp_path: Path, tiny_model: Path, kind: str, more: dict[str, Any], found: tuple[str, str]
) -> None:
    if kind == "REINFORCEMENT_FINE_TUNING":
        more = jobs.job_options(tmp_path, jobs.PAYS_NOTHING, records=jobs.prompts(4)) | more
    spec = {"customization_type": kind, "reinforcement": None} | more
    job = load_job(write_job_file(tmp_path / "job", tiny_model, **spec))
    if "hyperparameters" in more:
        job = replace(job, spec=job.spec.model_copy(update={"hyperparameters": {"epochCount": 3}}))
    unused = [one for one in preflight.check_job(job) if one.code == "UnusedValue"]
    assert [(one.severity, one.field) for one in unused] == [found]
