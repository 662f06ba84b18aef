"""The kinds of value that a job file's fields take, each with its rule in words.

A rule is checked here, off line, since botocore checks none of them (facts 1.3). Patterns are
those of the Bedrock API (botocore 1.44.5), except where a comment says why not.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from cloudft.spec.scalars import Plain, as_number, as_truth

READ_NUMBER = BeforeValidator(as_number)
"""Stands behind Field(ge=..., le=...) in a field that may be null: before it, the JSON Schema would
not name the bounds (pydantic 2.14)."""
Int = Annotated[int, READ_NUMBER]
Float = Annotated[float, READ_NUMBER]
Bool = Annotated[bool, BeforeValidator(as_truth)]


def bad(code: str, message: str, fix: str) -> PydanticCustomError:
    """A fault with a stable code and a remedy, for explain.py to turn into a finding."""
    # Text goes in through the context: a brace in the user's value is no template then.
    return PydanticCustomError(code, "{what}", {"what": message, "fix": fix})


def _text(pattern: str, rule: str, longest: int, example: str) -> Any:
    """The type of text that matches `pattern` whole and has `longest` characters at most."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if len(value) > longest or not compiled.fullmatch(value):
            raise bad("BadValue", f"{value[:200]!r} is not {rule}", f"write {example}, say")
        return str(value)

    schema: dict[str, Any] = {"pattern": f"^(?:{pattern})$", "maxLength": longest}
    return Annotated[str, AfterValidator(check), Field(json_schema_extra=schema)]


# The published pattern, [a-zA-Z0-9](-*[a-zA-Z0-9\+\-\.])*, backtracks exponentially in Python.
JOB_NAME = _text(
    r"[a-zA-Z0-9][a-zA-Z0-9+.\-]{0,62}",
    "1 to 63 letters, digits, '+', '-' or '.', a letter or digit first (Bedrock's jobName)",
    63,
    "ticket-router",
)
ROLE_ARN = _text(
    r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+",
    "the ARN of an IAM role",
    2048,
    "arn:aws:iam::123456789012:role/NAME",
)
MACHINE_ARN = _text(
    r"arn:aws(-[^:]+)?:states:[a-z0-9-]+:[0-9]{12}:stateMachine:[A-Za-z0-9_-]+",
    "the ARN of a state machine",
    256,
    "arn:aws:states:us-east-1:123456789012:stateMachine:NAME",
)
S3_URI = _text(
    r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](?:/[-!_*'().a-z0-9A-Z]+)*/?",
    "an S3 address that Bedrock takes: after the bucket, letters, digits and - ! _ * ' ( ) . only",
    1024,
    "s3://my-bucket/prefix",
)
KMS_KEY = _text(
    r"(arn:aws(-[^:]+)?:kms:[a-zA-Z0-9-]*:[0-9]{12}:(key/[a-zA-Z0-9-]{36}|alias/[a-zA-Z0-9/_-]+))"
    r"|([a-zA-Z0-9-]{36})|(alias/[a-zA-Z0-9/_-]+)",
    "a KMS key: its ARN, an alias ARN, its 36-character id, or alias/NAME",
    2048,
    "alias/my-key",
)
REGION = _text(r"[a-z]{2,5}(-[a-z]+)+-[0-9]{1,2}", "an AWS Region", 32, "us-east-1")
ACCOUNT = _text(r"[0-9]{12}", "an AWS account number", 12, "'123456789012'")
MODEL_NAME = _text(
    r"([0-9a-zA-Z][_-]?){1,63}",
    "1 to 63 letters and digits, with single '-' or '_' between (Bedrock's customModelName)",
    63,
    "ticket-router",
)
STACK = _text(
    r"[a-zA-Z][-a-zA-Z0-9]{0,127}",
    "the name of a CloudFormation stack: a letter, then letters, digits and hyphens",
    128,
    "cloudft",
)
URL = _text(r"https?://[^\s]+", "an http or https address", 2048, "http://127.0.0.1:4566")
VPC_ID = _text(r"[-0-9a-zA-Z]+", "the id of a subnet or security group", 32, "subnet-0a1b2c3d")
INSTANCE_TYPE = _text(
    r"ml\.[a-z0-9-]+\.[a-z0-9-]+", "a SageMaker instance type", 64, "ml.g5.2xlarge"
)
TAG_KEY = _text(
    r"[a-zA-Z0-9\s._:/=+@-]+", "1 to 128 letters, digits, spaces or . _ : / = + @ -", 128, "team"
)
TAG_VALUE = _text(
    r"[a-zA-Z0-9\s._:/=+@-]*", "0 to 256 letters, digits, spaces or . _ : / = + @ -", 256, "support"
)


def _number(value: object) -> int | float:
    value = as_number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise bad("WrongType", f"{_shown(value)} is no number", "write a number")
    if not math.isfinite(value):
        raise bad("BadValue", f"{value} is not finite", "write a finite number")
    return value


def _setting(value: object) -> int | float | str:
    """A grader's hyperparameter, whose names and ranges no table of the catalogue has."""
    value = as_number(value)
    if isinstance(value, str):
        return str(value)
    number = _number(value)
    if abs(number) > GREATEST:
        fix = f"write a number from -{GREATEST:g} to {GREATEST:g}"
        raise bad("OutOfRange", f"{number:g} is no hyperparameter's value", fix)
    return number


GREATEST = 1e9
_NUMBER_SCHEMA = {"type": "number", "minimum": -GREATEST, "maximum": GREATEST}
Number = Annotated[int | float, PlainValidator(_number), WithJsonSchema(_NUMBER_SCHEMA)]
"""A hyperparameter; checks.py holds it to the range in the model's table."""
Setting = Annotated[
    int | float | str,
    PlainValidator(_setting),
    WithJsonSchema({"anyOf": [_NUMBER_SCHEMA, {"type": "string"}]}),
]

SUPPORTED_TYPES = (
    "FINE_TUNING",
    "CONTINUED_PRE_TRAINING",
    "DISTILLATION",
    "REINFORCEMENT_FINE_TUNING",
)
TRAINED_HERE = SUPPORTED_TYPES[:2]
"""What the local trainer does."""
_OTHER_TYPES = ("IMPORTED",)


def _customization_type(value: object) -> str:
    if value in SUPPORTED_TYPES:
        return str(value)
    fix = f"write {' or '.join(SUPPORTED_TYPES)}"
    if value in _OTHER_TYPES:
        raise bad("UnsupportedCustomizationType", f"{value} is not supported", fix)
    raise bad("BadValue", f"{str(value)[:100]!r} is no customization type", fix)


CUSTOMIZATION_TYPE = Annotated[
    str,
    PlainValidator(_customization_type),
    WithJsonSchema({"type": "string", "enum": list(SUPPORTED_TYPES)}),
]


def _paths(value: object) -> tuple[str, ...]:
    """One path or a list of them. Raises for anything else, and for an empty list or path."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(i, str) for i in items):
        raise bad("WrongType", f"{_shown(value)} is no path", "write a path or a list of paths")
    if not items or not all(i.strip() for i in items):
        raise bad("BadValue", "an empty path or list of paths", "write a path or a list of paths")
    if any("\0" in i for i in items):
        raise bad("BadValue", "a path with a NUL character", "write a path")
    return tuple(str(item) for item in items)


def _validation(value: object) -> float | tuple[str, ...] | None:
    """A share of the training data, paths, or nothing."""
    if value is None:
        return None
    value = as_number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _paths(value)
    if not 0 < value < 1:
        raise bad("OutOfRange", f"the share {value} is not between 0 and 1", "write 0.1, say")
    return float(value)


def _shown(value: object) -> str:
    return repr(str(value) if isinstance(value, Plain) else value)[:200]


_PATHS_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
    ]
}
_SHARE_SCHEMA = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
_VALIDATION_SCHEMA = {"anyOf": [_SHARE_SCHEMA, *_PATHS_SCHEMA["anyOf"], {"type": "null"}]}

Paths = Annotated[tuple[str, ...], PlainValidator(_paths), WithJsonSchema(_PATHS_SCHEMA)]
Validation = Annotated[
    float | tuple[str, ...] | None,
    PlainValidator(_validation),
    WithJsonSchema(_VALIDATION_SCHEMA),
]


def _target_modules(value: object) -> str | tuple[str, ...]:
    if value == "all-linear":
        return "all-linear"
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, str) and v for v in value):
        return tuple(str(v) for v in value)
    fix = "write all-linear or a list of module names: [q_proj, v_proj]"
    raise bad("BadValue", f"{_shown(value)} names no modules", fix)


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
    if type(found) is int and 1 <= found <= MOST_PROCESSES:
        return found
    fix = f"write auto, or a number from 1 to {MOST_PROCESSES}"
    raise bad("BadValue", f"{_shown(value)} is no number of processes", fix)


MOST_PROCESSES = 1024


Processes = Annotated[
    int | str,
    PlainValidator(_processes),
    WithJsonSchema(
        {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MOST_PROCESSES}]}
    ),
]


def _fsdp(value: object) -> bool | str:
    found = as_truth(value)
    if isinstance(found, bool):
        return found
    if value == "auto":
        return "auto"
    raise bad("BadValue", f"{_shown(value)} is none of true, false, auto", "write one of these")


Fsdp = Annotated[
    bool | str,
    PlainValidator(_fsdp),
    WithJsonSchema({"enum": ["auto", True, False]}),
]
