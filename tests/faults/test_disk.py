"""A disk without room, a home that is none, a job folder that was tampered with."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
import tiny_gguf
from job_records import make_record
from processes import Cli, JobFile, read_json
from trainer_run import run_trainer

from cloudft.backends.local.job_folder import JobFolder
from cloudft.storage.store import Store
from local_backend.disk_full import DiskFull, raise_on_full_disk
from local_backend.export.export_model import export_model
from local_backend.export.options import ExportOptions
from local_backend.job_dir import JobDir
from local_backend.models.weights import convert_once


def room_for(size: int) -> Callable[[], None]:
    """Return a preexec function: no file of the child may grow beyond `size` bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_submit_without_room_is_one_clear_error_and_no_job(
    cli: Cli, fresh_cli: Cli, job_file: JobFile, home: Path
) -> None:
    path = job_file(records=8)
    sizes = (0, 64, 2000)  # it breaks off while staging, while staging, at the record
    for size in sizes:
        done = fresh_cli("submit", path, "--output", "json", preexec_fn=room_for(size))
        assert done.returncode == 1
        assert done.stderr.count("error:") == 1 and "File too large" in done.stderr
        assert "  fix: " in done.stderr and "Traceback" not in done.stderr
    assert json.loads(cli("list", "--output", "json").stdout) == []
    assert [p for p in home.rglob(".*") if p.name != ".lock"] == [], "no temporary file is left"


@pytest.mark.parametrize(
    ("size", "reason"),
    [(10_000, "File too large"), (1200, "exited with status 1 and left no result")],
    ids=["for-the-weights", "for-the-log"],
)
def test_a_trainer_without_room_fails_with_the_reason_and_leaves_no_artifacts(
    tmp_path: Path, tiny_model: Path, size: int, reason: str
) -> None:
    folder = tiny.write_job_dir(tmp_path / "job", tiny_model, {"train": tiny.pairs(8)})
    with (folder / "trainer.log").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-m", "local_backend", str(folder)],
            stdout=log,
            stderr=log,
            check=False,
            preexec_fn=room_for(size),
        )
    assert done.returncode == 1
    ending = read_json(folder / "ended.json")
    assert ending["status"] == "Failed"
    assert reason in ending["failureMessage"]
    assert not (folder / "artifacts").exists()
    assert not [p.name for p in folder.rglob(".*")], "no temporary file is left"


def test_a_disk_that_fills_up_is_reported_with_the_remedy(tmp_path: Path, tiny_model: Path) -> None:
    folder = tiny.write_job_dir(tmp_path / "job", tiny_model, {"train": tiny.pairs(8)})
    command = [sys.executable, "-m", "local_backend", str(folder)]
    subprocess.run(command, capture_output=True, check=False, preexec_fn=room_for(40_000))
    message = read_json(folder / "ended.json")["failureMessage"]
    assert f"The job can't be written: File too large ({folder};" in message
    assert "MB are free there). Fix: free some space there, then `cloudft resume`" in message


def test_an_ending_has_its_room_when_everything_else_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_dir = JobDir(tmp_path)
    job_dir.reserve_space()
    replace = os.replace

    def full(source: str, to: str) -> None:
        if (tmp_path / ".reserve").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, to)

    monkeypatch.setattr(os, "replace", full)
    assert job_dir.write_ending("Failed", "the disk is full")
    assert [path.name for path in tmp_path.iterdir()] == ["ended.json"]


def test_a_trainer_without_room_for_its_ending_is_not_reported_as_killed(
    home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.write_job_dir(home / "jobs" / "job", tiny_model, {"train": tiny.pairs(4)})
    request = read_json(folder / "job.json") | {"id": "job", "name": "job", "attempt": 0}
    (folder / "job.json").write_text(json.dumps(request | {"baseModel": "tiny"}))
    (folder / "trainer.json").write_text('{"pid": 1, "supervisor": 1}')
    facts = os.statvfs(folder)
    full = os.statvfs_result((*facts[:4], 0, *facts[5:]))
    assert "were killed" in str(JobFolder(folder).read_state("job").failure_message)
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    message = JobFolder(folder).read_state("job").failure_message
    assert message and "the disk of" in message and "Free some space" in message


@pytest.fixture
def room() -> Iterator[Callable[[int], None]]:
    """Yield a function after which no file of this process may grow beyond that many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("library", ["python", "safetensors", "torch"])
def test_what_each_library_raises_without_room_is_known(
    tmp_path: Path, room: Callable[[int], None], library: str
) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"a": torch.zeros(100_000)}
    room(4096)
    with (
        pytest.raises(DiskFull, match=r"File too large .* are free there") as caught,
        raise_on_full_disk("The model", tmp_path / "not" / "there", "free some space"),
    ):
        if library == "safetensors":
            save_file(tensors, tmp_path / "a.safetensors")
        else:
            with (tmp_path / "a").open("wb") as file:
                torch.save(tensors, file) if library == "torch" else file.write(bytes(400_000))
    assert caught.value.fix == "free some space"


def test_an_export_or_a_conversion_without_room_is_reported_and_leaves_nothing(
    tmp_path: Path, tiny_model: Path, room: Callable[[int], None]
) -> None:
    folder = tiny.write_job_dir(tmp_path / "job", tiny_model, {"train": tiny.pairs(8)})
    assert run_trainer(folder).status == "Completed"
    gguf = tiny_gguf.write_gguf(tiny_model, tmp_path / "gguf")
    room(40_000)
    with pytest.raises(DiskFull, match="can't be written: File too large") as caught:
        export_model(JobDir(folder), tmp_path / "out", ExportOptions())
    assert caught.value.fix and "name a folder on another disk" in caught.value.fix
    with pytest.raises(DiskFull, match="can't be written: File too large") as caught:
        convert_once(gguf)
    assert caught.value.fix and "set CLOUDFT_MODEL_CACHE" in caught.value.fix
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gguf", "job", "models"]
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [".lock", "tokens"]


@pytest.mark.parametrize("command", ["submit", "list", "status"])
@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_a_home_that_cannot_be_one_is_a_clear_error(
    cli: Cli, job_file: JobFile, tmp_path: Path, place: str, command: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    arguments = {"submit": (job_file(),), "list": (), "status": ("-",)}[command]
    done = cli(command, *arguments, env=os.environ | {"CLOUDFT_HOME": str(tmp_path / place)})
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr
    if place == "/proc/nowhere" and command != "submit":
        assert "job" in done.stdout + done.stderr, "a home that is not there yet is an empty one"
    else:
        assert done.returncode == 1, done.stderr
        assert "error: " in done.stderr and "set CLOUDFT_HOME" in done.stderr


def test_a_damaged_job_is_reported_and_the_others_are_listed(cli: Cli, home: Path) -> None:
    store = Store(home / "jobs")
    with store.create(make_record(store, "good-11111111")):
        pass
    (home / "jobs" / "broken-00000000").mkdir()
    (home / "jobs" / "broken-00000000" / "record.json").write_text("{")
    done = cli("list")
    assert done.returncode == 0
    assert "good-11111111" in done.stdout
    assert "warning: job broken-00000000 is damaged" in done.stderr
    assert "  fix: " in done.stderr
    status = cli("status", "broken-00000000")
    assert status.returncode == 1 and "is damaged" in status.stderr
