"""Measure how long the endpoint's first answer takes after its start, and how long later ones do.

    python benchmarks/endpoint_first_answer.py --against CHECKOUT

Builds alternate. A round starts an endpoint, sends one Converse request as soon as the URL is
printed, then some more, one after the other. Answers have 16 tokens at most.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from smallest import ROOT, build_parser, build_tiny_model

MODEL = "amazon.nova-lite-v1%3A0"
SIGNED = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/bedrock/aws4_request"
ROUNDS, REQUESTS = 3, 20


def ask(url: str, question: str) -> float:
    """Return the seconds that one answer takes."""
    message = {"role": "user", "content": [{"text": question}]}
    body = json.dumps({"messages": [message], "inferenceConfig": {"maxTokens": 16}})
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    started = time.perf_counter()
    headers = {"Authorization": SIGNED, "Content-Type": "application/json"}
    connection.request("POST", f"/model/{MODEL}/converse", body, headers)
    response = connection.getresponse()
    content = response.read()
    assert response.status == 200, content
    connection.close()
    return time.perf_counter() - started


def run_round(build: Path, options: list[str], count: int) -> tuple[float, float, list[float]]:
    """Return the seconds from the start to the URL and to the first answer, and those of others."""
    command = [sys.executable, "-m", "cloudft", "endpoint", "-q", *options]
    started = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=build,
        env=os.environ | {"PYTHONPATH": str(build)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        listening = time.perf_counter() - started
        ask(url, "Where is my parcel?")
        first = time.perf_counter() - started
        others = [ask(url, f"Where is parcel {number}?") for number in range(count)]
        process.terminate()
    return listening, first, others


def main() -> None:
    """Alternate between the builds and print the figures."""
    parser = build_parser(__doc__)
    parser.add_argument("--against", type=Path)
    args = parser.parse_args()
    builds = {"ours": ROOT} | ({"other": args.against.resolve()} if args.against else {})
    rounds, count = (1, 2) if args.smallest else (ROUNDS, REQUESTS)
    with tempfile.TemporaryDirectory() as folder:
        options: list[str] = []
        if args.smallest:
            options = ["--stand-in", str(build_tiny_model(Path(folder, "model")))]
        took: dict[str, list[tuple[float, float, list[float]]]] = {name: [] for name in builds}
        for _ in range(rounds):
            for name, build in builds.items():
                figures = run_round(build, options, count)
                took[name].append(figures)
                print(f"{name}: {figures[0]:.1f} s, {figures[1]:.1f} s", flush=True)
        for name, rows in took.items():
            listening = statistics.median(row[0] for row in rows)
            first = [f"{row[1]:.1f}" for row in rows]
            middle = statistics.median(seconds for row in rows for seconds in row[2])
            print(f"{name}: listens after {listening:.1f} s, first answer after {first} s")
            print(f"{name}: later answers {1000 * middle:.0f} ms (median)")


if __name__ == "__main__":
    main()
