"""Measure how long `endpoint --state` takes to restart, against another build.

    python benchmarks/endpoint_restart.py [--requests 20000] [--against FOLDER]

FOLDER is a checkout of the other build. Each build serves the same requests over HTTP with its own
state, is killed, and is restarted, alternating with the other. The figures are wall time and CPU
time until the address is printed. There are two mixes: `mixed` is a day of ordinary requests
(objects that are overwritten, tagged and deleted, log events, reads); in `live` every request puts
another object, so the replay log can drop nothing.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from smallest import ROOT, build_parser

ROUNDS = 3
BODY = b"x" * 2_000
SIGNED = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/{}/aws4_request, SignedHeaders=host"
Request = tuple[str, str, str, dict[str, str], bytes]


def s3(method: str, path: str, body: bytes = b"") -> Request:
    """Return a request to S3."""
    return "s3", method, path, {}, body


def logs(operation: str, body: bytes) -> Request:
    """Return a request to CloudWatch Logs."""
    headers = {
        "X-Amz-Target": f"Logs_20140328.{operation}",
        "Content-Type": "application/x-amz-json-1.1",
    }
    return "logs", "POST", "/", headers, body


def iam(form: bytes) -> Request:
    """Return a request to IAM."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return "iam", "POST", "/", headers, form + b"&Version=2010-05-08"


def live(count: int) -> Iterator[Request]:
    """Yield requests that each put another object."""
    yield s3("PUT", "/bench")
    for number in range(count - 1):
        yield s3("PUT", f"/bench/{number}", BODY)


def mixed(count: int) -> Iterator[Request]:
    """Yield groups of ten requests: 3 of them read, and 1 creates something that stays."""
    yield s3("PUT", "/bench")
    yield logs("CreateLogGroup", b'{"logGroupName": "bench"}')
    yield logs("CreateLogStream", b'{"logGroupName": "bench", "logStreamName": "bench"}')
    for number in range((count - 3) // 10):
        yield s3("PUT", f"/bench/kept-{number % 500}", BODY)
        yield s3("PUT", f"/bench/state-{number % 10}", BODY)
        yield s3("PUT", f"/bench/passing-{number}", BODY)
        yield s3("PUT", f"/bench/status-{number % 10}", BODY)
        yield s3("DELETE", f"/bench/passing-{number}")
        yield s3("GET", f"/bench/kept-{number % 500}")
        yield logs("DescribeLogGroups", b"{}")
        yield iam(b"Action=ListRoles")
        yield s3("PUT", f"/bench/state-{number % 10}?tagging", TAGS)
        yield logs("PutLogEvents", EVENT % (1_700_000_000_000 + number))


TAGS = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
EVENT = (
    b'{"logGroupName": "bench", "logStreamName": "bench",'
    b' "logEvents": [{"timestamp": %d, "message": "a line"}]}'
)
MIXES = {"mixed": mixed, "live": live}


def start(build: Path, state: Path) -> tuple[subprocess.Popen[str], str, float, float]:
    """Start an endpoint; return process, URL, wall and CPU seconds until it served."""
    command = [sys.executable, "-m", "cloudft", "endpoint", "-q", "--clock", "fast"]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--state", str(state)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=build,
        env=os.environ | {"PYTHONPATH": str(build)},
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url, f"{build} did not start"
    seconds = time.perf_counter() - started
    ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return process, url, seconds, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def kill(process: subprocess.Popen[str]) -> None:
    """Kill the process as `kill -9` does."""
    process.kill()
    process.communicate()


def serve(build: Path, state: Path, mix: str, count: int) -> float:
    """Serve the requests, kill the endpoint, and return the requests per second."""
    process, url, _, _ = start(build, state)
    started = time.perf_counter()
    for service, method, path, headers, body in MIXES[mix](count):
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        signed = {"Authorization": SIGNED.format(service), "X-Amz-Content-SHA256": "any"}
        connection.request(method, path, body, headers | signed)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status < 300, (method, path, answer.status, content)
        connection.close()
    kill(process)
    return count / (time.perf_counter() - started)


def _columns(took: dict[str, list[tuple[float, float]]]) -> Iterator[tuple[list[float], ...]]:
    for which in (0, 1):
        yield tuple([times[which] for times in took[name]] for name in ("ours", "other"))


def main() -> None:
    """Alternate between the builds and print the figures."""
    parser = build_parser(__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--mix", choices=sorted(MIXES), action="append")
    args = parser.parse_args()
    requests, rounds = (20, 1) if args.smallest else (args.requests, ROUNDS)
    builds = {"ours": ROOT} | ({"other": args.against.resolve()} if args.against else {})
    for mix in args.mix or MIXES:
        with tempfile.TemporaryDirectory() as folder:
            took: dict[str, list[tuple[float, float]]] = {name: [] for name in builds}
            for name, build in builds.items():
                rate = serve(build, Path(folder, name), mix, requests)
                print(f"{mix}, {name}: {requests} requests, {rate:.0f} per second", flush=True)
            for _ in range(rounds):
                for name, build in builds.items():
                    process, _, *seconds = start(build, Path(folder, name))
                    took[name].append((seconds[0], seconds[1]))
                    kill(process)
            for name, times in took.items():
                size = Path(folder, name, "moto.jsonl").stat().st_size
                each = [f"{clock:.1f} ({cpu:.1f} CPU)" for clock, cpu in times]
                print(f"{mix}, {name}: seconds {each}, {size:,} bytes")
            if "other" in took:
                ratios = [min(ours) / min(other) for ours, other in _columns(took)]
                print(f"{mix}: ratio {ratios[0]:.2f} (CPU {ratios[1]:.2f})", flush=True)


if __name__ == "__main__":
    main()
