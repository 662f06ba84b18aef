#!/usr/bin/env bash
# sagemaker-train 1.27.0: SFTTrainer on instances leaves out keys, spot and model package group, and takes another recipe.
#
# Guess: a trainer that takes kms_key_id, a compute with volume_kms_key_id and enable_managed_spot_training, a
#   model_package_group and a sequence_length sends them, whatever the compute, or refuses what it can't send.
# Behavior: without a compute (serverless) all of them reach CreateTrainingJob. With TrainingJobCompute the request
#   has no key for output or disk, no spot and no ModelPackageConfig, and the recipe that is rendered is the first
#   of the technique, not that of the sequence length; no warning, no error. Compare the request with what was
#   given before it costs anything.
# Output seen:
#   serverless: key of the output: yes; package group: yes; length: 32K
#   instances: key of the output: no; key of the disk: no; spot: no; package group: no; recipe: r4k.yaml
# Exit status: 1 when that has changed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  "sagemaker-train==1.27.0" "sagemaker-core==2.27.0" "boto3==1.44.8"

cat > "$folder/sent_requests.py" <<'PYTHON'
"""Answer every call of AWS here, and print what each trainer sends."""

import datetime
import io
import json
import logging
import sys
import warnings

import boto3
from botocore.awsrequest import AWSResponse
from botocore.response import StreamingBody

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
ACCOUNT, REGION = "123456789012", "us-east-1"
ARN = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/job"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/"
MODEL = "huggingface-reasoning-qwen3-06b"


def recipe(length: str) -> dict:
    return {
        "Name": f"r{length.lower()}",
        "CustomizationTechnique": "SFT",
        "Type": "FineTuning",
        "Peft": "LORA",
        "SequenceLength": length,
        "SmtjRecipeTemplateS3Uri": f"s3://hub/r{length.lower()}.yaml",
        "SmtjOverrideParamsS3Uri": f"s3://hub/p{length.lower()}.json",
        "SmtjImageUri": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/image:1",
    }


TEMPLATE = """run:
  name: one
  model_type: llm_finetuning_aws
  model_name_or_path: ""
training_config:
  training_args: {max_epochs: 1}
"""
PARAMETERS = {"max_epochs": {"default": 5, "type": "integer", "min": 1, "max": 100}}
DOCUMENT = {
    "GatedBucket": False,
    "RecipeCollection": [recipe("4K"), recipe("32K")],
    "TrainingArtifactUri": "s3://hub/weights/",
}
TRUST = {
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ]
}
sent, read = [], []


def body(key: str) -> dict:
    read.append(key)
    content = (json.dumps(PARAMETERS) if key.endswith(".json") else TEMPLATE).encode()
    return {"Body": StreamingBody(io.BytesIO(content), len(content)), "ContentLength": len(content)}


ANSWERS = {
    "DescribeHubContent": lambda p: {
        "HubContentName": MODEL,
        "HubContentArn": f"arn:aws:sagemaker:{REGION}:aws:hub-content/SageMakerPublicHub/Model/{MODEL}/1.0.0",
        "HubContentVersion": "1.0.0",
        "HubContentType": "Model",
        "DocumentSchemaVersion": "1.0",
        "HubName": "SageMakerPublicHub",
        "HubArn": f"arn:aws:sagemaker:{REGION}:aws:hub/SageMakerPublicHub",
        "HubContentDocument": json.dumps(DOCUMENT),
        "HubContentStatus": "Available",
    },
    "GetCallerIdentity": lambda p: {"Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:user/x", "UserId": "x"},
    "GetRole": lambda p: {
        "Role": {"Arn": ROLE, "RoleName": "job", "AssumeRolePolicyDocument": json.dumps(TRUST)}
    },
    "SimulatePrincipalPolicy": lambda p: {
        "EvaluationResults": [
            {"EvalActionName": name, "EvalDecision": "allowed", "EvalResourceName": "*"}
            for name in p["ActionNames"]
        ],
        "IsTruncated": False,
    },
    "GetObject": lambda p: body(p["Key"]),
    "HeadObject": lambda p: {"ContentLength": 1, "ETag": "x"},
    "ListObjectsV2": lambda p: {"Contents": [{"Key": p.get("Prefix", ""), "Size": 1}], "KeyCount": 1},
    "ListBuckets": lambda p: {
        "Buckets": [{"Name": "bucket", "CreationDate": datetime.datetime(2026, 1, 1)}]
    },
    "ListMlflowApps": lambda p: {
        "Summaries": [{"Arn": f"{ARN}:mlflow-app/app-1", "Status": "Created", "AccountDefaultStatus": "ENABLED"}]
    },
    "DescribeModelPackageGroup": lambda p: {
        "ModelPackageGroupName": "team",
        "ModelPackageGroupArn": f"{ARN}:model-package-group/team",
        "ModelPackageGroupStatus": "Completed",
    },
    "CreateTrainingJob": lambda p: {"TrainingJobArn": f"{ARN}:training-job/one"},
    "DescribeTrainingJob": lambda p: {
        "TrainingJobName": p["TrainingJobName"],
        "TrainingJobArn": f"{ARN}:training-job/one",
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Starting",
        "ModelArtifacts": {"S3ModelArtifacts": ""},
        "StoppingCondition": {},
    },
}


def keep(params, model, context, **_):
    context["given"] = dict(params)
    if model.name == "CreateTrainingJob":
        sent.append(params)


def respond(model, context, **_):
    answer = ANSWERS.get(model.name, lambda p: {})(context.get("given", {}))
    return AWSResponse("", 200, {}, None), {**answer, "ResponseMetadata": {"HTTPStatusCode": 200}}


make = boto3.Session.__init__


def hooked(self, *args, **kwargs):
    make(self, *args, **kwargs)
    self.events.register("before-parameter-build", keep)
    self.events.register("before-call", respond)


boto3.Session.__init__ = hooked

from sagemaker.core.helper.session_helper import Session  # noqa: E402
from sagemaker.core.training.configs import TrainingJobCompute  # noqa: E402
from sagemaker.train import SFTTrainer  # noqa: E402

session = Session(boto_session=boto3.Session(region_name=REGION), default_bucket="bucket")
compute = TrainingJobCompute(
    instance_type="ml.g5.2xlarge",
    instance_count=1,
    volume_kms_key_id=f"{KEY}disk",
    enable_managed_spot_training=True,
)
for more in ({}, {"compute": compute}):
    SFTTrainer(
        model=MODEL,
        model_package_group="team",
        training_dataset="s3://bucket/train.jsonl",
        s3_output_path="s3://bucket/out",
        kms_key_id=f"{KEY}output",
        sequence_length="32K",
        sagemaker_session=session,
        role=ROLE,
        **more,
    ).train(wait=False)
serverless, instances = sent
answer = {True: "yes", False: "no"}
lines = [
    f"serverless: key of the output: {answer['KmsKeyId' in serverless['OutputDataConfig']]};"
    f" package group: {answer['ModelPackageConfig' in serverless]};"
    f" length: {serverless['ServerlessJobConfig'].get('SequenceLength')}",
    f"instances: key of the output: {answer['KmsKeyId' in instances['OutputDataConfig']]};"
    f" key of the disk: {answer['VolumeKmsKeyId' in instances['ResourceConfig']]};"
    f" spot: {answer['EnableManagedSpotTraining' in instances]};"
    f" package group: {answer['ModelPackageConfig' in instances]};"
    f" recipe: {[key for key in read if key.endswith('.yaml')][-1]}",
]
print("\n".join(lines))
expected = [
    "serverless: key of the output: yes; package group: yes; length: 32K",
    "instances: key of the output: no; key of the disk: no; spot: no; package group: no; recipe: r4k.yaml",
]
sys.exit(lines != expected)
PYTHON
export AWS_DEFAULT_REGION=us-east-1 AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x
"$folder/venv/bin/python" "$folder/sent_requests.py"
