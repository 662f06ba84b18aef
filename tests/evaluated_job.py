"""A home with one job that was trained and evaluated, made once for all workers of a test run."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import preloaded
import tiny
from job_files import write_job_file

RECORDS = [
    tiny.pair(f"Where is parcel {n} for {city}?", city) for n in range(5) for city in tiny.CITIES
]
HELD_OUT = [
    tiny.pair(f"Where is parcel {n} for {city}?", city) for n in (7, 8) for city in tiny.CITIES
]
LEARNED = {"epochCount": 24, "learningRate": 0.02}
NAME = "parcels"


def make_evaluated_home(root: Path, model: Path) -> Path:
    """Return a home whose one job answers with a city, as its evaluation shows. Copy it to write.

    `root` is a folder that all workers share.
    """
    home = root / "evaluated-home"
    with (root / "evaluated.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            making = root / "evaluated-making"
            path = write_job_file(
                root / "evaluated-job",
                model,
                name=NAME,
                records=RECORDS,
                data={"test": "test.jsonl"},
                hyperparameters=LEARNED,
            )
            tiny.write_jsonl(path.parent / "test.jsonl", HELD_OUT)
            for words in (["submit", str(path), "--wait"], ["evaluate", "-", "--quick"]):
                subprocess.run(
                    [preloaded.interpreter_path(), "-m", "cloudft", *words, "--quiet"],
                    env=os.environ | {"CLOUDFT_HOME": str(making)},
                    check=True,
                    capture_output=True,
                )
            making.rename(home)
    return home


def shared_root(base: Path) -> Path:
    """Return the folder that all workers of a test run share."""
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
