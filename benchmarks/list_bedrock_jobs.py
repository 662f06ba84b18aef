"""A thousand Bedrock jobs listed, from a cold start, against the endpoint of this repository."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from endpoint import BUCKET, ROLE, running_endpoint

from cloudft.backends import make_backend
from cloudft.jobs import lifecycle, prepare
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from cloudft.storage.store import Store

JOBS = 1000
ROUNDS = 5


def main() -> None:
    """Submit them through the library, then time the command line."""
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
        for number in range(JOBS):
            job = load_job(None, flags={**flags, "name": f"job-{number}"})
            one = type(staged)(job, staged.manifest, staged.folder)
            plan = cloud.plan(one)
            with store.create(lifecycle.make_record(one, plan, store)):
                arn = cloud._create(plan)
                store.mark_submitted(plan.job_id, arn)
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "cloudft", "list"], capture_output=True, check=True
            )
            times.append(time.perf_counter() - began)
            assert len(done.stdout.splitlines()) == JOBS + 1
        low, high = min(times), max(times)
        print(f"{JOBS} jobs listed: {statistics.median(times):.2f} s ({low:.2f}-{high:.2f})")


if __name__ == "__main__":
    main()
