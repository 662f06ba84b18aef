#!/usr/bin/env bash
# A 0 or a False below the first level never leaves sagemaker-core: the service's default takes its place.
#
# Packages: sagemaker-core 2.27.0, boto3 and botocore 1.44.5.
# Guess: what is set on a shape is sent; that falsy values were dropped is past (aws/sagemaker-python-sdk, issue 5568
# and pull request 5860, 2026: "preserve falsy values in serialize() output").
# Behavior: they are kept at the first level, in dicts and in lists only. In a member that is a shape (most of an API
# with nested configurations) `_serialize_shape` still leaves out whatever is falsy. Of the booleans, and of the
# numbers that may be 0, in all shapes that sagemaker-core has for the inputs of the service model, not one is sent.
# Why it matters: most are optional, so nothing fails. A variant created with InitialVariantWeight 0.0 gets the API's
# default of 1.0, and with it half of the traffic; MinInstanceCount 0 is not sent, so that an endpoint does not get
# the lower bound of zero that was to save its cost; RemoteDebugConfigForUpdate(enable_remote_debug=False) and
# profiler settings can't be switched back. Only where the member is required (CopyCount of an inference component,
# InstanceCount of a cluster's group) does botocore raise.
# Way out: send such a request with boto3 (a dict in the shape's place is made a shape again, and loses it as well).
# Seen:
#   variant wanted: weight 0.0, at least 0 instances, at most 1
#   variant sent: {'VariantName': 'canary', 'ModelName': 'm', 'InitialInstanceCount': 1, 'InstanceType': 'ml.g5.xlarge',
#     'ManagedInstanceScaling': {'Status': 'ENABLED', 'MaxInstanceCount': 1}}
#   False sent: 0 of 41 booleans
#   0 sent: 0 of 71 numbers
#   required ones, so that botocore raises: 19
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet sagemaker-core==2.27.0 boto3==1.44.5 botocore==1.44.5
cat > "$folder/try.py" <<'PYTHON'
import json
import sys

import boto3
import botocore.session
from botocore.awsrequest import AWSResponse
from sagemaker.core.resources import EndpointConfig
from sagemaker.core.shapes import shapes
from sagemaker.core.utils import utils

NUMBERS = {"integer": 0, "long": 0, "float": 0.0, "double": 0.0}


class Body:
    """The raw body of an answer, as urllib3 gives it."""

    def stream(self, **_):
        yield b'{"EndpointConfigName": "config"}'


def answer(request, **_):
    sent.append(json.loads(request.body))
    return AWSResponse("https://nowhere.invalid", 200, {}, Body())


sent = []
session = boto3.Session("key", "secret", region_name="us-east-1")
client = utils.SageMakerClient(session=session, region_name="us-east-1").get_client("sagemaker")
client.meta.events.register("before-send", answer)
scaling = shapes.ProductionVariantManagedInstanceScaling(status="ENABLED", min_instance_count=0, max_instance_count=1)
variant = shapes.ProductionVariant(
    variant_name="canary",
    model_name="m",
    instance_type="ml.g5.xlarge",
    initial_instance_count=1,
    initial_variant_weight=0.0,
    managed_instance_scaling=scaling,
)
EndpointConfig.create(
    endpoint_config_name="config", production_variants=[variant], session=session, region="us-east-1"
)
sent_variant = sent[0]["ProductionVariants"][0]
print("variant wanted: weight 0.0, at least 0 instances, at most 1")
print("variant sent:", sent_variant)

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

possible = {"boolean": 0, "number": 0}
kept = {"boolean": 0, "number": 0}
required = 0
for name, structure in sorted(structures.items()):
    cls = getattr(shapes, name, None)
    fields = cls.model_fields if cls else {}
    for member, shape in structure.members.items():
        field = next((f for f in fields if utils.snake_to_pascal(f) == member), None)
        zero = False if shape.type_name == "boolean" else NUMBERS.get(shape.type_name)
        if field is None or zero is None or shape.metadata.get("min", 0) > 0:
            continue
        kind = "boolean" if zero is False else "number"
        possible[kind] += 1
        required += member in structure.required_members
        kept[kind] += member in (utils.serialize(cls.model_construct(**{field: zero})) or {})
print(f"False sent: {kept['boolean']} of {possible['boolean']} booleans")
print(f"0 sent: {kept['number']} of {possible['number']} numbers")
print("required ones, so that botocore raises:", required)
lost = "InitialVariantWeight" not in sent_variant and "MinInstanceCount" not in sent_variant["ManagedInstanceScaling"]
same = lost and possible == {"boolean": 41, "number": 71} and kept == {"boolean": 0, "number": 0}
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
"$folder/env/bin/python" -W ignore "$folder/try.py"
