"""Folders of data sets: the files of one split are taken, the others named with their fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudft.data.checks.check import DataReport, check_data
from cloudft.data.findings import Findings
from cloudft.data.sources.source_files import SourceResolver
from cloudft.spec.model import DataSpec

CARD = """---
license: mit
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: [data/test-*]
---
# A data set
"""
CONFIGS = """---
configs:
- config_name: main
  data_files: [{split: train, path: main/train.jsonl}]
- config_name: socratic
  data_files: {train: socratic/train.jsonl}
---
"""


def write(folder: Path, *names: str, **texts: str) -> None:
    """Write files of one record each; `texts` are those of files with other contents."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"prompt": name, "completion": "c"}) + "\n")
    for name, text in texts.items():
        (folder / name.replace("_", ".")).write_text(text)


def check(folder: Path, **data: Any) -> DataReport:
    spec = DataSpec.model_validate(data)
    return check_data(spec, format="prompt-completion", base_dir=folder)


def names_of(folder: Path, field: str = "data.train", split: str | None = None) -> list[str]:
    findings = Findings()
    sources = SourceResolver(folder, findings).resolve(field, ["set"], split)
    assert not findings.count_errors(), findings.all()
    return [source.name.removeprefix("set/") for source in sources]


def test_a_card_says_which_files_are_which_split(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shards = [f"data/train-0000{n}-of-00002.jsonl" for n in range(2)]
    write(folder, *shards, "data/test-00000-of-00001.jsonl", "extra.jsonl", README_md=CARD)
    (folder / "LICENSE.txt").write_text("no document")
    assert names_of(tmp_path) == shards
    assert names_of(tmp_path, "data.test") == ["data/test-00000-of-00001.jsonl"]
    assert names_of(tmp_path, "--data", "test") == ["data/test-00000-of-00001.jsonl"]
    report = check(tmp_path, train="set")
    [note] = report.findings
    assert (note.severity, note.code) == ("note", "DatasetFolder")
    assert "the split 'train' alone (2 files); left out: 'test' (1 file)" in note.message
    # What it proposes is a line that works.
    line = note.message.partition("to use them: ")[2]
    test = yaml.safe_load(line.removeprefix("data.test: "))
    report = check(tmp_path, train="set", test=test)
    assert report.volumes is not None
    assert {role: volume.records for role, volume in report.volumes.items()} == {
        "train": 2,
        "test": 1,
    }


@pytest.mark.parametrize(
    ("files", "train", "test"),
    [
        (["train.jsonl", "test.jsonl"], ["train.jsonl"], ["test.jsonl"]),
        (["my-train.csv", "my_eval.csv", "dev.csv"], ["my-train.csv"], None),
        (
            ["train/a.jsonl", "train/b.jsonl", "test/a.jsonl"],
            ["train/a.jsonl", "train/b.jsonl"],
            ["test/a.jsonl"],
        ),
        (
            ["data/training_1.jsonl", "data/testing.jsonl"],
            ["data/training_1.jsonl"],
            ["data/testing.jsonl"],
        ),
        (["training 1.jsonl", "evaluation.jsonl"], ["training 1.jsonl"], ["evaluation.jsonl"]),
        (
            ["train_sft-00000-of-00001.jsonl", "test_sft-00000-of-00001.jsonl"],
            ["train_sft-00000-of-00001.jsonl"],
            ["test_sft-00000-of-00001.jsonl"],
        ),
    ],
)
def test_names_say_which_files_are_which_split(
    tmp_path: Path, files: list[str], train: list[str] | None, test: list[str] | None
) -> None:
    write(tmp_path / "set", *files)
    assert names_of(tmp_path) == (sorted(files) if train is None else train)
    if test is not None:
        assert names_of(tmp_path, "data.test") == test


def test_a_folder_without_splits_is_read_whole_but_for_what_is_about_it(tmp_path: Path) -> None:
    write(tmp_path / "set", "a.jsonl", "trainers.jsonl", "README.md", "LICENSE.txt", "LICENSE")
    (tmp_path / "set" / "README.md").write_text("# About\n")
    assert names_of(tmp_path) == ["a.jsonl", "trainers.jsonl"]
    [warning] = check(tmp_path, train="set").findings
    assert (warning.code, warning.severity) == ("IgnoredFiles", "warning")
    assert "3 files that hold no data left out: LICENSE, LICENSE.txt, README.md" in warning.message


def test_texts_are_documents_whatever_they_are_called(tmp_path: Path) -> None:
    write(tmp_path / "set", "README.md", "train-schedule.md", "test-plan.md")
    assert names_of(tmp_path) == ["README.md", "test-plan.md", "train-schedule.md"]


def test_several_data_sets_in_one_repository_are_a_choice(tmp_path: Path) -> None:
    write(tmp_path / "set", "main/train.jsonl", "socratic/train.jsonl", README_md=CONFIGS)
    [error] = check(tmp_path, train="set").findings
    assert (error.code, error.field) == ("NoSplit", "data.train")
    assert error.fix == "data.train: set/main/train.jsonl or data.train: set/socratic/train.jsonl"
    for line in error.fix.split(" or "):
        report = check(tmp_path, train=yaml.safe_load(line.removeprefix("data.train: ")))
        assert report.volumes is not None


def test_a_split_that_is_not_there_is_an_error_with_what_is(tmp_path: Path) -> None:
    write(tmp_path / "set", "test-00000-of-00001.jsonl", "other_split.jsonl", README_md=CARD)
    [error] = check(tmp_path, train="set").findings
    assert error.code == "NoSplit"
    assert error.fix == "data.train: set/test-*.jsonl"
    write(tmp_path / "set", "train.jsonl")
    [*_, error] = check(tmp_path, train="set/train.jsonl", validation="set").findings
    assert error.fix == "data.validation: 0.1, to hold out a share of train"


def test_two_splits_of_a_kind_are_a_choice(tmp_path: Path) -> None:
    names = ["train_sft", "train_gen", "test_sft"]
    write(tmp_path / "set", *(f"data/{name}-00000-of-00001.jsonl" for name in names))
    configs = [{"split": name, "path": f"data/{name}-*"} for name in names]
    card = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": configs}]})
    (tmp_path / "set" / "README.md").write_text(f"---\n{card}---\n")
    [error] = check(tmp_path, train="set").findings
    expected = "data.train: set/data/train_sft-*.jsonl or data.train: set/data/train_gen-*.jsonl"
    assert error.fix == expected


@pytest.mark.parametrize(
    "card",
    [
        "",
        "---",
        "---\n---\n",
        "---\nconfigs: 3\n---\n",
        "---\nconfigs: [[], {}]\n---\n",
        "---\n: [\n---\n",
        "---\nconfigs:\n- data_files: ../*.jsonl\n---\n",
        "---\nconfigs:\n- data_files: /etc/*\n---\n",
        "---\nconfigs:\n- data_files: {train: 3}\n  data_dir: [1]\n---\n",
        "\xff",
    ],
)
def test_a_card_that_says_nothing_changes_nothing(tmp_path: Path, card: str) -> None:
    write(tmp_path, "outside.jsonl")
    write(tmp_path / "set", "a.jsonl", README_md=card)
    assert names_of(tmp_path) == ["a.jsonl"]


def save(folder: Path, names: list[str], **state: object) -> None:
    """Write a folder as `Dataset.save_to_disk` does, with JSONL instead of Arrow files."""
    write(folder, *names)
    files = [{"filename": name} for name in names]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_split": None, **state}))
    (folder / "dataset_info.json").write_text('{"features": {}}')


def test_a_saved_data_set_is_the_files_that_its_state_names(tmp_path: Path) -> None:
    save(tmp_path / "set", ["data-1.jsonl", "data-0.jsonl"])
    write(tmp_path / "set", "cache-abc.jsonl")
    assert names_of(tmp_path) == ["data-1.jsonl", "data-0.jsonl"]
    assert names_of(tmp_path, "data.test") == ["data-1.jsonl", "data-0.jsonl"]


def test_a_saved_dictionary_of_data_sets_has_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save(tmp_path / "set" / split, ["data.jsonl"])
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert names_of(tmp_path) == ["train/data.jsonl"]
    assert names_of(tmp_path, "data.test") == ["test/data.jsonl"]
    report = check(tmp_path, train="set")
    assert "data.test: set/test/data.jsonl" in report.findings[0].message


def test_a_saved_data_set_with_a_file_missing_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "set", ["data.jsonl"])
    (tmp_path / "set" / "data.jsonl").unlink()
    [error] = check(tmp_path, train="set").findings
    assert (error.code, error.severity) == ("NoSplit", "error")
    assert "data.jsonl is missing" in error.message
    save(tmp_path / "set", [], _data_files=[{"filename": "../outside.jsonl"}])
    [error] = check(tmp_path, train="set").findings
    assert error.code == "NoSplit"
