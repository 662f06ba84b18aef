"""Messages that every AWS protocol of the endpoint shares: calls, responses and errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

SERVER_HEADER = "cloudft-endpoint (not AWS)"
"""Value of the HTTP header `Server` in every response."""
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""A JSON value as orjson decodes and encodes it."""
Parameters: TypeAlias = Mapping[str, Any]
"""The input of an operation, or its result, by the API's member names.

The types of the members are those of botocore's service model. They are checked at run time, before
an operation gets its input; `Any` because no static type holds them for every operation.
"""

HTTP_HEADERS = "httpHeaders"
"""A member of a result for headers that the service model does not describe, by their names."""
Response: TypeAlias = dict[str, object]
"""Members of a response, by the API's names. Serialization leaves out those that are None."""


class ServiceError(Exception):
    """An error response of a service.

    `code` is the name of an error that the API declares; `message` is what the caller reads.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class ServiceNotOffered(ServiceError):
    """A request for a service that is neither implemented here nor by moto."""

    def __init__(self, service: str) -> None:
        message = f"The service {service} is not offered by this endpoint"
        super().__init__("UnknownOperationException", message)


@dataclass(frozen=True)
class HttpResponse:
    """An HTTP response, complete before it is sent."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class OperationCall:
    """A parsed request: the service, the operation, and its input by the API's member names."""

    service: str
    operation: str
    parameters: Parameters
