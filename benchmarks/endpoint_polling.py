"""Measure 50 clients that poll GetModelCustomizationJob while a job trains: latency and speed.

    python benchmarks/endpoint_polling.py

Rounds with and without the clients alternate. The clients are one process, and each polls once a
second. The endpoint closes the connection after each response, so every poll connects again.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

from smallest import TESTS, build_parser, build_tiny_model

sys.path.insert(0, str(TESTS))

from endpoint import BUCKET, ROLE, Endpoint, running_endpoint

CLIENTS, ROUNDS, SECONDS = 50, 3, 20.0
SIGNED = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/bedrock/aws4_request"


def poll(url: str, arn: str, seconds: float, times: list[float]) -> None:
    """Poll as one client; append the latency of each response."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    path = f"/model-customization-jobs/{quote(arn, safe='')}"
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.perf_counter()
        connection.request("GET", path, headers={"Authorization": SIGNED})
        answer = connection.getresponse()
        assert json.loads(answer.read())["status"] == "InProgress" and answer.status == 200
        took = time.perf_counter() - started
        times.append(took)
        time.sleep(max(0.0, 1.0 - took))
    connection.close()


def run_clients(
    url: str, arn: str, seconds: float, count: int, out: multiprocessing.Queue[list[float]]
) -> None:
    """Run all clients, started over one second, and put their latencies into `out`."""
    times: list[float] = []
    threads = []
    for _ in range(count):
        thread = threading.Thread(target=poll, args=(url, arn, seconds, times))
        thread.start()
        threads.append(thread)
        time.sleep(1.0 / count)
    for thread in threads:
        thread.join()
    out.put(times)


def count_steps(metrics: Path) -> int:
    """Return the number of training steps so far."""
    return sum(b'"train"' in line for line in metrics.read_bytes().splitlines())


def measure_speed(metrics: Path, seconds: float) -> float:
    """Return the training steps per second over the next seconds."""
    started, first = time.perf_counter(), count_steps(metrics)
    time.sleep(seconds)
    return (count_steps(metrics) - first) / (time.perf_counter() - started)


def start_training(endpoint: Endpoint) -> str:
    """Start a job that takes longer than all rounds and return its ARN."""
    text = "Where is the parcel of order {}? It is on its way to you, and arrives within two days."
    records = [{"prompt": text.format(n), "completion": "delivery " * 20} for n in range(900)]
    body = "\n".join(map(json.dumps, records)).encode()
    endpoint.client("s3").put_object(Bucket=BUCKET, Key="train.jsonl", Body=body)
    return str(
        endpoint.client("bedrock").create_model_customization_job(
            jobName="polled",
            customModelName="polled",
            roleArn=ROLE,
            baseModelIdentifier="amazon.titan-text-express-v1:0:8k",
            trainingDataConfig={"s3Uri": f"s3://{BUCKET}/train.jsonl"},
            outputDataConfig={"s3Uri": f"s3://{BUCKET}/out"},
            hyperParameters={"epochCount": "10", "learningRate": "0.0001"},
        )["jobArn"]
    )


def main() -> None:
    """Alternate the rounds and print the figures."""
    is_smallest = build_parser(__doc__).parse_args().smallest
    count, rounds, seconds = (2, 1, 1.0) if is_smallest else (CLIENTS, ROUNDS, SECONDS)
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory())
        options = ["--state", f"{name}/state"]
        if is_smallest:
            options += ["--stand-in", str(build_tiny_model(Path(name, "model")))]
        endpoint = stack.enter_context(running_endpoint(*options))
        arn = start_training(endpoint)
        metrics = None
        while metrics is None or count_steps(metrics) < 5:
            metrics = next(Path(name).glob("state/jobs/job-*/metrics.jsonl"), None)
            time.sleep(0.5)
        alone: list[float] = []
        polled: list[float] = []
        latencies: list[float] = []
        for _ in range(rounds):
            alone.append(measure_speed(metrics, seconds))
            out: multiprocessing.Queue[list[float]] = multiprocessing.Queue()
            clients = multiprocessing.Process(
                target=run_clients, args=(endpoint.url, arn, seconds + 2, count, out)
            )
            clients.start()
            time.sleep(1.0)
            polled.append(measure_speed(metrics, seconds))
            latencies += out.get()
            clients.join()
        cuts = statistics.quantiles([1000 * latency for latency in latencies], n=100)
        print(f"{len(latencies)} responses: p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms")
        for label, speeds in (("alone", alone), (f"with {count} clients", polled)):
            each = ", ".join(f"{speed:.2f}" for speed in speeds)
            print(f"steps per second {label}: {statistics.mean(speeds):.3f} ({each})")
        print(f"ratio {statistics.mean(polled) / statistics.mean(alone):.3f}")
        endpoint.client("bedrock").stop_model_customization_job(jobIdentifier=arn)


if __name__ == "__main__":
    main()
