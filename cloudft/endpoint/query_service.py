"""Services of the query protocol of which operations are implemented here: CloudFormation, IAM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloudft.endpoint.operations import find_operation, validate_input
from cloudft.endpoint.protocols.messages import (
    HttpResponse,
    OperationCall,
    Parameters,
    ServiceError,
)
from cloudft.endpoint.protocols.query import QueryProtocol, parse_action

VALIDATION_ERROR = "ValidationError"
"""Code of a request that is not valid, common to the services of this protocol."""


@dataclass(frozen=True)
class QueryCall:
    """A parsed call, and the method that performs it."""

    call: OperationCall
    operation: Callable[[Parameters], Parameters]


class QueryService:
    """Objects whose methods are operations of one service, named in snake case.

    Moto answers the operations that none of them has, unless the service `is_complete`: moto knows
    nothing of the resources that live here, so its answers would be about others.
    """

    def __init__(
        self, service: str, implementations: Sequence[object], *, is_complete: bool
    ) -> None:
        self.service = service
        self._protocol = QueryProtocol(service)
        self._implementations = implementations
        self._is_complete = is_complete

    def parse_request(self, form: bytes) -> QueryCall | None:
        """Return the call of a form; None for one that moto answers.

        Raises ServiceError for a call that is not valid, or that nobody answers.
        """
        name = parse_action(form)
        operation = find_operation(self._implementations, name)
        if operation is None and not self._is_complete:
            return None
        call = self._protocol.parse_request(form)
        if operation is None:
            message = f"{name} is not offered by this endpoint"
            raise ServiceError(VALIDATION_ERROR, message)
        shape = self._protocol.model.operation_model(name).input_shape
        validate_input(shape, call.parameters, VALIDATION_ERROR)
        return QueryCall(call, operation)

    def serialize_response(self, operation: str, result: Parameters) -> HttpResponse:
        """Return the response for a result by the API's member names."""
        return self._protocol.serialize_response(operation, result)

    def serialize_error(self, error: ServiceError) -> HttpResponse:
        """Return the response for an error."""
        return self._protocol.serialize_error(error)
