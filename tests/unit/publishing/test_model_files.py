"""What is never published: other files than a model's, paths, secrets, and data of the job."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cloudft.errors import UsageError
from cloudft.publishing import model_files
from cloudft.publishing.model_files import list_model_files, private_texts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "config.json").write_text("{}")
    return path


def test_files_have_the_digests_that_the_hub_knows_them_by(folder: Path) -> None:
    config, weights = list_model_files(folder, [], {})
    assert (config.name, weights.name) == ("config.json", "model.safetensors")
    assert weights.sha256 == hashlib.sha256(b"weights").hexdigest()
    # `git hash-object` of a file with these two characters.
    assert config.git_oid == "9e26dfeeb6e641a33dae4961196235bdb965b21b"


@pytest.mark.parametrize("name", sorted(["train.jsonl", ".env", "id_rsa", "run.py", "a.parquet"]))
def test_a_file_that_is_no_part_of_a_model_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("x")
    with pytest.raises(UsageError, match="is no file of a model"):
        list_model_files(folder, [], {})


def test_data_of_the_job_is_refused_under_any_name(folder: Path) -> None:
    (folder / "extra.json").write_text("[1]")
    digest = hashlib.sha256(b"[1]").hexdigest()
    with pytest.raises(UsageError, match=r"extra.json is data of the job \(train.jsonl\)"):
        list_model_files(folder, [], {digest: "train.jsonl"})


def test_a_link_is_refused(folder: Path) -> None:
    (folder / "other.json").symlink_to(folder / "config.json")
    with pytest.raises(UsageError, match="is a link"):
        list_model_files(folder, [], {})


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "aB3" * 12,
        "AKIA" + "A1B2" * 4,
        "sk-" + "x1" * 20,
        "-----BEGIN RSA PRIVATE KEY-----",
    ],
)
def test_a_secret_in_any_file_is_refused_and_not_shown(
    folder: Path, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "BLOCK", 64)
    monkeypatch.setattr(model_files, "OVERLAP", 48)
    text = "." * 50 + f' "{secret}" ' + "." * 100  # in two blocks
    (folder / "model.safetensors").write_text(text)
    with pytest.raises(UsageError, match="what looks like a secret") as caught:
        list_model_files(folder, [], {})
    assert secret not in caught.value.message


def test_a_path_of_this_machine_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text('{"_name_or_path": "/srv/models/base"}')
    with pytest.raises(UsageError, match="has a path of this machine: /srv/models"):
        list_model_files(folder, private_texts("/srv/models"), {})


def test_paths_of_one_part_and_names_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/root")
    assert private_texts("/", "/work", "org/name", "/a/b") == ["/a/b"]
    monkeypatch.setenv("HOME", "/home/ann")
    assert private_texts() == ["/home/ann"]
