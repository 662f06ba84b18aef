"""Fifty clients ask for a job that trains for real: how long they wait, how much it slows down.

Each client is a thread of another process with a connection of its own, as an SDK keeps one. Rounds
alternate: no client, all of them once a second, all of them without a pause.

    python benchmarks/endpoint_polling.py [SECONDS]        (default 15 a round)
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import tiny
from endpoint import BUCKET, REGION, ROLE, running

CLIENTS = 50
ROUNDS = 3
RECORDS = 10_000
PAUSES = {"no client": None, "once a second": 1.0, "no pause": 0.0}
SIGNED = f"AWS4-HMAC-SHA256 Credential=AKIAX/20260101/{REGION}/bedrock/aws4_request, Signature=0"


def poll(host: str, path: str, pause: float, end: float, times: list[float], first: float) -> None:
    """One client, until `end`; every answer's seconds go to `times`."""
    connection = http.client.HTTPConnection(host, timeout=60)
    time.sleep(first)
    while time.time() < end:
        began = time.perf_counter()
        connection.request("GET", path, headers={"Authorization": SIGNED})
        answer = connection.getresponse()
        content = answer.read()
        times.append(time.perf_counter() - began)
        assert answer.status == 200, content
        time.sleep(pause)
    connection.close()


def clients(url: str, arn: str, pause: float, seconds: float) -> None:
    """All of them; prints the seconds of every answer as JSON."""
    path = f"/model-customization-jobs/{quote(arn, safe='')}"
    host, end = urlsplit(url).netloc, time.time() + seconds
    times: list[float] = []
    threads = [
        threading.Thread(
            target=poll, args=(host, path, pause, end, times, pause * number / CLIENTS)
        )
        for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(times))


def steps(state: Path) -> Iterator[float]:
    """When each training step was noted."""
    for path in state.glob("jobs/*/metrics.jsonl"):
        for line in path.read_bytes().splitlines():
            point = json.loads(line)
            if point["split"] == "train":
                yield point["time"]


def main(seconds: float) -> None:
    """Train a tiny model for long, with and without clients."""
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, state = tiny.build(folder / "model"), folder / "state"
        small = ("local.device=cpu", "local.dtype=float32", "local.lora.r=4", "local.lora.alpha=8")
        sets = [part for setting in small for part in ("--set", setting)]
        with running("--state", state, "--stand-in", model, *sets) as endpoint:
            lines = "".join(json.dumps(record) + "\n" for record in tiny.pairs(RECORDS))
            endpoint.client("s3").put_object(Bucket=BUCKET, Key="t.jsonl", Body=lines.encode())
            bedrock = endpoint.client("bedrock")
            arn = bedrock.create_model_customization_job(
                jobName="long",
                customModelName="long",
                roleArn=ROLE,
                baseModelIdentifier="amazon.titan-text-express-v1:0:8k",
                trainingDataConfig={"s3Uri": f"s3://{BUCKET}/t.jsonl"},
                outputDataConfig={"s3Uri": f"s3://{BUCKET}/out"},
                hyperParameters={"epochCount": "10", "batchSize": "1", "learningRate": "0.0001"},
            )["jobArn"]
            while not any(steps(state)):
                job = bedrock.get_model_customization_job(jobIdentifier=arn)
                assert job["status"] == "InProgress", job
                time.sleep(0.5)
            time.sleep(10)  # what a process does once lies behind it
            speeds: dict[str, list[float]] = {kind: [] for kind in PAUSES}
            waits: dict[str, list[float]] = {kind: [] for kind in PAUSES}
            for _ in range(ROUNDS):
                for kind, pause in PAUSES.items():
                    began = time.time()
                    if pause is None:
                        time.sleep(seconds)
                    else:
                        command = [sys.executable, __file__, endpoint.url, arn, str(pause)]
                        done = subprocess.run(
                            [*command, str(seconds)], check=True, capture_output=True
                        )
                        waits[kind] += json.loads(done.stdout)
                    ended = time.time()
                    count = sum(1 for at in steps(state) if began <= at < ended)
                    speeds[kind].append(count / (ended - began))
            job = bedrock.get_model_customization_job(jobIdentifier=arn)
            assert job["status"] == "InProgress", "the job ended before the rounds did"
            bedrock.stop_model_customization_job(jobIdentifier=arn)
    alone = statistics.median(speeds["no client"])
    print(f"{CLIENTS} clients, {os.cpu_count()} cores, {ROUNDS} rounds of {seconds:g} s each:")
    for kind in PAUSES:
        speed = statistics.median(speeds[kind])
        low, high = min(speeds[kind]), max(speeds[kind])
        told = f"{kind:14} {speed:6.1f} steps/s ({low:.1f}-{high:.1f}), {speed / alone:4.0%}"
        if waits[kind]:
            cuts = statistics.quantiles(waits[kind], n=100)
            told += f"; {len(waits[kind])} answers, p50 {cuts[49] * 1000:.1f} ms"
            told += f", p99 {cuts[98] * 1000:.1f} ms"
        print(told)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        clients(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 15.0)
