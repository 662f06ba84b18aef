"""Field types of the job file, each with its rule in words.

The rules are checked here, offline, since botocore checks none of them (facts 1.3). Patterns are
those of the Bedrock API (botocore 1.44.5), except where a comment says why not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError, PydanticKnownError

from cloudft.catalogue.customization_types import CUSTOMIZATION_TYPES
from cloudft.catalogue.profile_ids import APPLICATION, AREAS, IN_REGION, SYSTEM
from cloudft.catalogue.serverless import GUIDE, SERVICE, TECHNIQUES, TRAINERS
from cloudft.spec.yaml_scalars import UntypedScalar, as_bool, as_number

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue

Key = TypeVar("Key")
READ_NUMBER = BeforeValidator(as_number)
"""Goes after Field(ge=..., le=...) in a field that may be null: before it, the JSON Schema would
not name the bounds (pydantic 2.14)."""
Int = Annotated[int, READ_NUMBER]
Float = Annotated[float, READ_NUMBER]
Bool = Annotated[bool, BeforeValidator(as_bool)]


def field_error(code: str, message: str, fix: str) -> PydanticCustomError:
    """Return an error with a stable code and a remedy, for validation_errors.py."""
    # Text goes in through the context: a brace in the user's value is no template then.
    return PydanticCustomError(code, "{what}", {"what": message, "fix": fix})


def _text(
    pattern: str,
    rule: str,
    max_length: int,
    example: str,
    check_more: Callable[[str], str] = lambda value: value,
) -> Any:
    """Return the type of text that matches all of `pattern` and has up to `max_length` characters.

    `check_more` raises `field_error` for what the pattern can't express.
    """

    # Compiled when it is first used (re keeps it): a job file has few of the fields, and compiling
    # all patterns takes longer than reading it.
    def check(value: str) -> str:
        if len(value) > max_length or not re.fullmatch(pattern, value):
            raise field_error(
                "BadValue", f"{value[:200]!r} is not {rule}", f"for example {example}"
            )
        return check_more(str(value))

    schema: JsonSchemaValue = {"pattern": f"^(?:{pattern})$", "maxLength": max_length}
    return Annotated[str, AfterValidator(check), Field(json_schema_extra=schema)]


# The published pattern, [a-zA-Z0-9](-*[a-zA-Z0-9\+\-\.])*, backtracks exponentially in Python.
JOB_NAME = _text(
    r"[a-zA-Z0-9][a-zA-Z0-9+.\-]{0,62}",
    "1 to 63 letters, digits, '+', '-' or '.', a letter or digit first (Bedrock's jobName)",
    63,
    "ticket-router",
)
# The published pattern accepts a role without an account, and any character in its name.
ROLE_ARN = _text(
    r"arn:aws(-[^:]+)?:iam::[0-9]{12}:role/([!-.0-~]+/)*[a-zA-Z0-9_+=,.@-]{1,64}",
    "the ARN of an IAM role",
    2048,
    "arn:aws:iam::123456789012:role/NAME",
)
STATE_MACHINE_ARN = _text(
    r"arn:aws(-[^:]+)?:states:[a-z0-9-]+:[0-9]{12}:stateMachine:[A-Za-z0-9_-]+",
    "the ARN of a state machine",
    256,
    "arn:aws:states:us-east-1:123456789012:stateMachine:NAME",
)
_BUCKET = (
    r"(?!xn--|sthree-|amzn-s3-demo-)(?!\d+\.\d+\.\d+\.\d+(?:/|$))"
    r"[a-z0-9](?:[-a-z0-9]|\.(?!\.)){1,61}[a-z0-9]"
)
"""S3 user guide, "General purpose bucket naming rules": no two dots in a row, no IP address."""
S3_URI = _text(
    rf"s3://{_BUCKET}(?:/[-!_*'().a-z0-9A-Z]+)*/?",
    "an S3 URI that Bedrock takes: after the bucket, letters, digits and - ! _ * ' ( ) . only",
    1024,
    "s3://my-bucket/prefix",
)
_KEY_ID = "(?:mrk-[0-9a-f]{32}|[0-9a-f][0-9a-f-]{34}[0-9a-f])"
_ALIAS = "alias/[a-zA-Z0-9/_-]+"
# The published pattern accepts any 36 letters and hyphens for a key's id, and no Region.
KMS_KEY = _text(
    rf"arn:aws(-[^:]+)?:kms:[a-z0-9-]+:[0-9]{{12}}:(key/{_KEY_ID}|{_ALIAS})|{_KEY_ID}|{_ALIAS}",
    "a KMS key: its ARN, an alias ARN, its 36-character id, or alias/NAME",
    2048,
    "alias/my-key",
)
DATE = _text(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", "a date", 10, "2026-11-29")
REGION = _text(r"[a-z]{2,5}(-[a-z]+)+-[0-9]{1,2}", "an AWS Region", 32, "us-east-1")
ACCOUNT = _text(r"[0-9]{12}", "an AWS account number", 12, "'123456789012'")
MODEL_NAME = _text(
    r"([0-9a-zA-Z][_-]?){1,63}",
    "1 to 63 letters and digits, with single '-' or '_' between (Bedrock's customModelName)",
    63,
    "ticket-router",
)
# SageMaker's published patterns for hub contents and groups backtrack exponentially in Python.
HUB_CONTENT = _text(
    r"[a-zA-Z0-9][a-zA-Z0-9-]{0,62}",
    "the name of a model in SageMaker's hub: letters, digits and hyphens",
    63,
    "huggingface-reasoning-qwen3-8b",
)
MODEL_PACKAGE_GROUP = _text(
    r"[a-zA-Z0-9][a-zA-Z0-9-]{0,62}"
    r"|arn:aws[a-z-]*:sagemaker:[a-z0-9-]{9,16}:[0-9]{12}:model-package-group/[!-~]{1,2048}",
    "the name or the ARN of a model package group",
    2048,
    "ticket-models",
)
SEQUENCE_LENGTH = _text(
    r"[1-9][0-9]{0,3}K", "a length in thousands of tokens (1K to 1024K)", 5, "8K"
)
MLFLOW_ARN = _text(
    r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:[0-9]{12}:mlflow-[a-zA-Z-]+/[!-~]+",
    "the ARN of an MLflow app or tracking server",
    2048,
    "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app-ABC",
)
# The id is that of botocore's InferenceProfileId, which allows any such text, in Bedrock's form.
_PROFILE = (
    rf"{IN_REGION}|{'|'.join(AREAS)}|({'|'.join(AREAS)})\.[a-z0-9-]+\.[A-Za-z0-9.:-]+"
    rf"|arn:aws[a-z-]*:bedrock:[a-z0-9-]+:[0-9]{{12}}:({SYSTEM}|{APPLICATION})/[A-Za-z0-9.:-]+"
)
INFERENCE_PROFILE = _text(
    _PROFILE,
    f"{IN_REGION}, an area ({', '.join(AREAS)}), or the id or ARN of an inference profile",
    2048,
    "us, or us.amazon.nova-2-lite-v1:0",
)


def is_inference_profile(text: str) -> bool:
    """Return whether a text names an inference profile, as the job file takes it."""
    return len(text) <= 2048 and re.fullmatch(_PROFILE, text) is not None


STACK_NAME = _text(
    r"[a-zA-Z][-a-zA-Z0-9]{0,127}",
    "the name of a CloudFormation stack: a letter, then letters, digits and hyphens",
    128,
    "cloudft",
)


def _check_port(address: str) -> str:
    port = re.match(r"https?://[^/]*:([0-9]+)(/|$)", address)
    if port and int(port[1]) > 65535:
        raise field_error(
            "OutOfRange", f"the port {port[1]} is above 65535", "give a port up to 65535"
        )
    return address


# What botocore takes for an endpoint: a host without spaces, and perhaps a port.
URL = _text(
    r"https?://(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9]([a-zA-Z0-9_.-]*[a-zA-Z0-9])?)(:[0-9]{1,5})?(/[^\s]*)?",
    "an http or https address",
    2048,
    "http://127.0.0.1:4566",
    _check_port,
)
# The published pattern is [-0-9a-zA-Z]+ for both, which would accept swapped lists.
SUBNET_ID = _text(
    r"(?!sg-|vpc-|eni-|rtb-)[-0-9a-zA-Z]+", "the id of a subnet", 32, "subnet-0a1b2c3d"
)
GROUP_ID = _text(
    r"(?!subnet-|vpc-|eni-|rtb-)[-0-9a-zA-Z]+", "the id of a security group", 32, "sg-0a1b2c3d"
)
IMAGE_URI = _text(r"[^\s]+", "the address of a container image", 255, "REGISTRY/NAME:TAG")
INSTANCE_TYPE = _text(
    r"ml\.[a-z0-9-]+\.[a-z0-9-]+", "a SageMaker instance type", 64, "ml.g5.2xlarge"
)
_TAGGED = "letters, digits, spaces or . _ : / = + @ -, no space first or last"
TAG_VALUE = _text(r"((?! )[a-zA-Z0-9 ._:/=+@-]+(?<! ))?", f"0 to 256 {_TAGGED}", 256, "support")
RESERVED_TAG_PREFIXES = ("aws:", "cloudft:")
"""Prefixes of tag keys, in any case: AWS refuses its own ("Tag naming limits and requirements",
Tagging AWS resources user guide); by the others cloudft finds what it has created."""
MAX_TAGS = 46
"""AWS allows 50 tags of a user on a resource; cloudft sets up to four of its own."""


def _check_not_reserved(key: str) -> str:
    for start in RESERVED_TAG_PREFIXES:
        if key.lower().startswith(start):
            whose = "AWS" if start == "aws:" else "cloudft"
            fix = f"rename the tag: {key[len(start) :] or 'team'}"
            raise field_error("ReservedTag", f"{key[:100]!r} is a prefix reserved by {whose}", fix)
    return key


TAG_KEY = _text(
    r"(?! )[a-zA-Z0-9 ._:/=+@-]+(?<! )", f"1 to 128 {_TAGGED}", 128, "team", _check_not_reserved
)


def check_tag_count(tags: dict[str, str]) -> dict[str, str]:
    """Raise field_error for more tags than AWS allows."""
    if len(tags) > MAX_TAGS:
        what = f"{len(tags)} tags: AWS allows 50 on a resource, cloudft's own among them"
        raise field_error("TooManyTags", what, f"keep {MAX_TAGS} or fewer")
    return tags


def check_unique(values: tuple[str, ...]) -> tuple[str, ...]:
    """Raise field_error for a list with a repeated value."""
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise field_error("BadValue", f"{twice[:100]!r} is in the list twice", "remove one of them")
    return values


def check_unique_columns(columns: dict[Key, str]) -> dict[Key, str]:
    """Raise field_error if two names are mapped to one column."""
    check_unique(tuple(columns.values()))
    return columns


def _number(value: object) -> int | float:
    value = as_number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise field_error("WrongType", f"{_display(value)} is not a number", "write a number")
    if not math.isfinite(value):
        raise field_error("BadValue", f"{value} is not finite", "write a finite number")
    return value


def _setting(value: object) -> int | float | str:
    """Return a grader's hyperparameter, whose names and ranges are not in the catalogue."""
    value = as_number(value)
    if isinstance(value, str):
        return str(value)
    number = _number(value)
    if abs(number) > MAX_NUMBER:
        fix = f"write a number from -{MAX_NUMBER:g} to {MAX_NUMBER:g}"
        raise field_error("OutOfRange", f"{number:g} is not a hyperparameter's value", fix)
    return number


MAX_NUMBER = 1e9
_NUMBER_SCHEMA = {"type": "number", "minimum": -MAX_NUMBER, "maximum": MAX_NUMBER}
Number = Annotated[int | float, PlainValidator(_number), WithJsonSchema(_NUMBER_SCHEMA)]
"""A hyperparameter; checks.py compares it with the range in the model's table."""
GraderSetting = Annotated[
    int | float | str,
    PlainValidator(_setting),
    WithJsonSchema({"anyOf": [_NUMBER_SCHEMA, {"type": "string"}]}),
]


def _scalar(value: object) -> int | float | str | bool:
    """Return a value that a parameter of a sweep may have; the field itself decides later."""
    value = as_bool(as_number(value))
    return value if isinstance(value, bool) else _setting(value)


Scalar = Annotated[
    int | float | str | bool,
    PlainValidator(_scalar),
    WithJsonSchema({"anyOf": [_NUMBER_SCHEMA, {"type": "string"}, {"type": "boolean"}]}),
]

_OTHER_TYPES = ("IMPORTED",)
"""Values of Bedrock's enum that no job can have."""
_TECHNIQUES = {
    name: row.name for row in CUSTOMIZATION_TYPES.values() for name in row.sagemaker_techniques
}
"""Technique of SageMaker's serverless customization -> the type that is the same."""


def _customization_type(value: object) -> str:
    if value in CUSTOMIZATION_TYPES:
        return str(value)
    fix = f"write {' or '.join(CUSTOMIZATION_TYPES)}"
    if value in _OTHER_TYPES:
        raise field_error("UnsupportedCustomizationType", f"{value} is not supported", fix)
    if value in TECHNIQUES:
        same = _TECHNIQUES.get(str(value))
        message = f"{value} is a technique of {SERVICE}, no customization type"
        use = f"use {TRAINERS[str(value)]} of `pip install sagemaker` ({GUIDE})"
        fix = f"write {same}, or {use}" if same else f"{use}; cloudft trains {fix[6:]}"
        raise field_error("BadValue", message, fix)
    raise field_error("BadValue", f"{str(value)[:100]!r} is not a customization type", fix)


class _CustomizationTypeSchema:
    """Write the JSON Schema's enum from the table as it is when the schema is made."""

    def __get_pydantic_json_schema__(self, *_: object) -> dict[str, Any]:
        return {"type": "string", "enum": list(CUSTOMIZATION_TYPES)}


CUSTOMIZATION_TYPE = Annotated[
    str,
    PlainValidator(_customization_type),
    _CustomizationTypeSchema(),
]


_S3_DATA = re.compile(r"s3://[a-zA-Z0-9][a-zA-Z0-9._-]{2,254}(?:/.*)?", re.DOTALL)
"""Old buckets of us-east-1 may have names that new ones can't have."""


MISSING = object()
"""Stands for a key that is not there and must be: validation reports it as missing."""


def _paths(value: object) -> tuple[str, ...]:
    """Return the paths of one or a list. Raises for anything else, and for empty ones."""
    if value is MISSING:
        raise PydanticKnownError("missing")
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(i, str) for i in items):
        raise field_error(
            "WrongType", f"{_display(value)} is not a path", "write a path or a list of paths"
        )
    if not items or not all(i.strip() for i in items):
        raise field_error(
            "BadValue", "an empty path or list of paths", "write a path or a list of paths"
        )
    if any("\0" in i for i in items):
        raise field_error("BadValue", "a path with a NUL character", "write a path")
    for item in items:
        if re.match("s3:", item, re.IGNORECASE) and not _S3_DATA.fullmatch(item):
            what = f"{item[:200]!r} is not an S3 URI"
            raise field_error(
                "BadValue", what, "write s3://BUCKET/KEY, a prefix, or a glob of keys"
            )
    return tuple(str(item) for item in items)


_SET_NAME = "[a-z0-9][a-z0-9_-]{0,31}"
"""The name is part of a file's name in S3, and of a SageMaker channel's (64 characters at most)."""
MAX_VALIDATION_SETS = 10
"""Most validators of a job. Source: botocore 1.44.5, `Validators` of bedrock."""


def _validation_sets(sets: Mapping[object, object]) -> dict[str, tuple[str, ...]]:
    """Return the paths of each named set, in the order of the names."""
    names = [str(name) for name in sets]
    for name in names:
        if not re.fullmatch(_SET_NAME, name):
            fix = "write 1 to 32 lower-case letters, digits, '-' or '_', a letter or digit first"
            raise field_error("BadValue", f"{name[:100]!r} is no name of a validation set", fix)
    if not 1 <= len(names) <= MAX_VALIDATION_SETS:
        fix = f"name 1 to {MAX_VALIDATION_SETS} sets: {{german: de.jsonl, english: en.jsonl}}"
        raise field_error("BadValue", f"{len(names)} validation sets", fix)
    # By name, so that the same sets in another order are the same job.
    return {str(name): _paths(sets[name]) for name in sorted(sets, key=str)}


def _validation(value: object) -> float | tuple[str, ...] | dict[str, tuple[str, ...]] | None:
    """Return a share of the training data, paths, the paths of each named set, or None."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return _validation_sets(value)
    value = as_number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _paths(value)
    if not 0 < value < 1:
        raise field_error(
            "OutOfRange", f"the share {value} is not between 0 and 1", "write 0.1, say"
        )
    return float(value)


def _display(value: object) -> str:
    return repr(str(value) if isinstance(value, UntypedScalar) else value)[:200]


_PATHS_SCHEMA: JsonSchemaValue = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
    ]
}
_SHARE_SCHEMA = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
_SETS_SCHEMA = {
    "type": "object",
    "additionalProperties": _PATHS_SCHEMA,
    "propertyNames": {"pattern": f"^{_SET_NAME}$"},
    "minProperties": 1,
    "maxProperties": MAX_VALIDATION_SETS,
}
_VALIDATION_SCHEMA = {
    "anyOf": [_SHARE_SCHEMA, *_PATHS_SCHEMA["anyOf"], _SETS_SCHEMA, {"type": "null"}]
}

Paths = Annotated[tuple[str, ...], PlainValidator(_paths), WithJsonSchema(_PATHS_SCHEMA)]
Validation = Annotated[
    float | tuple[str, ...] | dict[str, tuple[str, ...]] | None,
    PlainValidator(_validation),
    WithJsonSchema(_VALIDATION_SCHEMA),
]


def _target_modules(value: object) -> str | tuple[str, ...]:
    if value == "all-linear":
        return "all-linear"
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, str) and v for v in value):
        return tuple(str(v) for v in value)
    fix = "write all-linear or a list of module names: [q_proj, v_proj]"
    raise field_error("BadValue", f"{_display(value)} is not a list of modules", fix)


TargetModules = Annotated[
    str | tuple[str, ...],
    PlainValidator(_target_modules),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "all-linear"},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
            ]
        }
    ),
]


def _processes(value: object) -> int | str:
    found = as_number(value)
    if found == "auto":
        return "auto"
    if type(found) is int and 1 <= found <= MAX_PROCESSES:
        return found
    fix = f"write auto, or a number from 1 to {MAX_PROCESSES}"
    raise field_error("BadValue", f"{_display(value)} is not a number of processes", fix)


MAX_PROCESSES = 1024


Processes = Annotated[
    int | str,
    PlainValidator(_processes),
    WithJsonSchema(
        {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MAX_PROCESSES}]}
    ),
]


def _auto_or_bool(value: object) -> bool | str:
    found = as_bool(value)
    if isinstance(found, bool):
        return found
    if value == "auto":
        return "auto"
    raise field_error(
        "BadValue", f"{_display(value)} is none of true, false, auto", "write one of these"
    )


AutoOrBool = Annotated[
    bool | str,
    PlainValidator(_auto_or_bool),
    WithJsonSchema({"enum": ["auto", True, False]}),
]
