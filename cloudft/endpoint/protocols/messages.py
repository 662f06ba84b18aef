"""Messages that every AWS protocol of the endpoint shares: calls, responses and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

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


class ConnectionDropped(Exception):
    """The connection is to be closed without a response, or without the rest of one."""


Part = TypeVar("Part")


class ResponseStream(Generic[Part]):
    """The parts of a response, as they are made. Closing ends what makes them, begun or not.

    A generator alone would not do: one that was never begun runs nothing when it is closed.
    """

    def __init__(self, parts: Iterator[Part], close: Callable[[], object]) -> None:
        self._parts = parts
        self._close = close

    def __iter__(self) -> Iterator[Part]:
        """Return itself."""
        return self

    def __next__(self) -> Part:
        """Return the next part."""
        return next(self._parts)

    def close(self) -> None:
        """End what makes the parts."""
        self._close()


@dataclass(frozen=True)
class HttpResponse:
    """An HTTP response. The parts of a body that is a stream are sent as they are made."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes | ResponseStream[bytes]


@dataclass(frozen=True)
class OperationCall:
    """A parsed request: the service, the operation, and its input by the API's member names."""

    service: str
    operation: str
    parameters: Parameters
