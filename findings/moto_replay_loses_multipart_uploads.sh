#!/bin/sh
# moto's recorder restores every object except those that boto3 uploaded in parts.
#
# Versions: moto 5.2.5, boto3 1.43.11, Python 3.11.
# Guess:    moto's recorder "can be replayed at a later date [...] to setup an initial state", and with the
#           seed set by /moto-api/seed all identifiers are reproduced: a replay restores everything.
# Behavior: the id of a multipart upload comes from os.urandom (moto/s3/models.py), not of the seeded
#           generator. boto3's upload_fileobj splits what is larger than 8 MiB, and its recorded UploadPart
#           requests name an upload that does not exist any more. The replay answers 200; the object is gone.
# Seen:     recorded: ['large', 'small']
#           replay: HTTP 200
#           replayed: ['small']
# Affects:  everybody who saves a moto server's state with its recorder, or replays requests to it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'moto[s3,server]==5.2.5' 'boto3==1.43.11'
cd "$folder"
cat > replay.py <<'PYTHON'
import io
import logging

import boto3
import requests
from moto.server import ThreadedMotoServer

logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
server = ThreadedMotoServer(port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
api = f"http://127.0.0.1:{port}/moto-api"
s3 = boto3.client(
    "s3",
    endpoint_url=f"http://127.0.0.1:{port}",
    region_name="us-east-1",
    aws_access_key_id="any",
    aws_secret_access_key="any",
)


def keys():
    return sorted(item["Key"] for item in s3.list_objects_v2(Bucket="one").get("Contents", []))


def admin(path):
    return requests.post(f"{api}/{path}", timeout=60).status_code


admin("seed?a=7")
admin("recorder/start-recording")
s3.create_bucket(Bucket="one")
s3.put_object(Bucket="one", Key="small", Body=b"x")
s3.upload_fileobj(io.BytesIO(b"x" * (9 << 20)), "one", "large")
admin("recorder/stop-recording")
before = keys()
admin("reset")
admin("seed?a=7")
status = admin("recorder/replay-recording")
after = keys()
server.stop()
print("recorded:", before)
print("replay: HTTP", status)
print("replayed:", after)
raise SystemExit((before, status, after) != (["large", "small"], 200, ["small"]))
PYTHON
"$folder/venv/bin/python" replay.py 2> errors || { cat errors; exit 1; }
