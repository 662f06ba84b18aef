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

from cloudft.aws.shapes import problems
from cloudft.endpoint import faults
from cloudft.endpoint.admin import Admin
from cloudft.endpoint.authentication import (
    BEARER,
    Caller,
    identify,
    is_presigned_object,
    unsigned_protocol,
)
from cloudft.endpoint.faults import Dropped, Faults
from cloudft.endpoint.jsonwire import JsonWire
from cloudft.endpoint.query import QueryWire, action_of
from cloudft.endpoint.signatures import Signed, verify
from cloudft.endpoint.state import State
from cloudft.endpoint.wire import Call, Reply, Wire, WireError
from cloudft.endpoint.wsgi import Environ, body_of_request, headers_of, inert, keep_body, send
from cloudft.errors import CloudftError
from cloudft.local_http_guard import Guard

Operation = Callable[[Mapping[str, Any]], dict[str, Any]]
NONE: Mapping[str, Any] = MappingProxyType({})
CHANGES = ("Delete", "Stop", "Tag", "Untag", "Update")
"""How operations begin that change the state; those that create keep it themselves."""
REMEMBERED = 20_000
"""How many calls the admin route tells of at most."""
STATUSES = {
    "ThrottlingException": 429,
    "ServiceUnavailableException": 503,
    "InternalError": 500,
}
"""Of refusals in XML; the others have 403."""
MISSING = WireError("MissingAuthenticationTokenException", "Missing Authentication Token")


def snake(name: str) -> str:
    """`GetCustomModel` -> `get_custom_model`."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


class App:
    """Takes a request to the service that its signature names."""

    def __init__(
        self,
        state: State,
        rooms: Sequence[Any],
        others: Callable[..., Any],
        orders: Faults,
        curves: Path,
        secrets: Mapping[str, str] | None = None,
        forms: Mapping[str, Any] = NONE,
        guard: Guard | None = None,
    ) -> None:
        self.wires = (Wire("bedrock"), Wire("bedrock-runtime"))
        self.json_wires = {"sagemaker": JsonWire("sagemaker")}
        self.state = state
        self.rooms = rooms
        self.others = others
        self.faults = orders
        self.curves = curves
        self.secrets = secrets
        self.forms = {service: (QueryWire(service), room) for service, room in forms.items()}
        self.calls: deque[Call] = deque(maxlen=REMEMBERED)
        self.lock = threading.Lock()
        self.guard = guard or Guard()
        self.admin = Admin(self, self.guard)

    def __call__(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        """WSGI."""
        headers, path = headers_of(environ), str(environ["PATH_INFO"])
        caller = identify(headers, str(environ.get("QUERY_STRING", "")))
        admin = self.admin.serves(environ["REQUEST_METHOD"], path, caller)
        has_token = admin and self.admin.has_token(environ, headers)
        linked = has_token or is_presigned_object(caller, path)
        why = self.guard.refusal(environ["REQUEST_METHOD"], headers, may_be_linked=linked)
        inert_start = inert(start, download=not caller.signed)
        if why is not None:
            error = WireError("AccessDeniedException", why)
            return send(self._refused(environ, caller.service, error), inert_start)
        if not admin:
            return self._serve(environ, headers, caller, inert_start)
        reply = self.admin.reply(environ, path, has_token=has_token)
        return self._moto("", environ, inert_start) if reply is None else send(reply, start)

    def _serve(
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
            refusal = self._anonymous(environ, raw_path, headers, caller)
        except WireError as error:
            return send(self._refused(environ, service, error), start)
        if refusal is not None:
            return send(refusal, start)
        if service in self.json_wires:
            return send(self._json(self.json_wires[service], environ), start)
        if service == "bedrock":
            return send(self._bedrock(environ, raw_path), start)
        return self._elsewhere(service, environ, start)

    def _anonymous(
        self, environ: Environ, raw_path: str, headers: Mapping[str, str], caller: Caller
    ) -> Reply | None:
        """Return the refusal of an anonymous request that must be signed; None for others."""
        if caller.signed or caller.presigned:
            return None
        if any(wire.has_route(environ["REQUEST_METHOD"], raw_path) for wire in self.wires):
            return self.wires[0].error(MISSING)
        body = b""
        if environ["REQUEST_METHOD"] == "POST" and raw_path == "/":
            body = keep_body(environ)
        protocol = unsigned_protocol(headers, raw_path, body)
        if protocol == "json":
            return _json_error(MISSING)
        return _plain("query", MISSING) if protocol else None

    def _refused(self, environ: Environ, service: str, error: WireError) -> Reply:
        """Return an error in the form of the service that was called."""
        if service in self.json_wires:
            return self.json_wires[service].error(error)
        if service == "bedrock":
            return self.wires[0].error(error)
        return _json_error(error) if "HTTP_X_AMZ_TARGET" in environ else _plain(service, error)

    def _json(self, wire: JsonWire, environ: Environ) -> Reply:
        def act() -> Reply:
            call = wire.parse(str(environ.get("HTTP_X_AMZ_TARGET", "")), body_of_request(environ))
            return self._told(wire, call)

        return _answered(wire, act)

    def _check_signature(self, environ: Environ, raw_path: str, service: str) -> None:
        if self.secrets is None:
            return
        headers = headers_of(environ)
        if headers.get("authorization", "").startswith(BEARER):
            what = "This endpoint was started with --credentials, and they hold no API keys"
            raise WireError("AccessDeniedException", what)
        body = keep_body(environ) if "x-amz-content-sha256" not in headers else None
        query = str(environ.get("QUERY_STRING", ""))
        signed = Signed(environ["REQUEST_METHOD"], raw_path, query, headers, body)
        verify(signed, self.secrets)

    def _elsewhere(
        self, service: str, environ: Environ, start: Callable[..., Any]
    ) -> Iterable[bytes]:
        fault = self.faults.due(f"{service}:*")
        try:
            faults.before(fault)
        except WireError as error:
            return send(self._refused(environ, service, error), start)
        if (reply := self._form(service, environ)) is not None:
            faults.after(fault)
            return send(reply, start)
        answer = self._moto(service, environ, start)
        faults.after(fault)
        return answer

    def _moto(self, service: str, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        try:
            answer: Iterable[bytes] = self.others(environ, start)
        except CloudftError as error:  # the disk of --state is full, or the like
            failed = WireError("InternalError", error.message)
            return send(self._refused(environ, service, failed), start)
        except Exception as error:  # moto lacks an operation, or fails at one
            what = f"{type(error).__name__}: {error}"
            lacking = WireError("UnknownOperationException", what)
            return send(self._refused(environ, service, lacking), start)
        return answer

    def _form(self, service: str, environ: Environ) -> Reply | None:
        """The answer to an operation of another service that is ours; None for moto's."""
        if service not in self.forms:
            return None
        wire, room = self.forms[service]
        try:
            body = keep_body(environ)
            operation = getattr(room, snake(action_of(body)), None)
            if operation is None:
                return None
            call = wire.parse(body)
            with self.lock:
                self.calls.append(call)
            fault = self.faults.due(call.operation)
            faults.before(fault)
            reply: Reply = wire.reply(call.operation, operation(call.parameters))
            faults.after(fault)
        except WireError as error:
            reply = wire.error(error)
        except Dropped:
            raise
        except Exception as error:  # a fault of ours is told, by its kind alone
            what = f"unexpected {type(error).__name__}: this is a fault of cloudft"
            reply = wire.error(WireError("InternalFailure", what))
        return reply

    def _bedrock(self, environ: Environ, raw_path: str) -> Reply:
        def act() -> Reply:
            headers, body = headers_of(environ), body_of_request(environ)
            for wire in self.wires:
                call = wire.parse(
                    environ["REQUEST_METHOD"], raw_path, environ["QUERY_STRING"], headers, body
                )
                if call is not None:
                    return _answered(wire, functools.partial(self._told, wire, call))
            raise WireError("UnknownOperationException", f"There is no operation at {raw_path}")

        return _answered(self.wires[0], act)

    def _told(self, wire: Wire | JsonWire, call: Call) -> Reply:
        return wire.reply(call.operation, self._act(wire, call))

    def _act(self, wire: Wire | JsonWire, call: Call) -> dict[str, Any]:
        with self.lock:
            self.calls.append(call)
        fault = self.faults.due(call.operation)
        faults.before(fault)
        _validate(wire.operation(call.operation).input_shape, call.parameters)
        operation = self.operation(call.operation)
        if operation is None:
            what = f"{call.operation} is not offered by this endpoint"
            raise WireError(_refusal(wire.operation(call.operation)), what)
        result = operation(call.parameters)
        if call.operation.startswith(CHANGES):
            self.state.save()
        faults.after(fault)
        return result

    def operation(self, name: str) -> Operation | None:
        """What does that operation; None where it is not offered."""
        found = (getattr(room, snake(name), None) for room in self.rooms)
        return next((operation for operation in found if operation is not None), None)


def _answered(wire: Wire | JsonWire, act: Callable[[], Reply]) -> Reply:
    """What `act` gives; what goes wrong is told in the wire's own form."""
    try:
        return act()
    except WireError as error:
        return wire.error(error)
    except Dropped:
        raise
    except CloudftError as error:  # the disk of --state is full, or the like
        return wire.error(WireError("InternalServerException", error.message))
    except Exception as error:  # a fault of ours is told, by its kind alone
        what = f"unexpected {type(error).__name__}: this is a fault of cloudft"
        return wire.error(WireError("InternalServerException", what))


def _refusal(operation: Any) -> str:
    """How an operation is refused that is not offered: by an error that it declares."""
    declared = {shape.name for shape in operation.error_shapes}
    return "ValidationException" if "ValidationException" in declared else "AccessDeniedException"


def _validate(shape: Any, parameters: Mapping[str, Any]) -> None:
    """Raise ValidationException with every broken constraint of an operation's input."""
    broken = list(problems(shape, parameters)) if shape else []
    if broken:
        plural = "s" if len(broken) > 1 else ""
        raise WireError(
            "ValidationException",
            f"{len(broken)} validation error{plural} detected: {'; '.join(broken)}",
        )


def _json_error(error: WireError) -> Reply:
    """Return an error of another service that speaks JSON 1.1."""
    headers = (("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-errortype", error.code))
    content = {"__type": error.code, "message": error.message}
    return Reply(STATUSES.get(error.code, 400), headers, orjson.dumps(content))


def _plain(service: str, error: WireError) -> Reply:
    """A refusal of another service, in the form that botocore reads from it."""
    status = STATUSES.get(error.code, 403)
    what = escape(error.message)
    if service in ("", "s3"):
        text = f"<Error><Code>{error.code}</Code><Message>{what}</Message></Error>"
        return Reply(status, (("Content-Type", "application/xml"),), text.encode())
    text = (
        f"<ErrorResponse><Error><Code>{error.code}</Code>"
        f"<Message>{what}</Message></Error></ErrorResponse>"
    )
    return Reply(status, (("Content-Type", "text/xml"),), text.encode())
