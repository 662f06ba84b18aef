"""The endpoint as one WSGI application: Bedrock is ours, all other services are moto's."""

from __future__ import annotations

import functools
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.sax.saxutils import escape

import orjson

from cloudft.aws.request_validation import constraint_violations
from cloudft.endpoint import fault_injection
from cloudft.endpoint.admin import AdminRoutes
from cloudft.endpoint.fault_injection import ConnectionDropped, FaultInjector
from cloudft.endpoint.protocols.aws_json import AwsJsonProtocol
from cloudft.endpoint.protocols.caller_identity import (
    BEARER_PREFIX,
    Caller,
    identify_caller,
    is_presigned_object,
    unsigned_protocol,
)
from cloudft.endpoint.protocols.messages import HttpResponse, OperationCall, ServiceError
from cloudft.endpoint.protocols.query import QueryProtocol, parse_action
from cloudft.endpoint.protocols.rest_json import RestJsonProtocol
from cloudft.endpoint.protocols.sigv4 import SignedRequest, verify_signature
from cloudft.endpoint.state import State
from cloudft.endpoint.wsgi import (
    Environ,
    buffer_body,
    inert_start_response,
    read_body,
    request_headers,
    send_response,
)
from cloudft.errors import CloudftError
from cloudft.web.request_guard import RequestGuard

Operation = Callable[[Mapping[str, Any]], dict[str, Any]]
NO_SERVICES: Mapping[str, Any] = MappingProxyType({})
MUTATING_PREFIXES = ("Delete", "Stop", "Tag", "Untag", "Update")
"""How operations begin that change the state; those that create keep it themselves."""
MAX_RECORDED_CALLS = 20_000
"""How many calls the admin route tells of at most."""
ERROR_STATUS = {
    "ThrottlingException": 429,
    "ServiceUnavailableException": 503,
    "InternalError": 500,
}
"""Of refusals in XML; the others have 403."""
MISSING_TOKEN = ServiceError("MissingAuthenticationTokenException", "Missing Authentication Token")


def snake_case(name: str) -> str:
    """`GetCustomModel` -> `get_custom_model`."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


class App:
    """Takes a request to the service that its signature names."""

    def __init__(
        self,
        state: State,
        services: Sequence[Any],
        moto: Callable[..., Any],
        fault_injector: FaultInjector,
        jobs_folder: Path,
        secret_keys: Mapping[str, str] | None = None,
        query_services: Mapping[str, Any] = NO_SERVICES,
        guard: RequestGuard | None = None,
    ) -> None:
        self.rest_json_protocols = (
            RestJsonProtocol("bedrock"),
            RestJsonProtocol("bedrock-runtime"),
        )
        self.aws_json_protocols = {"sagemaker": AwsJsonProtocol("sagemaker")}
        self.state = state
        self.services = services
        self.moto = moto
        self.fault_injector = fault_injector
        self.jobs_folder = jobs_folder
        self.secret_keys = secret_keys
        self.query_services = {
            service: (QueryProtocol(service), room) for service, room in query_services.items()
        }
        self.calls: deque[OperationCall] = deque(maxlen=MAX_RECORDED_CALLS)
        self.lock = threading.Lock()
        self.guard = guard or RequestGuard()
        self.admin = AdminRoutes(self, self.guard)

    def __call__(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        """WSGI."""
        headers, path = request_headers(environ), str(environ["PATH_INFO"])
        caller = identify_caller(headers, str(environ.get("QUERY_STRING", "")))
        admin = self.admin.is_admin_request(environ["REQUEST_METHOD"], path, caller)
        has_token = admin and self.admin.has_token(environ, headers)
        linked = has_token or is_presigned_object(caller, path)
        why = self.guard.refusal_reason(environ["REQUEST_METHOD"], headers, allow_navigation=linked)
        inert_start = inert_start_response(start, download=not caller.is_signed)
        if why is not None:
            error = ServiceError("AccessDeniedException", why)
            return send_response(self._error_response(environ, caller.service, error), inert_start)
        if not admin:
            return self._route(environ, headers, caller, inert_start)
        reply = self.admin.respond(environ, path, has_token=has_token)
        return (
            self._serve_from_moto("", environ, inert_start)
            if reply is None
            else send_response(reply, start)
        )

    def _route(
        self,
        environ: Environ,
        headers: Mapping[str, str],
        caller: Caller,
        start: Callable[..., Any],
    ) -> Iterable[bytes]:
        """Take an admitted request to its service."""
        raw_path = str(environ.get("REQUEST_URI") or environ["PATH_INFO"]).partition("?")[0]
        service = caller.service
        try:
            self._check_signature(environ, raw_path, service)
            refusal = self._refuse_unsigned(environ, raw_path, headers, caller)
        except ServiceError as error:
            return send_response(self._error_response(environ, service, error), start)
        if refusal is not None:
            return send_response(refusal, start)
        if service in self.aws_json_protocols:
            return send_response(
                self._serve_aws_json(self.aws_json_protocols[service], environ), start
            )
        if service == "bedrock":
            return send_response(self._serve_bedrock(environ, raw_path), start)
        return self._serve_other_service(service, environ, start)

    def _refuse_unsigned(
        self, environ: Environ, raw_path: str, headers: Mapping[str, str], caller: Caller
    ) -> HttpResponse | None:
        """Return the refusal of an anonymous request that must be signed; None for others."""
        if caller.is_signed or caller.is_presigned:
            return None
        if any(
            wire.has_route(environ["REQUEST_METHOD"], raw_path) for wire in self.rest_json_protocols
        ):
            return self.rest_json_protocols[0].serialize_error(MISSING_TOKEN)
        body = b""
        if environ["REQUEST_METHOD"] == "POST" and raw_path == "/":
            body = buffer_body(environ)
        protocol = unsigned_protocol(headers, raw_path, body)
        if protocol == "json":
            return _json_error(MISSING_TOKEN)
        return _xml_error("query", MISSING_TOKEN) if protocol else None

    def _error_response(self, environ: Environ, service: str, error: ServiceError) -> HttpResponse:
        """Return an error in the form of the service that was called."""
        if service in self.aws_json_protocols:
            return self.aws_json_protocols[service].serialize_error(error)
        if service == "bedrock":
            return self.rest_json_protocols[0].serialize_error(error)
        return _json_error(error) if "HTTP_X_AMZ_TARGET" in environ else _xml_error(service, error)

    def _serve_aws_json(self, wire: AwsJsonProtocol, environ: Environ) -> HttpResponse:
        def act() -> HttpResponse:
            call = wire.parse_request(str(environ.get("HTTP_X_AMZ_TARGET", "")), read_body(environ))
            return self._respond(wire, call)

        return _errors_as_responses(wire, act)

    def _check_signature(self, environ: Environ, raw_path: str, service: str) -> None:
        if self.secret_keys is None:
            return
        headers = request_headers(environ)
        if headers.get("authorization", "").startswith(BEARER_PREFIX):
            what = "This endpoint was started with --credentials, and they hold no API keys"
            raise ServiceError("AccessDeniedException", what)
        body = buffer_body(environ) if "x-amz-content-sha256" not in headers else None
        query = str(environ.get("QUERY_STRING", ""))
        signed = SignedRequest(environ["REQUEST_METHOD"], raw_path, query, headers, body)
        verify_signature(signed, self.secret_keys)

    def _serve_other_service(
        self, service: str, environ: Environ, start: Callable[..., Any]
    ) -> Iterable[bytes]:
        fault = self.fault_injector.take_due_fault(f"{service}:*")
        try:
            fault_injection.apply_before(fault)
        except ServiceError as error:
            return send_response(self._error_response(environ, service, error), start)
        if (reply := self._serve_query(service, environ)) is not None:
            fault_injection.apply_after(fault)
            return send_response(reply, start)
        answer = self._serve_from_moto(service, environ, start)
        fault_injection.apply_after(fault)
        return answer

    def _serve_from_moto(
        self, service: str, environ: Environ, start: Callable[..., Any]
    ) -> Iterable[bytes]:
        try:
            answer: Iterable[bytes] = self.moto(environ, start)
        except CloudftError as error:  # the disk of --state is full, or the like
            failed = ServiceError("InternalError", error.message)
            return send_response(self._error_response(environ, service, failed), start)
        except Exception as error:  # moto lacks an operation, or fails at one
            what = f"{type(error).__name__}: {error}"
            lacking = ServiceError("UnknownOperationException", what)
            return send_response(self._error_response(environ, service, lacking), start)
        return answer

    def _serve_query(self, service: str, environ: Environ) -> HttpResponse | None:
        """The answer to an operation of another service that is ours; None for moto's."""
        if service not in self.query_services:
            return None
        wire, room = self.query_services[service]
        try:
            body = buffer_body(environ)
            operation = getattr(room, snake_case(parse_action(body)), None)
            if operation is None:
                return None
            call = wire.parse_request(body)
            with self.lock:
                self.calls.append(call)
            fault = self.fault_injector.take_due_fault(call.operation)
            fault_injection.apply_before(fault)
            reply: HttpResponse = wire.serialize_response(
                call.operation, operation(call.parameters)
            )
            fault_injection.apply_after(fault)
        except ServiceError as error:
            reply = wire.serialize_error(error)
        except ConnectionDropped:
            raise
        except Exception as error:  # a fault of ours is told, by its kind alone
            what = f"unexpected {type(error).__name__}: this is a fault of cloudft"
            reply = wire.serialize_error(ServiceError("InternalFailure", what))
        return reply

    def _serve_bedrock(self, environ: Environ, raw_path: str) -> HttpResponse:
        def act() -> HttpResponse:
            headers, body = request_headers(environ), read_body(environ)
            for wire in self.rest_json_protocols:
                call = wire.parse_request(
                    environ["REQUEST_METHOD"], raw_path, environ["QUERY_STRING"], headers, body
                )
                if call is not None:
                    return _errors_as_responses(wire, functools.partial(self._respond, wire, call))
            raise ServiceError("UnknownOperationException", f"There is no operation at {raw_path}")

        return _errors_as_responses(self.rest_json_protocols[0], act)

    def _respond(
        self, wire: RestJsonProtocol | AwsJsonProtocol, call: OperationCall
    ) -> HttpResponse:
        return wire.serialize_response(call.operation, self._perform(wire, call))

    def _perform(
        self, wire: RestJsonProtocol | AwsJsonProtocol, call: OperationCall
    ) -> dict[str, Any]:
        with self.lock:
            self.calls.append(call)
        fault = self.fault_injector.take_due_fault(call.operation)
        fault_injection.apply_before(fault)
        _validate(wire.operation_model(call.operation).input_shape, call.parameters)
        operation = self.find_operation(call.operation)
        if operation is None:
            what = f"{call.operation} is not offered by this endpoint"
            raise ServiceError(_not_offered_code(wire.operation_model(call.operation)), what)
        result = operation(call.parameters)
        if call.operation.startswith(MUTATING_PREFIXES):
            self.state.save()
        fault_injection.apply_after(fault)
        return result

    def find_operation(self, name: str) -> Operation | None:
        """What does that operation; None where it is not offered."""
        found = (getattr(room, snake_case(name), None) for room in self.services)
        return next((operation for operation in found if operation is not None), None)


def _errors_as_responses(
    wire: RestJsonProtocol | AwsJsonProtocol, act: Callable[[], HttpResponse]
) -> HttpResponse:
    """What `act` gives; what goes wrong is told in the wire's own form."""
    try:
        return act()
    except ServiceError as error:
        return wire.serialize_error(error)
    except ConnectionDropped:
        raise
    except CloudftError as error:  # the disk of --state is full, or the like
        return wire.serialize_error(ServiceError("InternalServerException", error.message))
    except Exception as error:  # a fault of ours is told, by its kind alone
        what = f"unexpected {type(error).__name__}: this is a fault of cloudft"
        return wire.serialize_error(ServiceError("InternalServerException", what))


def _not_offered_code(operation: Any) -> str:
    """How an operation is refused that is not offered: by an error that it declares."""
    declared = {shape.name for shape in operation.error_shapes}
    return "ValidationException" if "ValidationException" in declared else "AccessDeniedException"


def _validate(shape: Any, parameters: Mapping[str, Any]) -> None:
    """Raise ValidationException with every broken constraint of an operation's input."""
    broken = list(constraint_violations(shape, parameters)) if shape else []
    if broken:
        plural = "s" if len(broken) > 1 else ""
        raise ServiceError(
            "ValidationException",
            f"{len(broken)} validation error{plural} detected: {'; '.join(broken)}",
        )


def _json_error(error: ServiceError) -> HttpResponse:
    """Return an error of another service that speaks JSON 1.1."""
    headers = (("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-errortype", error.code))
    content = {"__type": error.code, "message": error.message}
    return HttpResponse(ERROR_STATUS.get(error.code, 400), headers, orjson.dumps(content))


def _xml_error(service: str, error: ServiceError) -> HttpResponse:
    """A refusal of another service, in the form that botocore reads from it."""
    status = ERROR_STATUS.get(error.code, 403)
    what = escape(error.message)
    if service in ("", "s3"):
        text = f"<Error><Code>{error.code}</Code><Message>{what}</Message></Error>"
        return HttpResponse(status, (("Content-Type", "application/xml"),), text.encode())
    text = (
        f"<ErrorResponse><Error><Code>{error.code}</Code>"
        f"<Message>{what}</Message></Error></ErrorResponse>"
    )
    return HttpResponse(status, (("Content-Type", "text/xml"),), text.encode())
