"""A job's folder, with several processes at work in it."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from processes import wait_until

from local_backend.job_dir import JobDir, acquire_lock, write_json

WRITE_ENDINGS = """
import sys
from local_backend.job_dir import JobDir
name, folders = sys.argv[1], sys.argv[2:]
sys.stdin.readline()
print(*[folder for folder in folders if JobDir(folder).write_ending("Failed", name)], flush=True)
"""
REWRITE = """
import sys
from pathlib import Path
from local_backend.job_dir import write_json
path, number = Path(sys.argv[1]), 0
while True:
    number += 1
    write_json(path, {"numbers": [number] * 2000})
"""
HOLD_LOCK = """
import subprocess, sys
from pathlib import Path
from local_backend.job_dir import acquire_lock
lock = acquire_lock(Path(sys.argv[1]))
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=0, pass_fds=(lock,))
print(child.pid, flush=True)
"""


def python(code: str, *args: object) -> subprocess.Popen[str]:
    """Start a fresh interpreter that runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_of_many_endings_one_is_the_ending(tmp_path: Path) -> None:
    folders = [tmp_path / f"job-{number:03d}" for number in range(100)]
    for folder in folders:
        folder.mkdir()
    writers = [python(WRITE_ENDINGS, f"writer {n}", *folders) for n in range(4)]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    won = {f"writer {n}": writer.communicate()[0].split() for n, writer in enumerate(writers)}
    assert sorted(chain.from_iterable(won.values())) == [str(folder) for folder in folders]
    for name, theirs in won.items():
        for folder in theirs:
            assert (JobDir(folder).read_ending() or {})["failureMessage"] == name
    assert all([p.name for p in folder.iterdir()] == ["ended.json"] for folder in folders)


def test_an_ending_is_never_replaced(tmp_path: Path) -> None:
    job = JobDir(tmp_path)
    assert job.read_ending() is None
    assert job.write_ending("Stopped") is True
    assert job.write_ending("Failed", "too late") is False
    assert (job.read_ending() or {})["status"] == "Stopped"


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"numbers": [0] * 2000})
    with python(REWRITE, path) as writer:
        try:
            seen: set[int] = set()

            def look() -> bool:
                numbers = json.loads(path.read_bytes())["numbers"]
                assert len(numbers) == 2000
                seen.update(numbers)
                return len(seen) >= 200

            wait_until(look, "the writer goes on")
        finally:
            writer.kill()


def test_a_value_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"step": 1})
    with pytest.raises(TypeError):
        write_json(path, {"step": object()})
    assert json.loads(path.read_bytes()) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_the_lock_is_held_as_long_as_a_child_lives(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with python(HOLD_LOCK, path) as holder:
        assert holder.stdout is not None
        assert int(holder.stdout.readline()) > 0
        holder.wait(30)
        assert acquire_lock(path) is None, "the child has it still"
        assert holder.stdin is not None
        holder.stdin.write("\n")  # the child's too
        holder.stdin.flush()
        lock = wait_until(lambda: acquire_lock(path), "the lock is free")
        assert lock is not None


def test_the_last_log_lines_leave_out_empty_ones(tmp_path: Path) -> None:
    job = JobDir(tmp_path)
    assert job.last_log_lines() == []
    (tmp_path / "trainer.log").write_bytes(b"x" * 20_000 + b"\n\n1\n \n2\n\xff\n4\n5\n6\n\n")
    assert job.last_log_lines(4) == ["\ufffd", "4", "5", "6"]


def test_what_a_killed_writer_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    for name in (".state.json.x1", ".ended.json.12.y", ".trainer.json.z", ".mine", "state.json"):
        (tmp_path / name).write_text("{")
    JobDir(tmp_path).remove_leftovers()
    assert {path.name for path in tmp_path.iterdir()} == {".mine", "state.json"}
