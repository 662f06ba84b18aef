"""JSON 1.1 as AWS speaks it to SageMaker: the operation in a header, its input in the body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from cloudft.aws.shapes import service_model
from cloudft.endpoint.wire import Call, Reply, WireError, body_of, structure, to_json

TYPE = ("Content-Type", "application/x-amz-json-1.1")


class JsonWire:
    """One service: requests in, replies out."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.model = service_model(service)
        self._names = frozenset(self.model.operation_names)

    def operation(self, name: str) -> Any:
        """Botocore's model of the operation."""
        return self.model.operation_model(name)

    def parse(self, target: str, body: bytes) -> Call:
        """The call that a request is. Raises WireError."""
        name = target.rpartition(".")[2]
        if name not in self._names:
            what = f"There is no operation {name[:100]!r}"
            raise WireError("UnknownOperationException", what)
        shape = self.operation(name).input_shape
        content = structure(shape, body_of(body), "") if shape else {}
        return Call(self.service, name, content)

    def reply(self, operation: str, result: Mapping[str, Any]) -> Reply:
        """A result by the API's names, as HTTP."""
        shape = self.operation(operation).output_shape
        return Reply(200, (TYPE,), orjson.dumps(to_json(shape, result) if shape else {}))

    def error(self, error: WireError) -> Reply:
        """An error, as every one of this protocol with the status 400."""
        status = {"InternalServerException": 500, "ThrottlingException": 400}.get(error.code, 400)
        headers = (TYPE, ("x-amzn-errortype", error.code))
        body = orjson.dumps({"__type": error.code, "message": error.message})
        return Reply(status, headers, body)
