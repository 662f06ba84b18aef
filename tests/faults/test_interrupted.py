"""Ctrl-C, or a kill, while data is read and written: nothing half-written is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import preloaded
import pytest
import yaml
from processes import Cli, JobFile, wait_until

ROWS = 600_000
"""Of CSV: read row by row, for a second at least."""


@pytest.fixture
def job(job_file: JobFile) -> Path:
    """Return a job with a table that takes a while to read."""
    path = job_file(records=4)
    table = "prompt,completion\n" + "".join(f"Where is parcel {n}?,shipping\n" for n in range(ROWS))
    (path.parent / "long.csv").write_text(table)
    spec = yaml.safe_load(path.read_text())
    spec["data"] = {"train": "long.csv", "validation": 0.1}
    path.write_text(yaml.safe_dump(spec))
    return path


COMMANDS = [
    ("submit",),
    ("check",),
    ("data", "convert", "long.csv", "--to", "messages", "--out", "out.jsonl"),
    ("data", "split", "long.csv", "--validation", "0.1", "--out", "parts"),
    ("data", "dedupe", "long.csv", "--out", "out.jsonl"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[-1 if len(words) == 1 else 1])
def test_control_c_leaves_the_folder_and_the_home_as_they_were(
    cli: Cli, job: Path, home: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    before = sorted(path.name for path in job.parent.iterdir())
    process = subprocess.Popen(
        [sys.executable, "-m", "cloudft", *command],
        cwd=job.parent,
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_until(lambda: _reads(process.pid, job.parent / "long.csv"), "the table is being read")
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (said, errors.strip()) == ("", "interrupted")
    assert sorted(path.name for path in job.parent.iterdir()) == before
    assert list(temporary.iterdir()) == []
    assert [path for path in home.rglob("*") if path.is_file() and path.name != ".lock"] == []


def _reads(pid: int, path: Path) -> bool:
    """Return whether a process has a file open."""
    with contextlib.suppress(OSError):  # closed, or ended, between the two looks
        return any(fd.readlink() == path for fd in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_what_a_killed_probe_left_goes_with_the_next_one(
    cli: Cli, job_file: JobFile, home: Path
) -> None:
    path = job_file(records=18)
    words = [preloaded.interpreter_path(), "-m", "cloudft", "estimate", path, "--probe", "--steps"]
    process = subprocess.Popen([*words, "1000"], stdout=subprocess.DEVNULL)
    try:
        [data] = wait_until(lambda: list(home.glob(".probe-*/data")), "the probe has its folder")
        alive, dead = data.parent, home / ".probe-killed"
        # A file that is written at this moment has another name a little later.
        shutil.copytree(alive, dead, ignore=shutil.ignore_patterns(".job.json.*"))
        for folder in (alive, dead):
            os.utime(folder, (0, 0))
        assert cli("estimate", path, "--probe", "--steps", "0").returncode == 0
        assert list(home.glob(".probe-*")) == [alive]
    finally:
        process.kill()
        process.wait()
