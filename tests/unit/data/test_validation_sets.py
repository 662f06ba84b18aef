"""Several validation sets: read, checked and staged each on its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloudft.catalogue import Source
from cloudft.catalogue.model import Limits
from cloudft.data.checks.check import DataReport, check_data
from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.staging.stage import stage_data
from cloudft.errors import SpecError
from cloudft.spec.load import load_spec
from cloudft.spec.model import DataSpec
from cloudft.spec.serialize import to_portable_values

SOURCE = Source("test", "https://example.org", "2026")


def write(folder: Path, **files: range) -> None:
    """Write a file of pairs for each name; equal numbers are equal records."""
    for name, numbers in files.items():
        records = [{"prompt": f"p{i}", "completion": f"c{i}"} for i in numbers]
        text = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text(text)


def spec(validation: Any) -> DataSpec:
    return DataSpec.model_validate({"train": "train.jsonl", "validation": validation})


def check(folder: Path, data: DataSpec, limits: DatasetLimits | None = None) -> DataReport:
    return check_data(data, format="prompt-completion", base_dir=folder, limits=limits)


def test_each_set_is_counted_and_staged_as_its_own_file(tmp_path: Path) -> None:
    write(tmp_path, train=range(20), de=range(100, 103), en=range(200, 205))
    data = spec({"german": "de.jsonl", "english": ["en.jsonl"]})
    report = check(tmp_path, data)
    assert report.findings == ()
    assert report.volumes is not None
    records = {role: volume.records for role, volume in report.volumes.items()}
    assert records == {"train": 20, "validation-german": 3, "validation-english": 5}
    staged = stage_data(
        data,
        customization_type="FINE_TUNING",
        format="prompt-completion",
        seed=7,
        base_dir=tmp_path,
        root=tmp_path / "root",
    )
    assert {role: file.records for role, file in staged.manifest.files.items()} == records
    lines = (staged.folder / "validation-german.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["p100", "p101", "p102"]


def test_a_record_that_is_trained_on_is_found_in_each_set_with_file_and_line(
    tmp_path: Path,
) -> None:
    write(tmp_path, train=range(20), de=range(19, 22), en=range(200, 205))
    [leak] = check(tmp_path, spec({"german": "de.jsonl", "english": "en.jsonl"})).findings
    assert (leak.code, leak.line) == ("LeakedValidationSet", 1)
    assert leak.file is not None and leak.file.endswith("de.jsonl")
    assert "1 of 3 validation-german inputs are in the training data too" in leak.message


def test_a_file_that_is_missing_is_named_by_its_set(tmp_path: Path) -> None:
    write(tmp_path, train=range(20), de=range(30, 33))
    [missing] = check(tmp_path, spec({"german": "de.jsonl", "english": "no.jsonl"})).findings
    assert missing.field == "data.validation.english"


def test_the_limit_on_validation_records_is_on_all_sets_together(tmp_path: Path) -> None:
    write(tmp_path, train=range(20), de=range(100, 104), en=range(200, 204))
    limits = DatasetLimits(Limits(SOURCE, validation_records_max=7))
    [found] = check(tmp_path, spec({"german": "de.jsonl", "english": "en.jsonl"}), limits).findings
    assert "8 validation records; the model takes 7 at most" in found.message


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ({}, "0 validation sets"),
        ({f"s{n}": "a.jsonl" for n in range(11)}, "11 validation sets"),
        ({"Ger man": "a.jsonl"}, "'Ger man' is no name of a validation set"),
        ({"a/b": "a.jsonl"}, "'a/b' is no name of a validation set"),
        ({"german": 0.1}, "is not a path"),
        ({"german": []}, "an empty path or list of paths"),
    ],
)
def test_names_and_numbers_of_sets_are_checked(validation: Any, message: str) -> None:
    flags = {"name": "n", "base_model": "smollm2-135m", "data.train": "t.jsonl"}
    with pytest.raises(SpecError) as caught:
        load_spec({"data": {"validation": validation}}, flags=flags)
    assert any(message in finding.message for finding in caught.value.findings)


def test_sets_in_another_order_are_the_same_job_and_their_paths_become_absolute() -> None:
    first = spec({"b": "b.jsonl", "a": ["a.jsonl"]})
    assert list(first.validation_files) == ["validation-a", "validation-b"]
    flags = {"name": "n", "base_model": "smollm2-135m", "data.train": "t.jsonl"}
    job = load_spec({}, flags={**flags, "data.validation.a": "a.jsonl"})
    values = to_portable_values(job)["data"]["validation"]
    assert values == {"a": str(job.base_dir / "a.jsonl")}
