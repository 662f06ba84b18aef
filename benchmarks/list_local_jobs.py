"""How long `cloudft list` takes with 1,000 jobs in the store: best of 5, and without start-up."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cloudft.jobs.listing import list_jobs
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord, Store, utc_now

COUNT = 1000
FILE = {"name": "train.jsonl", "sha256": "0" * 64, "bytes": 9} | dict.fromkeys(
    ("records", "characters", "tokens"), 1
)


def fill(store: Store) -> None:
    """A thousand jobs that were written down (their submits cut off: the slowest to look at)."""
    for number in range(COUNT):
        job_id = f"bench-{number:08x}"
        record = JobRecord(
            id=job_id,
            name="bench",
            backend="local",
            token=f"{number:032x}",
            created_at=utc_now(),
            customization_type="FINE_TUNING",
            base_model="smollm2-135m",
            hyper_parameters={"epochCount": 1},
            request={"hyperParameters": {"epochCount": 1}, "pad": "x" * 2000},
            manifest={"files": {"train": FILE}, "sha256": "0" * 64},
            estimate={"usd": {"training": 0.0}},
            tags={},
            spec={},
            folder=store.jobs / job_id,
        )
        with store.create(record):
            pass


def main() -> None:
    """Print one Markdown row each."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        store = Store(home.jobs)
        fill(store)
        inside, outside = [], []
        for _ in range(5):
            started = time.perf_counter()
            assert len(list(list_jobs(store, home))) == COUNT
            inside.append(time.perf_counter() - started)
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "cloudft", "list"],
                env=os.environ | {"CLOUDFT_HOME": folder},
                stdout=subprocess.DEVNULL,
                check=True,
            )
            outside.append(time.perf_counter() - started)
        print(f"| {COUNT} jobs listed, in process | {1000 * min(inside):.0f} ms |")
        print(f"| {COUNT} jobs listed, `cloudft list` | {1000 * min(outside):.0f} ms |")


if __name__ == "__main__":
    main()
