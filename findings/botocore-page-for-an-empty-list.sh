#!/usr/bin/env bash
# botocore 1.44.5 parses a response that is not from AWS as an empty list.
#
# Guess: a client that receives the login page of a captive portal or a proxy with status 200 raises an exception
#   (a parse error), as it does for truncated XML.
# Behavior: for Bedrock (REST-JSON) a body that is not JSON gives a result without members; for S3 (REST-XML) a
#   page of well-formed XML gives a bucket without objects; so does a response that ends within its headers
#   (urllib3 2.8.0 logs a warning and continues). There is no exception and no retry: a caller that lists
#   resources sees an empty account. For STS (Query) the page raises a bare KeyError, which is neither a
#   BotoCoreError nor retried.
# Output seen, 2026-11-29:
#   bedrock page: {} | s3 page: {} | s3 half headers: {} | sts page: KeyError('GetCallerIdentityResult')
#
# Exit status: 1 when that has changed.
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
