#!/usr/bin/env bash
# botocore 1.44.5: an error within an event stream has another code than the same error of a call.
#
# Guess: code that handles throttling by `error.response["Error"]["Code"] == "ThrottlingException"`, or by
#   `except client.exceptions.ThrottlingException`, handles it also while a ConverseStream is read.
# Behavior: within the stream the code is the name of the stream's member, which begins with a small letter:
#   throttlingException. The exception is botocore.exceptions.EventStreamError, a ClientError and not one of
#   client.exceptions, though the service model gives the member the shape ThrottlingException. Handlers of
#   the ordinary error take it for an unknown one. Nor does botocore retry it: the call itself had succeeded.
# Output seen:
#   call:   ThrottlingException ThrottlingException requests: 3
#   stream: EventStreamError throttlingException requests: 1
#   caught by client.exceptions.ThrottlingException: False
#   shape of the member: ThrottlingException
# Exit status: 1 when that has changed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "boto3==1.44.5" "botocore==1.44.5"

cat > "$folder/stream.py" <<'PYTHON'
"""Throttle a ConverseStream: once as the response of the call, once within its stream."""

import binascii
import json
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

BODY = json.dumps({"message": "too fast"}).encode()
within_stream, requests = [False], [0]


def header(name, value):
    return bytes([len(name)]) + name + b"\x07" + struct.pack(">H", len(value)) + value


def exception_message():
    """Return one message of the binary protocol of event streams, which is an exception."""
    headers = (
        header(b":message-type", b"exception")
        + header(b":exception-type", b"throttlingException")
        + header(b":content-type", b"application/json")
    )
    prelude = struct.pack(">II", 16 + len(headers) + len(BODY), len(headers))
    message = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + BODY
    return message + struct.pack(">I", binascii.crc32(message))


class Bedrock(BaseHTTPRequestHandler):
    def do_POST(self):
        requests[0] += 1
        self.rfile.read(int(self.headers["content-length"]))
        content = exception_message() if within_stream[0] else BODY
        self.send_response(200 if within_stream[0] else 429)
        kind = "vnd.amazon.eventstream" if within_stream[0] else "json"
        self.send_header("content-type", f"application/{kind}")
        self.send_header("x-amzn-errortype", "ThrottlingException")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Bedrock)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = boto3.client(
    "bedrock-runtime",
    region_name="us-east-1",
    endpoint_url=f"http://127.0.0.1:{server.server_port}",
    aws_access_key_id="a",
    aws_secret_access_key="b",
    config=Config(retries={"mode": "standard", "total_max_attempts": 3}),
)


def fail():
    requests[0] = 0
    try:
        messages = [{"role": "user", "content": [{"text": "hello"}]}]
        list(client.converse_stream(modelId="m", messages=messages)["stream"])
    except ClientError as error:
        return error
    sys.exit("it did not fail")


def describe(error):
    return f"{type(error).__name__} {error.response['Error']['Code']} requests: {requests[0]}"


called = describe(fail())
within_stream[0] = True
error = fail()
streamed = describe(error)
is_caught = isinstance(error, client.exceptions.ThrottlingException)
output = client.meta.service_model.operation_model("ConverseStream").output_shape
shape = output.members["stream"].members["throttlingException"].name
lines = [
    f"call:   {called}",
    f"stream: {streamed}",
    f"caught by client.exceptions.ThrottlingException: {is_caught}",
    f"shape of the member: {shape}",
]
print("\n".join(lines))
sys.exit(
    lines
    != [
        "call:   ThrottlingException ThrottlingException requests: 3",
        "stream: EventStreamError throttlingException requests: 1",
        "caught by client.exceptions.ThrottlingException: False",
        "shape of the member: ThrottlingException",
    ]
)
PYTHON
"$folder/venv/bin/python" "$folder/stream.py"
