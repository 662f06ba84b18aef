"""Measure a cold `cloudft list` of 1,000 Bedrock jobs against this repository's endpoint.

python benchmarks/list_bedrock_jobs.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from smallest import TESTS, build_parser

sys.path.insert(0, str(TESTS))

from endpoint import BUCKET, ROLE, running_endpoint

from cloudft.backends import make_backend
from cloudft.jobs import lifecycle, prepare
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from cloudft.storage.store import Store

JOBS, ROUNDS = 1000, 5


def main() -> None:
    """Submit the jobs through the library, then time the command line."""
    is_smallest = build_parser(__doc__).parse_args().smallest
    count, rounds = (3, 1) if is_smallest else (JOBS, ROUNDS)
    with (
        running_endpoint("--clock", "fast", "--jobs", "5000") as endpoint,
        tempfile.TemporaryDirectory() as name,
    ):
        os.environ |= {**endpoint.environ, "CLOUDFT_HOME": name}
        folder, home = Path(name), Home.from_environ()
        data = folder / "train.jsonl"
        lines = [f'{{"prompt": "{n}", "completion": "yes"}}' for n in range(8)]
        data.write_text("\n".join(lines) + "\n")
        flags = {"base_model": "nova-micro", "data.train": str(data), "bedrock.role_arn": ROLE}
        flags |= {"bedrock.s3_uri": f"s3://{BUCKET}/x", "bedrock.region": "us-east-1"}
        flags["bedrock.endpoint_url"] = endpoint.url
        first = load_job(None, flags={**flags, "name": "first"})
        cloud = make_backend("bedrock", home).for_job(first)
        staged, _ = prepare.prepare(first, cloud, home)
        store = Store(home.jobs)
        for number in range(count):
            job = load_job(None, flags={**flags, "name": f"job-{number}"})
            # The same staged data for each job: only the names differ.
            renamed = type(staged)(job, staged.manifest, staged.folder)
            plan = cloud.plan(renamed)
            with store.create(lifecycle.make_record(renamed, plan, store)):
                arn = cloud._create(plan)
                store.mark_submitted(plan.job_id, arn)
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "cloudft", "list"], capture_output=True, check=True
            )
            times.append(time.perf_counter() - started)
            assert len(done.stdout.splitlines()) == count + 1
        low, high = min(times), max(times)
        print(f"list {count} jobs: {statistics.median(times):.2f} s ({low:.2f}-{high:.2f})")


if __name__ == "__main__":
    main()
