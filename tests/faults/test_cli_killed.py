"""`cloudft submit` is killed at any moment: afterwards there is no job or one job, never two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import preloaded
import pytest
from processes import Cli, JobFile, find_processes, kill, read_jsonl, wait_until

HOOK = """
import os, signal, sys
left = int(os.environ["KILL_AT"])
def hook(event, args):
    global left
    if event == "subprocess.Popen" and ("tokenize_records" in str(args) or "warm" in str(args)):
        return  # it renders the records, or imports for the trainer that is started later
    starts = ("fcntl.flock", "subprocess.Popen", "socket.sendmsg")
    if event in ("open", *starts) or event.startswith("os."):
        if event in starts or os.environ["CLOUDFT_HOME"] in str(args):
            left -= 1
            if left < 0 or event == os.environ["KILL_EVENT"]:
                os.kill(os.getpid(), signal.SIGKILL)
if "submit" in sys.orig_argv:
    sys.addaudithook(hook)
"""
"""For sitecustomize: the process kills itself before the Nth operation in its home."""
NEVER = 10**6
START = "socket.sendmsg" if sys.platform == "linux" else "subprocess.Popen"
"""What starts the trainer: a message to the process that forks it, or a process of its own."""
EVENTS = 70
"""More than a submit does."""


@pytest.fixture
def job(job_file: JobFile) -> Path:
    return job_file(records=8, hyperparameters={"epochCount": 1})


@pytest.fixture
def long_job(job_file: JobFile) -> Path:
    """Return a job file that trains until it is killed."""
    return job_file(records=8, hyperparameters={"epochCount": 1000})


@pytest.fixture(autouse=True)
def no_trainer_is_left(home: Path) -> Iterator[None]:
    yield
    for pid in find_processes(str(home)):
        kill(pid)


def submit_killed(job: Path, tmp_path: Path, *, at: int = NEVER, event: str = "") -> int:
    """Kill a submit before its Nth audit event, or before an event of that kind."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    hooked = {"PYTHONPATH": str(tmp_path / "hook"), "KILL_AT": str(at), "KILL_EVENT": event}
    return subprocess.run(
        [preloaded.interpreter_path(), "-m", "cloudft", "submit", str(job)],
        env=os.environ | hooked,
        capture_output=True,
        check=False,
        timeout=60,
    ).returncode


def listed(cli: Cli) -> list[dict[str, Any]]:
    done = cli("list", "--output", "json")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    values: list[dict[str, Any]] = json.loads(done.stdout)
    return values


def supervisors(home: Path) -> list[int]:
    return find_processes(f"-m local_backend {home}")


@pytest.mark.parametrize("moment", range(1, EVENTS, 4))
def test_a_submit_killed_at_any_moment_continues_as_one_job(
    cli: Cli, long_job: Path, home: Path, tmp_path: Path, moment: int
) -> None:
    killed = submit_killed(long_job, tmp_path, at=moment) == -9
    before = [value["id"] for value in listed(cli)]
    assert len(before) <= 1
    assert killed or len(before) == 1
    again = cli("submit", long_job, "--output", "json")
    assert again.returncode == 0, again.stderr
    [after] = listed(cli)
    assert after["id"] == json.loads(again.stdout)["id"]
    assert before in ([], [after["id"]])
    assert after["status"] == "InProgress", after["failureMessage"]
    wait_until(lambda: len(supervisors(home)) == 1, "one trainer")


@pytest.mark.parametrize(
    ("event", "trainers"), [("os.link", 0), (START, 0), ("after the start", 1)]
)
def test_the_job_of_a_killed_submit_completes_and_is_trained_once(
    cli: Cli, job: Path, home: Path, tmp_path: Path, event: str, trainers: int
) -> None:
    if event == "after the start":
        assert submit_killed(job, tmp_path, at=_event_after_start(job, tmp_path)) == -9
        # One that forks is two of that command line for a moment.
        wait_until(lambda: len(supervisors(home)) == trainers, "the trainer of the killed submit")
    else:
        assert submit_killed(job, tmp_path, event=event) == -9
        assert len(supervisors(home)) == trainers
    done = cli("submit", job, "--wait", "--output", "json", timeout=120)
    assert done.returncode == 0, done.stderr
    [value] = listed(cli)
    assert value["status"] == "Completed"
    folder = home / "jobs" / value["id"]
    assert (folder / "trainer.log").read_text().count("ended: Completed") == 1
    assert [point["step"] for point in read_jsonl(folder / "metrics.jsonl")] == [0, 1]
    wait_until(lambda: not find_processes(str(home)), "the trainer has left")


def _event_after_start(job: Path, tmp_path: Path) -> int:
    """Return which event a submit emits right after it has started the trainer."""
    folder = tmp_path / "counting"
    folder.mkdir()
    counted = HOOK.replace("left -= 1", "left -= 1; os.write(1, (event + chr(10)).encode())")
    (folder / "sitecustomize.py").write_text(counted)
    home = str(folder / "home")
    more = {"PYTHONPATH": str(folder), "KILL_AT": str(NEVER), "CLOUDFT_HOME": home}
    done = subprocess.run(
        [preloaded.interpreter_path(), "-m", "cloudft", "submit", str(job)],
        env=os.environ | more | {"KILL_EVENT": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    for pid in find_processes(home):
        kill(pid)
    events = done.stdout.splitlines()
    assert len(events) < EVENTS
    return events.index(START) + 1
