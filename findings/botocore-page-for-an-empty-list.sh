#!/usr/bin/env bash
# botocore 1.44.5: an answer that is no answer of AWS is taken for an empty list.
#
# Guess: a client that gets, with status 200, the login page of a captive portal or a proxy in place of an answer
#   of AWS raises an exception (a parse error), as it does for XML that ends too early.
# Behavior: for Bedrock (REST-JSON) a body that is not JSON gives a result without members; for S3 (REST-XML) a
#   page that is well-formed XML gives a bucket without objects; and so does an answer that ends within its
#   headers (urllib3 2.8.0 logs a warning and goes on). No exception, nothing is tried again: a caller that lists
#   resources sees an account with nothing in it. For STS (Query) the page is a bare KeyError, which is neither
#   a BotoCoreError nor tried again.
# Output seen, 2026-11-29:
#   bedrock page: {} | s3 page: {} | s3 half headers: {} | sts page: KeyError('GetCallerIdentityResult')
#
# Fails (exit 1) when one of these changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install botocore==1.44.5 urllib3==2.8.0
"$folder/venv/bin/python" - <<'PYTHON'
import socket
import sys
import threading

import botocore.session
from botocore.config import Config

PAGE = b"<html><body>Please log in to the Wi-Fi</body></html>"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
answer = b""


def serve(listening):
    while True:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)


listening = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=[listening], daemon=True).start()
session = botocore.session.get_session()
session.set_credentials("key", "secret")


def ask(service, operation, **parameters):
    client = session.create_client(
        service,
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{listening.getsockname()[1]}",
        config=Config(retries={"total_max_attempts": 1}),
    )
    found = getattr(client, operation)(**parameters)
    del found["ResponseMetadata"]
    return found


answer = HEAD % len(PAGE) + PAGE
try:
    sts = ask("sts", "get_caller_identity")
except Exception as error:
    sts = repr(error)
seen = {
    "bedrock page": ask("bedrock", "list_foundation_models"),
    "s3 page": ask("s3", "list_objects_v2", Bucket="bucket"),
}
answer = b"HTTP/1.1 200 OK\r\nContent-Le"
seen["s3 half headers"] = ask("s3", "list_objects_v2", Bucket="bucket")
seen["sts page"] = sts
line = " | ".join(f"{name}: {found}" for name, found in seen.items())
print(line)
expected = "bedrock page: {} | s3 page: {} | s3 half headers: {} | sts page: "
sys.exit(line != expected + "KeyError('GetCallerIdentityResult')")
PYTHON
