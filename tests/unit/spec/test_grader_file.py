"""The grader's file of a job: read, checked with its own lines, and part of the plan."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudft.backends import make_backend
from cloudft.backends.local import request
from cloudft.backends.local.reinforcement import check_reinforcement
from cloudft.errors import CheckFailed
from cloudft.jobs import prepare
from cloudft.spec.grader_file import HANDLER, check_grader, read_grader
from cloudft.spec.load import LoadedJob, load_job
from cloudft.spec.serialize import to_portable_values
from cloudft.storage.home import Home
from local_backend.grading.worker_process import GraderSettings

GOOD = "def lambda_handler(event, context):\n    return []\n"


def write_job(folder: Path, text: str | None, **reinforcement: Any) -> LoadedJob:
    (folder / "graders").mkdir(parents=True, exist_ok=True)
    if text is not None:
        (folder / "graders" / "tickets.py").write_text(text)
    record = {"messages": [{"role": "user", "content": "2 + 2?"}], "reference_answer": "4"}
    (folder / "prompts.jsonl").write_text(
        "".join(json.dumps(record | {"n": number}) + "\n" for number in range(120))
    )
    spec = {
        "name": "rft",
        "customization_type": "REINFORCEMENT_FINE_TUNING",
        "base_model": "nova-2-lite",
        "data": {"train": "prompts.jsonl"},
        "reinforcement": {"grader": "graders/tickets.py", **reinforcement},
        "local": {"model": "smollm2-135m"},
    }
    path = folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return load_job(path)


@pytest.mark.parametrize(
    ("text", "code", "line", "words"),
    [
        (None, "GraderUnreadable", 7, "No such file"),
        ("x = 1\ny = (\n", "GraderSyntax", 2, "never closed"),
        ("def grade(event): ...\n", "NoGraderHandler", None, "no function lambda_handler"),
        ("\ndef lambda_handler(event): ...\n", "NoGraderHandler", 2, "can't be called"),
        ("\nasync def lambda_handler(e, c): ...\n", "NoGraderHandler", 2, "async"),
        (f"import json\nimport helpers\n{GOOD}", "GraderImports", 2, "a file beside it"),
        (f"import json, boto3\nfrom numpy import array\n{GOOD}", "GraderImports", 2, "lacks"),
        ("#" * 1_100_000, "GraderTooLarge", 7, "limit"),
    ],
)
def test_a_grader_that_can_not_work_is_found_with_its_line(
    tmp_path: Path, text: str | None, code: str, line: int | None, words: str
) -> None:
    job = write_job(tmp_path, text)
    (tmp_path / "graders" / "helpers.py").touch()
    [finding] = check_grader(job)
    assert (finding.code, finding.line) == (code, line) and words in finding.message
    assert finding.field == "reinforcement.grader" and finding.fix
    is_in_job_file = code in ("GraderUnreadable", "GraderTooLarge")
    assert str(finding.file).endswith("cloudft.yaml" if is_in_job_file else "graders/tickets.py")
    if finding.severity == "error":
        with pytest.raises(CheckFailed):
            read_grader(job)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "lambda_handler = lambda event, context: []\n",
        "from json import loads as lambda_handler\n",
        f"try:\n    import numpy\nexcept ImportError:\n    numpy = None\n{GOOD}",
        "if True:\n    def lambda_handler(event, context=None, *more): ...\n",
    ],
)
def test_what_lambda_can_call_is_no_finding(tmp_path: Path, text: str) -> None:
    assert check_grader(write_job(tmp_path, text)) == ()


def staged_job(job: LoadedJob, home: Home) -> Any:
    backend = make_backend("local", home).for_job(job)
    backend.check = lambda job: []  # type: ignore[method-assign]  # of this machine
    backend.has_template = lambda job: False  # type: ignore[attr-defined]
    return prepare.prepare(job, backend, home)[0], backend


def test_the_graders_digest_is_part_of_the_job_and_its_copy_of_the_folder(
    tmp_path: Path, home: Path
) -> None:
    tokens = []
    for text in (GOOD, GOOD + "# another\n", GOOD):
        job = write_job(tmp_path, text, timeout_seconds=5)
        staged, backend = staged_job(job, Home(home))
        plan = backend.plan(staged)
        assert plan.request["grader"] == {
            "path": "grader.py",
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "timeoutSeconds": 5,
            "memoryMb": 512,
        }
        assert plan.files["grader"].read_text() == text
        tokens.append(plan.token)
    assert tokens[0] == tokens[2] != tokens[1]
    # A file that changes after the plan was made does not change the plan.
    (tmp_path / "graders" / "tickets.py").write_text("")
    assert plan.files["grader"].read_text() == GOOD


def test_a_job_file_without_a_grader_has_none_and_a_stored_one_has_its_absolute_path(
    tmp_path: Path,
) -> None:
    job = write_job(tmp_path, GOOD)
    stored = to_portable_values(job)["reinforcement"]["grader"]
    assert stored == str(tmp_path / "graders" / "tickets.py")
    without = write_job(tmp_path, GOOD, grader=None, lambda_arn="arn:aws:lambda:us-east-1:1:f")
    assert read_grader(without) is None
    assert "grader" not in request.build_base_model_request(without)
    [missing] = check_reinforcement(without)  # Lambda is not called from this machine
    assert (missing.code, missing.field) == ("MissingValue", "reinforcement.grader")


def test_the_handler_has_one_name() -> None:
    assert GraderSettings(Path("x")).handler == HANDLER
