"""Every reader of TensorBoard's files shows one curve of a job that was killed and resumed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tracked_jobs import JOB_ID, PlayedTrainer, wait_until

pytest.importorskip("tbparse", reason="`make test-trackers` installs tbparse")

CURVE = ("train/loss", "validation/loss")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def trainer(home: Path, runs: Path) -> PlayedTrainer:
    return PlayedTrainer(home, {"tensorboard": {"dir": str(runs)}})


def run_killed_twice(trainer: PlayedTrainer, attempt: int) -> None:
    """Play a job that is killed with its feeder after 26 steps, and resumed from step 20."""
    trainer.start()
    trainer.write(range(26))
    with trainer.feeding("tensorboard"):
        trainer.wait_for_points("tensorboard", 26 * 3 + 2)
    trainer.kill()
    trainer.resume_from(20)
    trainer.write(range(20, 40), attempt=attempt)
    trainer.complete()
    assert trainer.feed("tensorboard").status == "fed"


@contextmanager
def tensorboard(folder: Path, *options: str) -> Iterator[str]:
    """Run TensorBoard over a folder; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
    command += ["--port", str(port), "--host", "127.0.0.1", "--reload_interval", "1", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def shown(address: str, tag: str) -> list[tuple[int, float]]:
    """Return step and value of each point that TensorBoard draws; nothing while it has none."""
    query = urllib.parse.urlencode({"run": JOB_ID, "tag": tag})
    try:
        with urllib.request.urlopen(f"{address}/data/plugin/scalars/scalars?{query}") as answer:
            return [(step, value) for _, step, value in json.load(answer)]
    except OSError:
        return []


def check(points: Any, own: dict[int, float]) -> None:
    """Check that there is each step once, with its value."""
    assert sorted(step for step, _ in points) == sorted(own)
    assert dict(points) == pytest.approx(own, rel=1e-6)


@pytest.mark.parametrize("attempt", [0, 1], ids=["same-values", "other-values"])
def test_every_reader_shows_each_step_once(
    trainer: PlayedTrainer, runs: Path, attempt: int
) -> None:
    from tbparse import SummaryReader

    run_killed_twice(trainer, attempt)
    table = SummaryReader(str(runs / JOB_ID)).scalars
    for tag in CURVE:
        rows = table[table["tag"] == tag]
        points = list(zip(rows["step"], rows["value"], strict=True))
        check(points, trainer.losses(tag.split("/")[0]))
    for options in ((), ("--load_fast=false",)):
        with tensorboard(runs, *options) as address:
            wait_until(lambda: len(shown(address, CURVE[0])) >= 40, 120)
            for tag in CURVE:
                check(shown(address, tag), trainer.losses(tag.split("/")[0]))


def test_a_running_tensorboard_follows_a_resume(trainer: PlayedTrainer, runs: Path) -> None:
    trainer.start()
    trainer.write(range(26))
    runs.mkdir()
    with tensorboard(runs) as fast, tensorboard(runs, "--load_fast=false") as slow:
        with trainer.feeding("tensorboard"):
            for address in (fast, slow):
                wait_until(lambda: len(shown(address, CURVE[0])) == 26, 120)  # noqa: B023
        trainer.kill()
        trainer.resume_from(20)
        trainer.write(range(20, 40))
        trainer.complete()
        trainer.feed("tensorboard")
        for address in (fast, slow):
            wait_until(lambda: len(shown(address, CURVE[0])) >= 40, 120)  # noqa: B023
            check(shown(address, CURVE[0]), trainer.losses())
