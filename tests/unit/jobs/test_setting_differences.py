"""What differs between the settings of jobs, and which jobs differ in their seed only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from job_records import make_record

from cloudft.jobs.setting_differences import SettingRow, compare_settings, group_repeats
from cloudft.storage.store import JobRecord, Store


def record(folder: Path, name: str, **changes: Any) -> JobRecord:
    return make_record(Store(folder), f"{name}-00000000", **changes)


def differing(*records: JobRecord) -> dict[str, tuple[Any, ...]]:
    rows = compare_settings(records)
    return {f"{row.group}: {row.name}": row.values for row in rows if row.differs}


def test_only_what_differs_is_named_by_dotted_names(tmp_path: Path) -> None:
    first = record(
        tmp_path,
        "a",
        spec={"seed": 7, "local": {"lora": {"r": 16, "alpha": 32}}, "early_stopping": None},
        manifest={"sha256": "1", "files": {"train": {"records": 5, "sha256": "x"}}},
    )
    second = record(
        tmp_path,
        "b",
        spec={"seed": 7, "local": {"lora": {"r": 64, "alpha": 32}}, "tags": {"team": "x"}},
        hyper_parameters={"epochCount": 2.0, "learningRate": 1e-5},
        manifest={"sha256": "2", "files": {"train": {"records": 6, "sha256": "y"}}},
        base_model="nova-pro",
    )
    assert differing(first, second) == {
        "job file: local.lora.r": (16, 64),
        "job file: tags.team": (None, "x"),
        "job file: base_model": ("nova-lite", "nova-pro"),
        "data: sha256": ("1", "2"),
        "data: train.records": (5, 6),
        "data: train.sha256": ("x", "y"),
    }


def test_resolved_hyperparameters_win_and_unset_is_not_a_value(tmp_path: Path) -> None:
    first = record(tmp_path, "a", spec={"hyperparameters": {"epochCount": 9}})
    rows = {row.name: row for row in compare_settings([first])}
    assert rows["epochCount"].values == (2,) and rows["epochCount"].group == "hyperparameters"
    assert not any(row.differs for row in rows.values())
    assert SettingRow("data", "x", (1, 1.0)).differs is False


def test_lists_of_mappings_are_numbered_and_results_are_no_settings(tmp_path: Path) -> None:
    request = {"model": {"weights": [{"kind": "hub", "revision": "1"}]}}
    other = {"model": {"weights": [{"kind": "hub", "revision": "2"}]}}
    jobs = [record(tmp_path, "a", request=request), record(tmp_path, "b", request=other)]
    summaries = [
        {"device": "cpu", "tuned": {"validationLoss": 1.0}},
        {"device": "cuda", "tuned": {"validationLoss": 2.0}},
    ]
    rows = {row.name: row.values for row in compare_settings(jobs, summaries) if row.differs}
    assert rows == {"name": ("a-00000000", "b-00000000"), "device": ("cpu", "cuda")} | {
        "weights.1.revision": ("1", "2")
    }


@pytest.mark.parametrize(
    ("field", "value", "is_repeat"),
    [
        ("spec", {"name": "other", "seed": 8, "budget_usd": 3.0, "tags": {"a": "b"}}, True),
        ("manifest", {"sha256": "another split", "files": {}}, True),
        ("hyper_parameters", {"epochCount": 3, "learningRate": 1e-5}, False),
        ("spec", {"name": "a", "seed": 8, "local": {"method": "full"}}, False),
        ("base_model", "nova-pro", False),
        ("manifest", {"sources": [{"role": "train", "sha256": "other data"}]}, False),
    ],
)
def test_jobs_repeat_each_other_when_only_the_seed_differs(
    tmp_path: Path, field: str, value: object, is_repeat: bool
) -> None:
    first, second = record(tmp_path, "a"), record(tmp_path, "b", **{field: value})
    groups = group_repeats([first, second])
    assert [len(group) for group in groups] == ([2] if is_repeat else [1, 1])
