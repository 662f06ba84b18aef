#!/usr/bin/env bash
# moto 5.2.5 with boto3 1.44.5 does not find a Bedrock customization job by its ARN.
#
# Guess: GetModelCustomizationJob accepts the ARN that CreateModelCustomizationJob returned, as the API
#   does (jobIdentifier is "the job's name or ARN"); botocore percent-encodes it in the path.
# Seen: ResourceNotFoundException, "Model customization job arn%3Aaws%3Abedrock%3A... not found": moto does
#   not decode that part of the path. The same ARN works in ListTagsForResource, and the job's name works.
# Way out: in a test against moto, look a job up by its name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet "moto[s3]==5.2.5" "boto3==1.44.5"
AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing AWS_DEFAULT_REGION=us-east-1 \
    "$folder/venv/bin/python" - <<'PY'
import boto3
from moto import mock_aws

with mock_aws():
    s3, bedrock = boto3.client("s3"), boto3.client("bedrock")
    s3.create_bucket(Bucket="some-bucket")
    s3.put_object(Bucket="some-bucket", Key="train.jsonl", Body=b"{}")
    arn = bedrock.create_model_customization_job(
        jobName="router-12345678",
        customModelName="router",
        roleArn="arn:aws:iam::123456789012:role/bedrock",
        baseModelIdentifier="amazon.titan-text-express-v1",
        trainingDataConfig={"s3Uri": "s3://some-bucket/train.jsonl"},
        outputDataConfig={"s3Uri": "s3://some-bucket/output/"},
        hyperParameters={"epochCount": "1"},
        jobTags=[{"key": "team", "value": "x"}],
    )["jobArn"]
    assert bedrock.list_tags_for_resource(resourceARN=arn)["tags"], "the ARN is one to list_tags"
    named = bedrock.get_model_customization_job(jobIdentifier="router-12345678")
    assert named["jobArn"] == arn
    try:
        bedrock.get_model_customization_job(jobIdentifier=arn)
    except bedrock.exceptions.ResourceNotFoundException as error:
        print(error)
        assert "arn%3Aaws%3Abedrock" in str(error)
    else:
        raise SystemExit("moto finds a job by its ARN now")
PY
