"""A disk without room, a home that is none, a job folder that was tampered with."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from processes import Cli, JobFile, read_json
from records import a_record

from cloudft.store import Store


def room_for(size: int) -> Callable[[], None]:
    """For a child: no file may grow beyond `size` bytes."""
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
    ("size", "told"),
    [(10_000, "File too large"), (500, "exited with status 1 and left no result")],
    ids=["for-the-weights", "for-the-log"],
)
def test_a_trainer_without_room_fails_with_the_reason_and_leaves_no_artifacts(
    tmp_path: Path, tiny_model: Path, size: int, told: str
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
    assert told in ending["failureMessage"]
    assert not (folder / "artifacts").exists()
    assert not [p.name for p in folder.rglob(".*")], "no temporary file is left"


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


def test_a_damaged_job_is_told_and_the_others_list(cli: Cli, home: Path) -> None:
    store = Store(home / "jobs")
    with store.create(a_record(store, "good-11111111")):
        pass
    (home / "jobs" / "broken-00000000").mkdir()
    (home / "jobs" / "broken-00000000" / "record.json").write_text("{")
    done = cli("list")
    assert done.returncode == 0
    assert "good-11111111" in done.stdout
    assert "warning: job broken-00000000 is damaged" in done.stderr
    assert "  fix: " in done.stderr
    asked = cli("status", "broken-00000000")
    assert asked.returncode == 1 and "is damaged" in asked.stderr
