"""The state file: damage is reported with its field, and no path is taken from the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudft.endpoint.state import STATE_FILE, Job, Model, State, StateData, Task
from cloudft.errors import BadDocument

ROLE = "arn:aws:iam::000000000000:role/any"
JOB = {
    "jobName": "tuned",
    "customModelName": "tuned",
    "roleArn": ROLE,
    "baseModelIdentifier": "amazon.nova-lite-v1:0:300k",
    "trainingDataConfig": {"s3Uri": "s3://bucket/train.jsonl"},
    "outputDataConfig": {"s3Uri": "s3://bucket/out"},
}
IMPORT = {
    "jobName": "in",
    "importedModelName": "in",
    "roleArn": ROLE,
    "modelDataSource": {"s3DataSource": {"s3Uri": "s3://bucket/model/"}},
}


def write_state(folder: Path) -> dict[str, Any]:
    """Return the content of a file with a job, a task and an imported model."""
    state = State("us-east-1", folder)
    arn = state.arn("model-customization-job", "amazon.nova-lite-v1:0")
    state.jobs[arn] = Job(arn, JOB, "arn:base", local="job-1")
    task = Task(state.arn("model-import-job"), "in", IMPORT)
    state.imports[task.arn] = task
    arn = state.arn("imported-model")
    path = str(folder / "imported" / task.id)
    state.imported[arn] = Model(arn, "in", "", folder=path)
    state.save()
    content: dict[str, Any] = json.loads((folder / STATE_FILE).read_bytes())
    return content


def first_resource(content: dict[str, Any], kind: str) -> dict[str, Any]:
    resource: dict[str, Any] = next(iter(content[kind].values()))
    return resource


def change_arn(content: dict[str, Any], kind: str, arn: str) -> None:
    resource = content[kind].popitem()[1]
    content[kind][arn] = resource | {"arn": arn}


Damage = Callable[[dict[str, Any]], Any]
DAMAGES: list[tuple[Damage, str]] = [
    (lambda c: c.update(jobs=[]), "jobs"),
    (lambda c: first_resource(c, "jobs").update(created="yesterday"), "created"),
    (lambda c: first_resource(c, "jobs").update(details={"trainingDetails": 3}), "details"),
    (lambda c: first_resource(c, "jobs").pop("request"), "jobs"),
    (lambda c: first_resource(c, "jobs")["request"].pop("jobName"), "request"),
    (lambda c: first_resource(c, "jobs")["request"].update(trainingDataConfig=[]), "request"),
    (lambda c: first_resource(c, "jobs").update(local="../../elsewhere"), "local"),
    (lambda c: first_resource(c, "jobs").update(arn="arn:other"), "arn"),
    (lambda c: first_resource(c, "imported").update(folder="/home/user"), "folder"),
    (lambda c: change_arn(c, "imports", "arn:aws:bedrock:us-east-1:0:model-import-job/.."), "arn"),
    (lambda c: c.update(version=2), "version"),
]


@pytest.mark.parametrize(("damage", "field"), DAMAGES)
def test_a_damaged_state_is_named_with_file_and_field(
    tmp_path: Path, damage: Damage, field: str
) -> None:
    content = write_state(tmp_path)
    damage(content)
    (tmp_path / STATE_FILE).write_text(json.dumps(content))
    before = (tmp_path / STATE_FILE).read_bytes()
    with pytest.raises(BadDocument) as caught:
        State("us-east-1", tmp_path)
    assert caught.value.file == str(tmp_path / STATE_FILE) and field in str(caught.value.field)
    assert (tmp_path / STATE_FILE).read_bytes() == before, "it is left as it is"


def test_a_newer_files_unknown_keys_and_an_older_files_missing_ones_are_no_damage(
    tmp_path: Path,
) -> None:
    content = write_state(tmp_path)
    assert content.pop("version") == StateData().version == 1
    content["new"] = {"any": 1}
    first_resource(content, "jobs")["request"]["newMember"] = {"any": 1}
    first_resource(content, "jobs")["new"] = [1]
    (tmp_path / STATE_FILE).write_text(json.dumps(content))
    assert [job.name for job in State("us-east-1", tmp_path).jobs.values()] == ["tuned"]


def test_an_imported_model_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    """A state that was moved or copied does not reach back to where it came from."""
    (tmp_path / "old").mkdir()
    write_state(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    [model] = State("us-east-1", tmp_path / "new").imported.values()
    assert str(model.folder).startswith(str(tmp_path / "new" / "imported"))
