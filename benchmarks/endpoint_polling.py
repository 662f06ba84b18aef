"""Fifty clients poll GetModelCustomizationJob while a job trains: their latency, and its speed.

    python benchmarks/endpoint_polling.py

Rounds with and without the clients alternate; the clients are a process of their own, and each asks
once a second. The endpoint's server closes a connection with each answer: every poll connects anew.
"""

from __future__ import annotations

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

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from endpoint import BUCKET, ROLE, Endpoint, running_endpoint

CLIENTS, ROUNDS, SECONDS = 50, 3, 20.0
SIGNED = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/bedrock/aws4_request"


def poll(url: str, arn: str, seconds: float, times: list[float]) -> None:
    """One client."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    path = f"/model-customization-jobs/{quote(arn, safe='')}"
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        connection.request("GET", path, headers={"Authorization": SIGNED})
        answer = connection.getresponse()
        assert json.loads(answer.read())["status"] == "InProgress" and answer.status == 200
        took = time.perf_counter() - began
        times.append(took)
        time.sleep(max(0.0, 1.0 - took))
    connection.close()


def clients(url: str, arn: str, seconds: float, out: multiprocessing.Queue[list[float]]) -> None:
    """All of them, spread over a second."""
    times: list[float] = []
    threads = []
    for _ in range(CLIENTS):
        thread = threading.Thread(target=poll, args=(url, arn, seconds, times))
        thread.start()
        threads.append(thread)
        time.sleep(1.0 / CLIENTS)
    for thread in threads:
        thread.join()
    out.put(times)


def steps(metrics: Path) -> int:
    """How far the training is."""
    return sum(b'"train"' in line for line in metrics.read_bytes().splitlines())


def speed(metrics: Path, seconds: float) -> float:
    """Steps a second over the next seconds."""
    began, first = time.perf_counter(), steps(metrics)
    time.sleep(seconds)
    return (steps(metrics) - first) / (time.perf_counter() - began)


def train(endpoint: Endpoint) -> str:
    """A job that takes longer than the rounds."""
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
    """Alternate, and print."""
    with tempfile.TemporaryDirectory() as name, running_endpoint("--state", name) as endpoint:
        arn = train(endpoint)
        metrics = None
        while metrics is None or steps(metrics) < 5:
            metrics = next(Path(name).glob("jobs/job-*/metrics.jsonl"), None)
            time.sleep(0.5)
        quiet: list[float] = []
        polled: list[float] = []
        times: list[float] = []
        for _ in range(ROUNDS):
            quiet.append(speed(metrics, SECONDS))
            out: multiprocessing.Queue[list[float]] = multiprocessing.Queue()
            asking = multiprocessing.Process(
                target=clients, args=(endpoint.url, arn, SECONDS + 2, out)
            )
            asking.start()
            time.sleep(1.0)
            polled.append(speed(metrics, SECONDS))
            times += out.get()
            asking.join()
        cuts = statistics.quantiles([1000 * t for t in times], n=100)
        print(f"{len(times)} answers: p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms")
        print(f"steps a second: {statistics.mean(quiet):.3f} alone {[f'{q:.2f}' for q in quiet]}")
        print(
            f"  with {CLIENTS} clients {statistics.mean(polled):.3f} {[f'{p:.2f}' for p in polled]}"
        )
        print(f"  ratio {statistics.mean(polled) / statistics.mean(quiet):.3f}")
        endpoint.client("bedrock").stop_model_customization_job(jobIdentifier=arn)


if __name__ == "__main__":
    main()
