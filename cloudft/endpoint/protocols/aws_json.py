"""Parse and serialize AWS's JSON 1.1 protocol, as botocore's service model describes it.

SageMaker speaks it: the operation is in the header `X-Amz-Target`, its input is the body. Source:
smithy.io, "AWS JSON 1.1 protocol".
"""

from __future__ import annotations

import orjson

from cloudft.aws.request_validation import load_service_model
from cloudft.endpoint.protocols.json_shapes import (
    parse_json_body,
    parse_structure,
    serialize_value,
)
from cloudft.endpoint.protocols.messages import (
    HttpResponse,
    OperationCall,
    Parameters,
    ServiceError,
)
from cloudft.endpoint.protocols.service_models import OperationModel, ServiceModel

CONTENT_TYPE = ("Content-Type", "application/x-amz-json-1.1")


class AwsJsonProtocol:
    """The JSON 1.1 protocol of one service."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.model: ServiceModel = load_service_model(service)
        self._names = frozenset(self.model.operation_names)

    def operation_model(self, name: str) -> OperationModel:
        """Return botocore's model of an operation."""
        return self.model.operation_model(name)

    def parse_request(self, target: str, body: bytes) -> OperationCall:
        """Return the call that a request makes. `target` is its header `X-Amz-Target`.

        Raises ServiceError for an unknown operation and for an input that the model does not
        describe.
        """
        # `SageMaker.CreateTrainingJob`: the part before the dot is the service, which is known.
        name = target.rpartition(".")[2]
        if name not in self._names:
            message = f"There is no operation {name[:100]}"
            raise ServiceError("UnknownOperationException", message)
        shape = self.operation_model(name).input_shape
        parameters = parse_structure(shape, parse_json_body(body), "") if shape else {}
        return OperationCall(self.service, name, parameters)

    def serialize_response(self, operation: str, result: Parameters) -> HttpResponse:
        """Return the response for a result by the API's member names."""
        shape = self.operation_model(operation).output_shape
        content = serialize_value(shape, result) if shape else {}
        return HttpResponse(200, (CONTENT_TYPE,), orjson.dumps(content))

    def serialize_error(self, error: ServiceError) -> HttpResponse:
        """Return the response for an error: in this protocol, 400 for every one but a server's."""
        # SDKs retry a 500; with a 400 they look at the code.
        status = 500 if error.code == "InternalServerException" else 400
        return HttpResponse(status, *encode_json_error(error))


def encode_json_error(error: ServiceError) -> tuple[tuple[tuple[str, str], ...], bytes]:
    """Return the headers and the body of an error in this protocol."""
    headers = (CONTENT_TYPE, ("x-amzn-errortype", error.code))
    return headers, orjson.dumps({"__type": error.code, "message": error.message})
