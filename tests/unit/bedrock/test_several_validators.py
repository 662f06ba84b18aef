"""Several validation sets are several validators, and each metric has its name again."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint
from job_files import write_job_file
from processes import Cli

from cloudft.backends.base import with_placeholder_data
from cloudft.backends.bedrock import output, request, states
from cloudft.spec.load import load_job
from cloudft.storage import artifacts as layout
from cloudft.storage.artifacts import combine_validation, read_metrics
from cloudft.types import Metric

SETS = ("english", "german")


def job_with_sets(folder: Path, section: Any, model: str = "titan-text-express") -> Path:
    path = write_job_file(folder, Path(model), bedrock=section, hyperparameters={})
    for number, name in enumerate(SETS, start=1):
        records = [{"prompt": f"{name} {n}", "completion": "a"} for n in range(number + 1)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


FLAGS = [word for name in SETS for word in ("--set", f"data.validation.{name}={name}.jsonl")]


def test_every_set_is_a_validator_in_the_order_of_the_names(tmp_path: Path) -> None:
    section = {"region": "us-west-2", "role_arn": "arn:aws:iam::123456789012:role/bedrock"}
    section["s3_uri"] = "s3://some-bucket/team"
    path = job_with_sets(tmp_path, section)
    flags = {f"data.validation.{name}": f"{name}.jsonl" for name in reversed(SETS)}
    created = request.create_request(with_placeholder_data(load_job(path, flags=flags)))
    names = [Path(v["s3Uri"]).name for v in created["validationDataConfig"]["validators"]]
    assert names == ["validation-english.jsonl", "validation-german.jsonl"]


def test_the_job_ends_with_a_loss_and_a_curve_for_each_set(
    cli: Cli, fast_account: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in fast_account.environ.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "job"
    job_with_sets(folder, fast_account.bedrock_section)
    words = ("submit", "--backend", "bedrock", "--wait", "--output", "json", *FLAGS)
    done = cli(*words, cwd=folder, timeout=100)
    assert done.returncode == 0, done.stderr + done.stdout
    job = json.loads(done.stdout)
    described = fast_account.client("bedrock").get_model_customization_job(jobIdentifier=job["id"])
    assert len(described["validationMetrics"]) == 2
    assert set(job["summary"]["validationSetLosses"]) == set(SETS)
    points = list(read_metrics(Path(job["artifacts"])))
    assert {point.validation_set for point in points} == {None, *SETS}
    assert not [p for p in points if p.split == "validation" and p.validation_set is None]
    shown = cli("metrics", job["id"], cwd=folder).stdout
    assert "validation-german" in shown and "validation-english" in shown


def described(*names: str) -> Any:
    uris = [{"s3Uri": f"s3://b/data/{'0' * 64}/validation-{name}.jsonl"} for name in names]
    return {"validationDataConfig": {"validators": uris}}


OUT = "model-customization-job-x/validation_artifacts/post_fine_tuning_validation/"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["validation_metrics.csv"], {"validation_metrics.csv": None}),
        (["validation/validation_metrics.csv"], {"validation/validation_metrics.csv": None}),
        (
            ["german/validation_metrics.csv", "english/validation_metrics.csv"],
            {
                "german/validation_metrics.csv": "german",
                "english/validation_metrics.csv": "english",
            },
        ),
        (
            ["validation-german/validation_metrics.csv", "english/validation_metrics.csv"],
            {
                "validation-german/validation_metrics.csv": "german",
                "english/validation_metrics.csv": "english",
            },
        ),
        (
            ["2/validation_metrics.csv", "10/validation_metrics.csv"],
            {"2/validation_metrics.csv": "english", "10/validation_metrics.csv": "german"},
        ),
        (["a/validation_metrics.csv", "b/validation_metrics.csv", "c/validation_metrics.csv"], {}),
    ],
)
def test_the_curves_of_a_bucket_are_named_or_kept_as_they_are(
    names: list[str], expected: dict[str, str | None]
) -> None:
    found = output._validation_curves([OUT + name for name in names], described(*SETS))
    wanted = {OUT + name: layout.validation_csv(one) for name, one in expected.items()}
    assert found == wanted
    assert len(set(found.values())) == len(found)


def test_losses_are_named_only_where_there_is_one_for_each_validator() -> None:
    job = {
        **described(*SETS),
        "status": "Completed",
        "jobArn": "a",
        "jobName": "j",
        "creationTime": None,
        "validationMetrics": [{"validationLoss": 1.0}, {"validationLoss": 2.0}],
    }
    summary = states.to_job_state(job, None).summary
    assert summary["validationSetLosses"] == {"english": 1.0, "german": 2.0}
    del job["validationMetrics"][1]
    summary = states.to_job_state(job, None).summary
    assert "validationSetLosses" not in summary and summary["validationLosses"] == [1.0]


def test_curves_of_sets_alone_are_combined_where_all_have_a_point(tmp_path: Path) -> None:
    for name, losses in (("german", [1.0, 3.0]), ("english", [2.0])):
        path = tmp_path / layout.validation_csv(name)
        path.parent.mkdir(parents=True)
        with path.open("w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(layout.VALIDATION_COLUMNS)
            rows.writerows((step, 0, loss, 1.0) for step, loss in enumerate(losses))
    points: list[Metric] = list(read_metrics(tmp_path))
    assert {p.validation_set for p in points} == {"german", "english"}
    assert [(p.step, p.loss) for p in combine_validation(points)] == [(0, 1.5)]
