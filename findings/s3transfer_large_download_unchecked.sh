#!/usr/bin/env bash
# boto3 checks the checksum of a downloaded object only below 8 MiB: of model weights, none.
#
# Packages: boto3 1.44.5, botocore 1.44.5, s3transfer 0.19.3.
# Guess: since boto3 1.36 uploads carry a checksum and downloads are checked against it ("when_supported" is the default),
# so what `download_file` returns without an error is what was uploaded, whatever its size.
# Behavior: from multipart_threshold on (8 MiB) the object comes in ranges. S3 sends the stored checksum of a full object
# with no range of it, botocore then has nothing to compare, and s3transfer computes nothing of its own and asks nothing: its
# HeadObject, which could bring the stored checksum, is sent without ChecksumMode, and with it (ExtraArgs) the value is not
# used. A byte that was changed on the way or on disk is written to the file. get_object on the same object raises.
# (Sources: boto/s3transfer pull request 418, open in September 2026; aws/aws-cli pull request 10180 for the command line.)
# Why it matters: adapters and configurations are checked, the weights beside them are not, and nothing says so.
# Way out: TransferConfig(multipart_threshold=...) above the object's size, or compare with HeadObject's checksum.
# The server here is a few lines that answer as S3 documents it: checksum with a whole object, none with a range.
# Seen (one bit of the object flipped after it was stored):
#   1MiB, get_object                                FlexibleChecksumError
#   1MiB, download_file                             FlexibleChecksumError
#   1MiB, download_fileobj                          FlexibleChecksumError
#   9MiB, get_object                                FlexibleChecksumError
#   9MiB, download_file                             no error, 1 byte wrong
#   9MiB, download_fileobj                          no error, 1 byte wrong
#   9MiB, download_file with ChecksumMode=ENABLED   no error, 1 byte wrong
#   9MiB, download_file in one part                 FlexibleChecksumError
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet boto3==1.44.5 botocore==1.44.5 s3transfer==0.19.3
cd "$folder"
cat > try.py <<'PYTHON'
import base64
import io
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
UPLOADED = {"1MiB": bytes(range(256)) * (MIB // 256), "9MiB": bytes(range(256)) * (9 * MIB // 256)}


def damaged(data):
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]


STORED = {key: damaged(data) for key, data in UPLOADED.items()}


class S3(BaseHTTPRequestHandler):
    """Answer HeadObject and GetObject."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        key = self.path.partition("?")[0].rpartition("/")[2]
        data = STORED[key]
        headers = {"ETag": '"etag"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last = int(asked[1]), int(asked[2] or len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data = data[first : last + 1]
        elif self.headers.get("x-amz-checksum-mode") == "ENABLED":
            checksum = zlib.crc32(UPLOADED[key]).to_bytes(4, "big")
            headers["x-amz-checksum-crc32"] = base64.b64encode(checksum).decode()
            headers["x-amz-checksum-type"] = "FULL_OBJECT"
        self.send_response(206 if asked else 200)
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


def get_object(key):
    return s3.get_object(Bucket="bucket", Key=key)["Body"].read()


def download_file(key, **how):
    s3.download_file("bucket", key, "file", **how)
    with open("file", "rb") as stream:
        return stream.read()


def download_fileobj(key):
    stream = io.BytesIO()
    s3.download_fileobj("bucket", key, stream)
    return stream.getvalue()


def outcome(call):
    try:
        data, key = call()
    except FlexibleChecksumError as error:
        return type(error).__name__
    return f"no error, {sum(a != b for a, b in zip(data, UPLOADED[key], strict=True))} byte wrong"


ONE_PART = TransferConfig(multipart_threshold=64 * MIB)
found = []
for key in UPLOADED:
    for name, call in (
        ("get_object", get_object),
        ("download_file", download_file),
        ("download_fileobj", download_fileobj),
    ):
        found.append((f"{key}, {name}", outcome(lambda: (call(key), key))))
with_mode = outcome(lambda: (download_file("9MiB", ExtraArgs={"ChecksumMode": "ENABLED"}), "9MiB"))
found.append(("9MiB, download_file with ChecksumMode=ENABLED", with_mode))
found.append(("9MiB, download_file in one part", outcome(lambda: (download_file("9MiB", Config=ONE_PART), "9MiB"))))
for name, what in found:
    print(f"{name:48}{what}")
noticed = [what == "FlexibleChecksumError" for _, what in found]
same = noticed == [True, True, True, True, False, False, False, True]
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
"$folder/env/bin/python" try.py
