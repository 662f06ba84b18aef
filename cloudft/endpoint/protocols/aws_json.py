"""JSON 1.1 as AWS speaks it to SageMaker: the operation in a header, its input in the body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from cloudft.aws.request_validation import load_service_model
from cloudft.endpoint.protocols.rest_json import (
    HttpResponse,
    OperationCall,
    ServiceError,
    parse_json_body,
    parse_structure,
    serialize_value,
)

CONTENT_TYPE = ("Content-Type", "application/x-amz-json-1.1")


class AwsJsonProtocol:
    """One service: requests in, replies out."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.model = load_service_model(service)
        self._names = frozenset(self.model.operation_names)

    def operation_model(self, name: str) -> Any:
        """Botocore's model of the operation."""
        return self.model.operation_model(name)

    def parse_request(self, target: str, body: bytes) -> OperationCall:
        """The call that a request is. Raises WireError."""
        name = target.rpartition(".")[2]
        if name not in self._names:
            what = f"There is no operation {name[:100]!r}"
            raise ServiceError("UnknownOperationException", what)
        shape = self.operation_model(name).input_shape
        content = parse_structure(shape, parse_json_body(body), "") if shape else {}
        return OperationCall(self.service, name, content)

    def serialize_response(self, operation: str, result: Mapping[str, Any]) -> HttpResponse:
        """A result by the API's names, as HTTP."""
        shape = self.operation_model(operation).output_shape
        return HttpResponse(
            200, (CONTENT_TYPE,), orjson.dumps(serialize_value(shape, result) if shape else {})
        )

    def serialize_error(self, error: ServiceError) -> HttpResponse:
        """An error, as every one of this protocol with the status 400."""
        status = {"InternalServerException": 500, "ThrottlingException": 400}.get(error.code, 400)
        headers = (CONTENT_TYPE, ("x-amzn-errortype", error.code))
        body = orjson.dumps({"__type": error.code, "message": error.message})
        return HttpResponse(status, headers, body)
