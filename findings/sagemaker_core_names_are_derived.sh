#!/usr/bin/env bash
# sagemaker-core can't create a serverless endpoint: it sends MemorySizeInMb where the API's member is MemorySizeInMB.
#
# Packages: sagemaker-core 2.27.0, boto3 and botocore 1.44.5.
# Guess: the classes are generated from the service model, so the names that are sent are the model's.
# Behavior: they are generated from it in snake case, and turned back by a rule (title case of each part, and a short
# list of exceptions), which does not give back abbreviations: MB, URL, ARN, EFS, SSM, MIME, AutoML. Of the members
# that the classes below the inputs have, 15 of 1,446 go out under a name that the API does not have. botocore refuses
# the request before it is sent, as a parameter that is unknown (and one that is missing), in words that the user of
# the class never wrote.
# It concerns ServerlessConfig of a production variant (required: no serverless endpoint at all), batch transform's
# and Clarify's payload limits, EFS file systems of Studio, accepted MIME types, AutoML's limit of a job's time, and
# more.
# Why it matters: it shows only when the request is made, so often after the training whose model it was to serve.
# Way out: boto3's create_endpoint_config. (aws/sagemaker-core issue 225 names the first, open since November 2024.)
# Seen:
#   AutoMLAlgorithmConfig.AutoMLAlgorithms: sent as AutoMlAlgorithms (required)
#   CfnCreateTemplateProvider.TemplateURL: sent as TemplateUrl (required)
#   CustomFileSystem.EFSFileSystem: sent as EfsFileSystem
#   EmrServerlessComputeConfig.ExecutionRoleARN: sent as ExecutionRoleArn (required)
#   ProductionVariant.EnableSSMAccess: sent as EnableSsmAccess
#   ProductionVariantServerlessConfig.MemorySizeInMB: sent as MemorySizeInMb (required)
#   TransformJobDefinition.MaxPayloadInMB: sent as MaxPayloadInMb      (and eight more)
#   15 of 1446 members go out under another name
#   Missing required parameter in ProductionVariants[0].ServerlessConfig: "MemorySizeInMB"
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet sagemaker-core==2.27.0 boto3==1.44.5 botocore==1.44.5
cat > "$folder/try.py" <<'PYTHON'
import sys

import boto3
import botocore.session
from botocore.exceptions import ParamValidationError
from sagemaker.core.resources import EndpointConfig
from sagemaker.core.shapes import shapes
from sagemaker.core.utils import utils

structures = {}


def collect(shape):
    """Add every structure below `shape`, a shape of an operation's input."""
    if shape.type_name == "structure" and shape.name not in structures:
        structures[shape.name] = shape
        for member in shape.members.values():
            collect(member)
    elif shape.type_name in ("list", "map"):
        collect(shape.member if shape.type_name == "list" else shape.value)


model = botocore.session.get_session().get_service_model("sagemaker")
for operation in model.operation_names:
    given = model.operation_model(operation).input_shape
    for member in given.members.values() if given else ():
        collect(member)

held, wrong = 0, []
for name, structure in sorted(structures.items()):
    fields = getattr(shapes, name).model_fields if hasattr(shapes, name) else {}
    for member in structure.members:
        field = next((f for f in fields if f.replace("_", "").lower() == member.lower()), None)
        if field is None:
            continue
        held += 1
        (sent,) = utils.serialize(getattr(shapes, name).model_construct(**{field: "any"}))
        if sent != member:
            wrong.append((name, member, sent, member in structure.required_members))
for name, member, sent, required in wrong:
    print(f"{name}.{member}: sent as {sent}{' (required)' if required else ''}")
print(f"{len(wrong)} of {held} members go out under another name")

session = boto3.Session("key", "secret", region_name="us-east-1")
serverless = shapes.ProductionVariantServerlessConfig(memory_size_in_mb=2048, max_concurrency=1)
variant = shapes.ProductionVariant(variant_name="v", model_name="m", serverless_config=serverless)
try:
    EndpointConfig.create(
        endpoint_config_name="config", production_variants=[variant], session=session, region="us-east-1"
    )
    refusal = ""
except ParamValidationError as error:
    refusal = str(error)
print(refusal)
same = 'Missing required parameter in ProductionVariants[0].ServerlessConfig: "MemorySizeInMB"' in refusal
same = same and (len(wrong), held) == (15, 1446)
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
"$folder/env/bin/python" -W ignore "$folder/try.py" 2> "$folder/log" || { cat "$folder/log" >&2; exit 1; }
