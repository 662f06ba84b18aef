#!/usr/bin/env bash
# moto 5.2.5 with boto3 1.44.5: a repeated CreateResourceShare makes a second share, without its tags.
#
# Guess: a request with the clientToken of an earlier one returns the share that this one made, and
#   GetResourceShares returns a share's tags and filters by `name` (RAM's API reference has all three).
# Seen: two shares with different ARNs; no tags in any answer; `name` filters nothing.
# Way out: against moto, look for the share by its name among all of them before creating it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet "moto[ram]==5.2.5" "boto3==1.44.5"
AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing AWS_DEFAULT_REGION=us-east-1 \
    "$folder/venv/bin/python" - <<'PY'
import boto3
from moto import mock_aws

with mock_aws():
    ram = boto3.client("ram")
    request = {
        "name": "subnets",
        "resourceArns": ["arn:aws:ec2:us-east-1:123456789012:subnet/subnet-0123456789abcdef0"],
        "principals": ["111122223333"],
        "tags": [{"key": "team", "value": "network"}],
        "clientToken": "one-and-the-same",
    }
    first = ram.create_resource_share(**request)["resourceShare"]
    second = ram.create_resource_share(**request)["resourceShare"]
    print(first["resourceShareArn"], second["resourceShareArn"], sep="\n")
    assert first["resourceShareArn"] != second["resourceShareArn"], "moto knows the token now"
    listed = ram.get_resource_shares(resourceOwner="SELF", name="another")["resourceShares"]
    print(len(listed), "shares are named 'another'; tags:", [share.get("tags") for share in listed])
    assert len(listed) == 2 and not any(share.get("tags") for share in listed)
PY
