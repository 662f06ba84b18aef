"""Parse and serialize AWS's query protocol, as botocore's service model describes it.

IAM and CloudFormation speak it: a form comes in, XML goes out. Only operations that the endpoint
implements itself are parsed here; moto parses the others. Source: smithy.io, "AWS query protocol".
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from cloudft.aws.request_validation import load_service_model
from cloudft.endpoint.protocols.json_shapes import format_timestamp
from cloudft.endpoint.protocols.messages import (
    HttpResponse,
    OperationCall,
    Parameters,
    ServiceError,
)
from cloudft.endpoint.protocols.service_models import ServiceModel, Shape

ERROR_STATUS = {"ChangeSetNotFound": 404, "NoSuchEntity": 404}
"""HTTP status of errors; the others have 400."""


def parse_action(body: bytes) -> str:
    """Return the operation that a form names; an empty string if the body is no such form."""
    # Latin-1 decodes any bytes: the body may be that of another protocol.
    return dict(parse_qsl(body.decode("latin-1"))).get("Action", "")


class QueryProtocol:
    """The query protocol of one service."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.model: ServiceModel = load_service_model(service)

    def parse_request(self, body: bytes) -> OperationCall:
        """Return the call that a form makes.

        Raises ServiceError for an operation that the service lacks and for a value of another type.
        """
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        name = form.get("Action", "")
        if not name:
            raise ServiceError("MissingAction", "The request must contain the parameter Action")
        if name not in self.model.operation_names:
            raise ServiceError("InvalidAction", f"Could not find operation {name}")
        shape = self.model.operation_model(name).input_shape
        parameters = _parse_structure(shape, form, "") if shape else {}
        return OperationCall(self.service, name, parameters)

    def serialize_response(self, operation: str, result: Parameters) -> HttpResponse:
        """Return the response for a result by the API's member names, as XML."""
        shape = self.model.operation_model(operation).output_shape
        # The result is inside `<CreateStackResult>`, for example, which the model names.
        wrapper = shape.serialization.get("resultWrapper", "") if shape else ""
        content = _serialize_value(shape, result) if shape else ""
        content = f"<{wrapper}>{content}</{wrapper}>" if wrapper else content
        namespace, identifier = self.model.metadata.get("xmlNamespace", ""), str(uuid.uuid4())
        text = (
            f'<{operation}Response xmlns="{namespace}">{content}<ResponseMetadata><RequestId>'
            f"{identifier}</RequestId></ResponseMetadata></{operation}Response>"
        )
        return HttpResponse(200, xml_headers(identifier), text.encode())

    def serialize_error(self, error: ServiceError) -> HttpResponse:
        """Return the response for an error, as XML."""
        return serialize_query_error(error, ERROR_STATUS.get(error.code, 400))


def xml_headers(request_id: str) -> tuple[tuple[str, str], ...]:
    """Return the headers of a response in XML. Its body has the same request id."""
    return ("Content-Type", "text/xml"), ("x-amzn-RequestId", request_id)


def serialize_query_error(error: ServiceError, status: int) -> HttpResponse:
    """Return the response for an error in this protocol, whatever the service."""
    identifier = str(uuid.uuid4())
    kind = "Sender" if status < 500 else "Receiver"
    text = (
        f"<ErrorResponse><Error><Type>{kind}</Type><Code>{escape(error.code)}</Code>"
        f"<Message>{escape(error.message)}</Message></Error>"
        f"<RequestId>{identifier}</RequestId></ErrorResponse>"
    )
    return HttpResponse(status, xml_headers(identifier), text.encode())


def _parse_structure(shape: Shape, form: Mapping[str, str], prefix: str) -> dict[str, object]:
    parsed = {}
    for name, member in shape.members.items():
        value = _parse_value(member, form, prefix + member.serialization.get("name", name))
        if value is not None:
            parsed[name] = value
    return parsed


def _parse_value(shape: Shape, form: Mapping[str, str], key: str) -> object:
    """Return the value below a key of the form; None if the form has none.

    A form is flat: `Tags.member.1.Key=team` is the member `Key` of the first item of `Tags`.
    """
    if shape.type_name == "structure":
        # Empty means that no key begins with this one: this ends a list of structures, too.
        return _parse_structure(shape, form, f"{key}.") or None
    if shape.type_name == "list":
        items: list[object] = []
        # Items are numbered from 1 without a gap.
        member = f"{key}.member"
        while (item := _parse_value(shape.member, form, f"{member}.{len(items) + 1}")) is not None:
            items.append(item)
        # An empty list is sent as its bare key with an empty value.
        return items or ([] if key in form else None)
    text = form.get(key)
    if text is None or shape.type_name == "string":
        return text
    try:
        return text == "true" if shape.type_name == "boolean" else int(text)
    except ValueError:
        message = f"Value at '{key}' is not of type {shape.type_name}"
        raise ServiceError("ValidationError", message) from None


def _serialize_value(shape: Shape, value: Any) -> str:
    if shape.type_name == "structure":
        return "".join(
            f"<{name}>{_serialize_value(member, value[name])}</{name}>"
            for name, member in shape.members.items()
            if value.get(name) is not None
        )
    if shape.type_name == "list":
        return "".join(f"<member>{_serialize_value(shape.member, item)}</member>" for item in value)
    if isinstance(value, datetime):
        return format_timestamp(value)
    if isinstance(value, bool):
        return str(value).lower()
    return escape(str(value))
