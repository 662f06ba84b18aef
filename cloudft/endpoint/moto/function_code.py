"""Read the code of a Lambda function that moto keeps: moto runs functions in Docker alone.

Found in moto 5.2.5 (`awslambda/models.py`): `lambda_backends[account][region].get_function` returns
a function with its archive as `code_bytes`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudft.aws.arn import parse_arn


@dataclass(frozen=True)
class StoredFunction:
    """A function: its archive, its handler as `MODULE.FUNCTION`, and its limits."""

    archive: bytes
    handler: str
    timeout_seconds: int
    memory_mb: int


def find_stored_function(arn: str) -> StoredFunction | None:
    """Return the function with an ARN, or None if moto has none."""
    from moto.awslambda.exceptions import UnknownFunctionException
    from moto.awslambda.models import lambda_backends

    parts = parse_arn(arn)
    backends = lambda_backends[parts.account]
    if parts.region not in backends:
        return None
    try:
        function = backends[parts.region].get_function(arn)
    except UnknownFunctionException:
        return None
    return StoredFunction(
        bytes(function.code_bytes or b""),
        str(function.handler),
        int(function.timeout),
        int(function.memory_size),
    )
