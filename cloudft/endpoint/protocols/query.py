"""The query protocol as AWS speaks it, both ways, derived from botocore's service model.

IAM and CloudFormation have it: a form in, XML out. Only the operations that are ours come here.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from cloudft.aws.request_validation import load_service_model
from cloudft.endpoint.protocols.rest_json import HttpResponse, OperationCall, ServiceError

XML_HEADERS = (("Content-Type", "text/xml"),)
ERROR_STATUS = {"ChangeSetNotFound": 404, "NoSuchEntity": 404}
"""Errors with a status of their own; the others have 400."""


def parse_action(body: bytes) -> str:
    """The operation that a form asks for; empty for what is no form."""
    return dict(parse_qsl(body.decode("latin-1"))).get("Action", "")


class QueryProtocol:
    """One service: forms in, XML out."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.model = load_service_model(service)

    def parse_request(self, body: bytes) -> OperationCall:
        """The call that a form is. Raises WireError for an operation that the service lacks."""
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        name = form.get("Action", "")
        if name not in self.model.operation_names:
            raise ServiceError("InvalidAction", f"Could not find operation {name}")
        shape = self.model.operation_model(name).input_shape
        given = _parse_structure(shape, form, "") if shape else {}
        return OperationCall(self.service, name, given)

    def serialize_response(self, operation: str, result: Mapping[str, Any]) -> HttpResponse:
        """A result by the API's names, as XML."""
        shape = self.model.operation_model(operation).output_shape
        wrapper = shape.serialization.get("resultWrapper", "") if shape else ""
        content = _serialize_value(shape, result) if shape else ""
        content = f"<{wrapper}>{content}</{wrapper}>" if wrapper else content
        space = self.model.metadata.get("xmlNamespace", "")
        text = (
            f'<{operation}Response xmlns="{space}">{content}<ResponseMetadata><RequestId>'
            f"{uuid.uuid4()}</RequestId></ResponseMetadata></{operation}Response>"
        )
        return HttpResponse(200, XML_HEADERS, text.encode())

    def serialize_error(self, error: ServiceError) -> HttpResponse:
        """An error as XML."""
        status = ERROR_STATUS.get(error.code, 400)
        text = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{escape(error.code)}</Code>"
            f"<Message>{escape(error.message)}</Message></Error></ErrorResponse>"
        )
        return HttpResponse(status, XML_HEADERS, text.encode())


def _parse_structure(shape: Any, form: Mapping[str, str], prefix: str) -> dict[str, Any]:
    found = {}
    for name, member in shape.members.items():
        value = _parse_value(member, form, prefix + str(member.serialization.get("name", name)))
        if value is not None:
            found[name] = value
    return found


def _parse_value(shape: Any, form: Mapping[str, str], key: str) -> Any:
    if shape.type_name == "structure":
        return _parse_structure(shape, form, f"{key}.") or None
    if shape.type_name == "list":
        items: list[Any] = []
        member = f"{key}.member"
        while (item := _parse_value(shape.member, form, f"{member}.{len(items) + 1}")) is not None:
            items.append(item)
        return items or ([] if key in form else None)
    text = form.get(key)
    if text is None or shape.type_name == "string":
        return text
    try:
        return text == "true" if shape.type_name == "boolean" else int(text)
    except ValueError:
        what = f"{key} is no {shape.type_name}"
        raise ServiceError("ValidationError", what) from None


def _serialize_value(shape: Any, value: Any) -> str:
    if shape.type_name == "structure":
        return "".join(
            f"<{name}>{_serialize_value(member, value[name])}</{name}>"
            for name, member in shape.members.items()
            if value.get(name) is not None
        )
    if shape.type_name == "list":
        return "".join(f"<member>{_serialize_value(shape.member, item)}</member>" for item in value)
    if isinstance(value, datetime):
        utc = value.astimezone(timezone.utc)
        return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, bool):
        return str(value).lower()
    return escape(str(value))
