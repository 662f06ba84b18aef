#!/usr/bin/env bash
# moto 5.2.5 (boto3 1.44.5), cfn-lint 1.58.0.
#
# Guess: a managed policy that IAM can't take for its size (6,144 characters without white space) is found by one of
# the two tools that a template goes through before it meets AWS: cfn-lint, or a deploy of it against moto.
#
# Behavior: neither counts. cfn-lint has nothing to say of a literal policy of 12,901 characters, and moto's IAM makes it,
# and takes it as an inline policy, too, where the sum may be 10,240. IAM's guide ("IAM and AWS STS quotas", "IAM and STS
# character limits") and every account refuse it. A green pipeline of both is no sign that a stack deploys: the limit
# has to be held by a test of one's own, on the policy with its values put in.
#
# Output seen:
#   characters 12901
#   cfn-lint exit 0, output ''
#   moto: managed policy made, inline policy taken
#
# Fails when either tool begins to refuse it.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/venv"
"$here/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  "moto[iam]==5.2.5" boto3==1.44.5 cfn-lint==1.58.0
cd "$here"
AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x AWS_DEFAULT_REGION=us-east-1 "$here/venv/bin/python" - <<'PYTHON'
import json
import subprocess
import sys
from pathlib import Path

import boto3
from moto import mock_aws

resources = [f"arn:aws:s3:::bucket-{number:06d}/*" for number in range(400)]
statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": resources}
policy = {"Version": "2012-10-17", "Statement": [statement]}
print("characters", len(json.dumps(policy)))
assert len(json.dumps(policy, separators=(",", ":"))) > 10_240

made = {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": policy}}
Path("template.json").write_text(json.dumps({"Resources": {"Policy": made}}))
lint = Path(sys.executable).with_name("cfn-lint")
words = [str(lint), "--regions", "us-east-1", "--template", "template.json"]
done = subprocess.run(words, capture_output=True, text=True, check=False)
print(f"cfn-lint exit {done.returncode}, output {done.stdout!r}")

trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
with mock_aws():
    iam = boto3.client("iam")
    iam.create_policy(PolicyName="large", PolicyDocument=json.dumps(policy))
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    iam.create_role(RoleName="role", AssumeRolePolicyDocument=document)
    iam.put_role_policy(RoleName="role", PolicyName="large", PolicyDocument=json.dumps(policy))
print("moto: managed policy made, inline policy taken")
sys.exit(done.returncode)
PYTHON
