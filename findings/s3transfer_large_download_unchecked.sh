#!/usr/bin/env bash
# boto3 checks no download in ranges (from 8 MiB on) against a full checksum, and without awscrt not against S3's default one.
#
# Packages: boto3 1.44.5, botocore 1.44.5, s3transfer 0.19.3; awscrt 0.38.0 (botocore's extra "crt") in the second
# run.
# Guess: since boto3 1.36 downloads are checked against the stored checksum ("when_supported" is the default), so what
# download_file returns without an error is what is stored, whatever its size and whoever stored it.
# Behavior: from multipart_threshold on (8 MiB) an object comes in ranges. S3 sends a checksum of the full object with
# no range of it, so botocore has nothing to compare, and s3transfer computes nothing of its own (boto/s3transfer pull
# request 418, open in September 2026; the AWS CLI has it, aws/aws-cli pull request 10180). Only where the object was
# uploaded in parts with a composite checksum, as boto3 does by itself, and the ranges are those parts, does S3 send
# sums of the parts. And CRC-64/NVME, which S3 adds to whatever comes without a checksum (API reference, "Checksum"),
# is skipped without a word where awscrt is not installed; it is an extra of botocore. A byte that was changed is
# written to the file.
# Why it matters: model weights are large, and are often stored by other tools than boto3.
# Way out: install botocore[crt], and download with TransferConfig(multipart_threshold=...) above the size, or compare
# the file with HeadObject's checksum (ChecksumMode="ENABLED").
# The server here is a few lines that answer as S3 documents it: the checksum with a whole object, none with a range.
# Seen (one bit of the object flipped after it was stored):
#                                               without awscrt            with
#   crc32, 1 MiB, get_object                    FlexibleChecksumError     FlexibleChecksumError
#   crc32, 1 MiB, download_file                 FlexibleChecksumError     FlexibleChecksumError
#   crc32, 9 MiB, get_object                    FlexibleChecksumError     FlexibleChecksumError
#   crc32, 9 MiB, download_file                 no error, 1 byte wrong    no error, 1 byte wrong
#   crc32, 9 MiB, download_file in one part     FlexibleChecksumError     FlexibleChecksumError
#   crc64nvme, 1 MiB, get_object                no error, 1 byte wrong    FlexibleChecksumError
#   crc64nvme, 1 MiB, download_file             no error, 1 byte wrong    FlexibleChecksumError
#   crc64nvme, 9 MiB, get_object                no error, 1 byte wrong    FlexibleChecksumError
#   crc64nvme, 9 MiB, download_file             no error, 1 byte wrong    no error, 1 byte wrong
#   crc64nvme, 9 MiB, download_file in one part no error, 1 byte wrong    FlexibleChecksumError
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet boto3==1.44.5 botocore==1.44.5 s3transfer==0.19.3
cd "$folder"
cat > try.py <<'PYTHON'
import base64
import json
import re
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import FlexibleChecksumError

MIB = 1 << 20
UPLOADED = {size: bytes(range(256)) * (size * MIB // 256) for size in (1, 9)}


def damaged(data):
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]


def crc64nvme(data):
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x9A6C9329AC4BC9B5 if value & 1 else 0)
        table.append(value)
    crc = (1 << 64) - 1
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ (1 << 64) - 1


assert crc64nvme(b"123456789") == 0xAE8B14860A799888
STORED = {size: damaged(data) for size, data in UPLOADED.items()}
CHECKSUMS = {
    ("crc32", size): base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode() for size, data in UPLOADED.items()
} | {
    ("crc64nvme", size): base64.b64encode(crc64nvme(data).to_bytes(8, "big")).decode()
    for size, data in UPLOADED.items()
}


class S3(BaseHTTPRequestHandler):
    """Answer HeadObject and GetObject of /bucket/ALGORITHM-SIZE."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        algorithm, size = re.search(r"/bucket/(\w+)-(\d)", self.path).groups()
        data = STORED[int(size)]
        headers = {"ETag": '"etag"', "Accept-Ranges": "bytes"}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part:
            first, last = int(part[1]), int(part[2] or len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data = data[first : last + 1]
        elif self.headers.get("x-amz-checksum-mode") == "ENABLED":
            headers[f"x-amz-checksum-{algorithm}"] = CHECKSUMS[algorithm, int(size)]
            headers["x-amz-checksum-type"] = "FULL_OBJECT"
        self.send_response(206 if part else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


server = ThreadingHTTPServer(("127.0.0.1", 0), S3)
threading.Thread(target=server.serve_forever, daemon=True).start()
s3 = boto3.client(
    "s3",
    region_name="us-east-1",
    endpoint_url=f"http://127.0.0.1:{server.server_port}",
    aws_access_key_id="key",
    aws_secret_access_key="secret",
    config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
)
ONE_PART = TransferConfig(multipart_threshold=64 * MIB, preferred_transfer_client="classic")
RANGES = TransferConfig(preferred_transfer_client="classic")


def get_object(key):
    return s3.get_object(Bucket="bucket", Key=key)["Body"].read()


def download_file(key, how=RANGES):
    s3.download_file("bucket", key, "file", Config=how)
    with open("file", "rb") as stream:
        return stream.read()


WAYS = {
    "get_object": get_object,
    "download_file": download_file,
    "download_file in one part": lambda key: download_file(key, ONE_PART),
}
found = {}
for algorithm in ("crc32", "crc64nvme"):
    for size, uploaded in UPLOADED.items():
        for way, call in WAYS.items():
            try:
                data = call(f"{algorithm}-{size}")
                wrong = sum(a != b for a, b in zip(data, uploaded, strict=True))
                found[f"{algorithm}, {size} MiB, {way}"] = f"no error, {wrong} byte wrong"
            except FlexibleChecksumError as error:
                found[f"{algorithm}, {size} MiB, {way}"] = type(error).__name__
with open(sys.argv[1], "w") as stream:
    json.dump(found, stream)
PYTHON
"$folder/env/bin/python" try.py without.json
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet 'awscrt==0.38.0'
"$folder/env/bin/python" try.py with.json
python3 - <<'PYTHON'
import json
import sys

without, with_crt = (json.load(open(name)) for name in ("without.json", "with.json"))
print(f"{'':44}{'without awscrt':26}with")
for name in without:
    print(f"{name:44}{without[name]:26}{with_crt[name]}")
noticed = [[what == "FlexibleChecksumError" for what in found.values()] for found in (without, with_crt)]
crc32 = [True, True, True, True, False, True]
same = noticed == [crc32 + [False] * 6, crc32 + crc32]
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
