"""Measure how long `cloudft list` takes with 1,000 local jobs, with and without start-up.

    python benchmarks/list_local_jobs.py

Best of five rounds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from smallest import build_parser

from cloudft.jobs.listing import list_jobs
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord, Store, utc_now

JOBS, ROUNDS = 1000, 5
FILE = {"name": "train.jsonl", "sha256": "0" * 64, "bytes": 9} | dict.fromkeys(
    ("records", "characters", "tokens"), 1
)


def create_jobs(store: Store, count: int) -> None:
    """Write job records whose submission was interrupted: reading these takes longest."""
    for number in range(count):
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
    """Print one Markdown row for each way of listing."""
    is_smallest = build_parser(__doc__).parse_args().smallest
    count, rounds = (10, 1) if is_smallest else (JOBS, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        store = Store(home.jobs)
        create_jobs(store, count)
        in_process, by_command = [], []
        for _ in range(rounds):
            started = time.perf_counter()
            assert len(list(list_jobs(store, home))) == count
            in_process.append(time.perf_counter() - started)
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "cloudft", "list"],
                env=os.environ | {"CLOUDFT_HOME": folder},
                stdout=subprocess.DEVNULL,
                check=True,
            )
            by_command.append(time.perf_counter() - started)
        print(f"| list {count} jobs, in process | {1000 * min(in_process):.0f} ms |")
        print(f"| list {count} jobs, `cloudft list` | {1000 * min(by_command):.0f} ms |")


if __name__ == "__main__":
    main()
