"""Convert between the values of state machines and those of boto3, by botocore's service models.

In state machines, all members have PascalCase names, and services the names of the SDK for Java. A
blob is JSON or text. Source: Step Functions developer guide, "Learning to use AWS service SDK
integrations".
"""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from botocore.response import StreamingBody
from moto.stepfunctions.parser.utils import camel_to_snake_case, snake_to_camel_case

from cloudft.aws.request_validation import load_service_model
from cloudft.endpoint.protocols.json_shapes import is_document
from cloudft.endpoint.protocols.service_models import OperationModel, Shape

BOTO_NAMES = {
    "cloudwatchlogs": "logs",
    "costandusagereport": "cur",
    "databasemigration": "dms",
    "eventbridge": "events",
    "sfn": "stepfunctions",
    "states": "stepfunctions",
}
"""Services whose boto3 name is not that of the SDK for Java with other punctuation."""
STREAMED = {"ConverseStream", "InvokeModelWithResponseStream"}
"""Operations of Bedrock that state machines can't call."""


@functools.cache
def find_service(name: str) -> str | None:
    """Return boto3's name of a service, from the one in a task: `bedrockruntime`. None: unknown."""
    import botocore.session

    known = botocore.session.get_session().get_available_services()
    plain = {service.replace("-", ""): service for service in known}
    return BOTO_NAMES.get(name) or plain.get(name)


def find_operation_model(service: str, action: str) -> OperationModel | None:
    """Return the model of an operation that a task calls (`invokeModel`); None: there is none."""
    model, name = load_service_model(service), action[:1].upper() + action[1:]
    if name not in model.operation_names or name in STREAMED:
        return None
    found: OperationModel = model.operation_model(name)
    return found


def exception_prefix(service: str) -> str:
    """Return the first part of the names of a service's errors: `BedrockRuntime`, `DynamoDb`."""
    identifier = str(load_service_model(service).metadata.get("serviceId", service))
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", identifier)
    return "".join(word.capitalize() for word in words)


def pascal_case(member: str) -> str:
    """Return the name of a member in state machines: `jobArn` -> `JobArn`."""
    return str(snake_to_camel_case(camel_to_snake_case(member)))


def to_boto(value: Any, shape: Shape) -> Any:
    """Return a value as boto3 takes it. Raises ValueError for a member that the API lacks."""
    kind = shape.type_name
    if is_document(shape):
        return value
    if kind == "structure" and isinstance(value, Mapping):
        names = {pascal_case(name): name for name in shape.members}
        for key in value:
            if not key[:1].isupper() or pascal_case(key) not in names:
                raise ValueError(f'The field "{key}" is not supported by Step Functions')
        known = {key: names[pascal_case(key)] for key in value}
        return {name: to_boto(value[key], shape.members[name]) for key, name in known.items()}
    if kind == "list" and isinstance(value, list):
        return [to_boto(item, shape.member) for item in value]
    if kind == "map" and isinstance(value, Mapping):
        return {key: to_boto(item, shape.value) for key, item in value.items()}
    if kind == "blob":
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        return text.encode()
    return json.dumps(value) if kind == "string" and not isinstance(value, str) else value


def from_boto(value: Any, shape: Shape | None) -> Any:
    """Return a value of boto3 as a state machine gets it."""
    if isinstance(value, StreamingBody):
        value = value.read()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        if shape is not None and shape.type_name == "structure" and not is_document(shape):
            members = shape.members
            return {pascal_case(key): from_boto(v, members.get(key)) for key, v in value.items()}
        member = shape.value if shape is not None and shape.type_name == "map" else None
        return {key: from_boto(item, member) for key, item in value.items()}
    if isinstance(value, list):
        member = shape.member if shape is not None and shape.type_name == "list" else None
        return [from_boto(item, member) for item in value]
    return value


def to_json_value(value: object) -> Any:
    """Return a value of botocore as JSON data; times become text, as AWS writes them."""

    def format_time(other: object) -> str:
        assert isinstance(other, datetime.datetime), type(other)
        return other.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")

    return json.loads(json.dumps(value, default=format_time))
