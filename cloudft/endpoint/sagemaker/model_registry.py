"""SageMaker's public hub, model package groups, and the packages that serverless jobs make."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypedDict

import orjson

from cloudft.catalogue import ServerlessModel, load_serverless
from cloudft.endpoint.protocols.messages import Json, Response, ServiceError
from cloudft.endpoint.state import ACCOUNT, ModelPackage, ModelPackageGroup, State, now

HUB = "SageMakerPublicHub"
SEQUENCE_LENGTH = "8K"
"""The only length of the recipes here: the stand-in's context."""
GATED_PREFIXES = ("meta-",)
"""Models whose license must be accepted: Meta's. Source: SageMaker developer guide, "End-user
license agreements"."""
BASE_MODEL_ARN = re.compile(
    r"arn:[a-z0-9-]+:sagemaker:[a-z0-9-]+:(?:[0-9]{12}|aws):hub-content/"
    r"(?P<hub>[^/]+)/Model/(?P<name>[^/]+)(?:/[0-9.]+)?"
)


class Tag(TypedDict):
    """A tag."""

    Key: str
    Value: str


class DescribeHubContentRequest(TypedDict, total=False):
    """Request of DescribeHubContent."""

    HubName: str
    HubContentType: str
    HubContentName: str


class ModelPackageGroupRequest(TypedDict, total=False):
    """Request of CreateModelPackageGroup and DescribeModelPackageGroup."""

    ModelPackageGroupName: str
    ModelPackageGroupDescription: str
    Tags: Sequence[Tag]


class DescribeModelPackageRequest(TypedDict):
    """Request of DescribeModelPackage."""

    ModelPackageName: str


def is_gated(name: str) -> bool:
    """Return whether a model's license must be accepted."""
    return name.startswith(GATED_PREFIXES)


def find_hub_model(arn: str) -> ServerlessModel | None:
    """Return the model of a base model's ARN; None for one that the hub lacks."""
    match = BASE_MODEL_ARN.fullmatch(arn)
    known = match is not None and match["hub"] == HUB
    return load_serverless().by_hub.get(match["name"]) if match and known else None


class ModelRegistry:
    """Operations on hub contents, model package groups and model packages."""

    def __init__(self, state: State) -> None:
        self.state = state

    def describe_hub_content(self, request: DescribeHubContentRequest) -> Response:
        """Return a model of the public hub with its recipes: SFT, of an adapter and all weights."""
        name = request["HubContentName"]
        listed = load_serverless().by_hub.get(name)
        if request["HubName"] != HUB or request["HubContentType"] != "Model" or listed is None:
            what = f"HubContent with HubContentName {name} does not exist"
            raise ServiceError("ResourceNotFound", what)
        arn = f"arn:aws:sagemaker:{self.state.region}:aws"
        methods: dict[str, Sequence[str]] = {"LORA": listed.lora, "": listed.full}
        recipes: list[Json] = [
            {
                "CustomizationTechnique": "SFT",
                "Type": "FineTuning",
                "SequenceLength": SEQUENCE_LENGTH,
                "ServerlessMeteringType": "Token-based",
                **({"Peft": peft} if peft else {}),
            }
            for peft, techniques in methods.items()
            if "SFT" in techniques
        ]
        document = {"GatedBucket": is_gated(name), "RecipeCollection": recipes}
        return {
            "HubName": HUB,
            "HubArn": f"{arn}:hub/{HUB}",
            "HubContentName": name,
            "HubContentArn": f"{arn}:hub-content/{HUB}/Model/{name}/1.0.0",
            "HubContentVersion": "1.0.0",
            "HubContentType": "Model",
            "DocumentSchemaVersion": "2.3.0",
            "HubContentDocument": orjson.dumps(document).decode(),
            "HubContentStatus": "Available",
            "CreationTime": now(),
        }

    def create_model_package_group(self, request: ModelPackageGroupRequest) -> Response:
        """Create a group. A name that is in use is refused."""
        name = request["ModelPackageGroupName"]
        with self.state.lock:
            if name in self.state.model_package_groups:
                raise ServiceError("ValidationException", "Model Package Group already exists")
            arn = f"arn:aws:sagemaker:{self.state.region}:{ACCOUNT}:model-package-group/{name}"
            self.state.model_package_groups[name] = ModelPackageGroup(arn, name)
            self.state.tag(
                arn, [{"key": t["Key"], "value": t["Value"]} for t in request.get("Tags", ())]
            )
            self.state.save()
        return {"ModelPackageGroupArn": arn}

    def describe_model_package_group(self, request: ModelPackageGroupRequest) -> Response:
        """Return one group."""
        group = self.state.model_package_groups.get(
            request["ModelPackageGroupName"].rpartition("/")[2]
        )
        if group is None:
            what = f"ModelPackageGroup {request['ModelPackageGroupName']} does not exist."
            raise ServiceError("ValidationException", what)
        return {
            "ModelPackageGroupName": group.name,
            "ModelPackageGroupArn": group.arn,
            "ModelPackageGroupStatus": "Completed",
            "CreationTime": group.created,
            "CreatedBy": {},
        }

    def describe_model_package(self, request: DescribeModelPackageRequest) -> Response:
        """Return the package that a serverless job made: where its model lies in S3."""
        package = self.state.model_packages.get(request["ModelPackageName"])
        if package is None:
            what = f"ModelPackage {request['ModelPackageName']} does not exist."
            raise ServiceError("ValidationException", what)
        source: Json = {
            "S3DataSource": {
                "S3Uri": package.s3_uri,
                "S3DataType": "S3Prefix",
                "CompressionType": "None",
            }
        }
        return {
            "ModelPackageGroupName": package.group,
            "ModelPackageName": package.group,
            "ModelPackageVersion": package.version,
            "ModelPackageArn": package.arn,
            "CreationTime": package.created,
            "InferenceSpecification": {"Containers": [{"ModelDataSource": source}]},
            "ModelPackageStatus": "Completed",
            "ModelPackageStatusDetails": {"ValidationStatuses": []},
        }

    def add_package(self, group: str, s3_uri: str) -> str:
        """Add the next version to a group; return its ARN."""
        with self.state.lock:
            versions = [p.version for p in self.state.model_packages.values() if p.group == group]
            version = max(versions, default=0) + 1
            arn = f"arn:aws:sagemaker:{self.state.region}:{ACCOUNT}:model-package/{group}/{version}"
            self.state.model_packages[arn] = ModelPackage(arn, group, version, s3_uri)
            self.state.save()
        return arn
