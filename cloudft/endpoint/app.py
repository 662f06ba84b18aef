"""The endpoint as one WSGI application: Bedrock is ours, all other services are moto's."""

from __future__ import annotations

import functools
import io
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson

from cloudft.aws.shapes import problems
from cloudft.endpoint import faults, front
from cloudft.endpoint.faults import Dropped, Faults
from cloudft.endpoint.jsonwire import JsonWire
from cloudft.endpoint.query import QueryWire, action_of
from cloudft.endpoint.signatures import Signed, verify
from cloudft.endpoint.state import ACCOUNT, State
from cloudft.endpoint.wire import SERVER, Call, Reply, Wire, WireError
from cloudft.errors import CloudftError

Operation = Callable[[Mapping[str, Any]], dict[str, Any]]
Environ = dict[str, Any]
NONE: Mapping[str, Any] = MappingProxyType({})
SCOPE = re.compile(r"Credential=[^/]+/\d{8}/[^/]+/(?P<service>[^/]+)/aws4_request")
ADMIN = "/_cloudft/"
CHANGES = ("Delete", "Stop", "Tag", "Untag", "Update")
"""How operations begin that change the state; those that create keep it themselves."""
REMEMBERED = 20_000
"""How many calls the admin route tells of at most."""


HERE = {"127.0.0.1", "::1"}
ELSEWHERE = Reply(403, (), b'{"message": "only this machine may ask that"}')
"""The page and the admin routes ask for no signature, and tell what was asked: prompts, too."""


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

    def __call__(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        """WSGI."""
        raw_path = str(environ.get("REQUEST_URI") or environ["PATH_INFO"]).partition("?")[0]
        ours = raw_path.startswith(ADMIN)
        if ours and environ.get("REMOTE_ADDR") not in HERE:
            return _send(ELSEWHERE, start)
        if ours:
            return _send(self._admin(environ, raw_path), start)
        scope = SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
        service = scope["service"] if scope else ""
        here = environ.get("REMOTE_ADDR") in HERE
        if not scope and here and raw_path == "/" and environ["REQUEST_METHOD"] == "GET":
            content = front.page(self.state, self.curves, self.calls)
            headers = (("Content-Type", "text/html; charset=utf-8"),)
            return _send(Reply(200, headers, content), start)
        try:
            self._check_signature(environ, raw_path, service)
        except WireError as error:
            spoken = self.json_wires.get(service) or self.wires[0]
            ours = service == "bedrock" or service in self.json_wires
            return _send(spoken.error(error) if ours else _plain(service, error), start)
        if service in self.json_wires:
            return _send(self._json(self.json_wires[service], environ), start)
        if service != "bedrock":
            return self._elsewhere(service, environ, start)
        return _send(self._bedrock(environ, raw_path), start)

    def _json(self, wire: JsonWire, environ: Environ) -> Reply:
        def act() -> Reply:
            call = wire.parse(str(environ.get("HTTP_X_AMZ_TARGET", "")), _body_of(environ))
            return self._told(wire, call)

        return _answered(wire, act)

    def _check_signature(self, environ: Environ, raw_path: str, service: str) -> None:
        if self.secrets is None:
            return
        headers = _headers_of(environ)
        body = None
        if "x-amz-content-sha256" not in headers:
            body = _body_of(environ)
            environ["wsgi.input"] = io.BytesIO(body)
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
            return _send(_plain(service, error), start)
        if (reply := self._form(service, environ)) is not None:
            faults.after(fault)
            return _send(reply, start)
        try:
            answer: Iterable[bytes] = self.others(environ, start)
        except Exception as error:  # moto lacks an operation, or fails at one
            what = f"{type(error).__name__}: {error}"
            return _send(_plain(service, WireError("UnknownOperationException", what)), start)
        faults.after(fault)
        return answer

    def _form(self, service: str, environ: Environ) -> Reply | None:
        """The answer to an operation of another service that is ours; None for moto's."""
        if service not in self.forms:
            return None
        wire, room = self.forms[service]
        try:
            body = _body_of(environ)
            environ["wsgi.input"] = io.BytesIO(body)
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
            headers, body = _headers_of(environ), _body_of(environ)
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

    def _admin(self, environ: Environ, path: str) -> Reply:
        try:
            if path == f"{ADMIN}faults":
                self.faults.order(orjson.loads(_body_of(environ)))
                return Reply(200, (), b"{}")
            if path == f"{ADMIN}calls":
                with self.lock:
                    calls = list(self.calls)
                told = [{"operation": c.operation, "parameters": c.parameters} for c in calls]
                return Reply(200, (), orjson.dumps(told, default=str))
            if path == f"{ADMIN}account":
                return Reply(200, (), orjson.dumps({"account": ACCOUNT, "server": SERVER}))
        except (WireError, ValueError) as error:
            return Reply(400, (), orjson.dumps({"message": str(error)}))
        return Reply(404, (), b"{}")


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


def _body_of(environ: Environ) -> bytes:
    """What was sent. Raises ValidationException when its length can't be told."""
    chunked, length = environ.get("wsgi.input_terminated"), environ.get("CONTENT_LENGTH") or "0"
    if not (chunked or length.isdecimal()):
        raise WireError("ValidationException", "Content-Length is not a number")
    try:
        content: bytes = environ["wsgi.input"].read(*(() if chunked else (int(length),)))
    except OSError as error:  # a chunk that does not say its size
        raise WireError("ValidationException", f"The body can't be read: {error}") from None
    return content


def _headers_of(environ: Environ) -> dict[str, str]:
    headers = {
        name[5:].lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.lower().replace("_", "-")] = str(environ[name])
    return headers


def _validate(shape: Any, parameters: Mapping[str, Any]) -> None:
    """Raise ValidationException with every broken constraint of an operation's input."""
    broken = list(problems(shape, parameters)) if shape else []
    if broken:
        plural = "s" if len(broken) > 1 else ""
        raise WireError(
            "ValidationException",
            f"{len(broken)} validation error{plural} detected: {'; '.join(broken)}",
        )


def _plain(service: str, error: WireError) -> Reply:
    """A refusal of another service, in the form that botocore reads from it."""
    status = {"ThrottlingException": 429, "ServiceUnavailableException": 503}.get(error.code, 403)
    if service == "s3":
        text = f"<Error><Code>{error.code}</Code><Message>{error.message}</Message></Error>"
        return Reply(status, (("Content-Type", "application/xml"),), text.encode())
    text = (
        f"<ErrorResponse><Error><Code>{error.code}</Code>"
        f"<Message>{error.message}</Message></Error></ErrorResponse>"
    )
    return Reply(status, (("Content-Type", "text/xml"),), text.encode())


def _send(reply: Reply, start: Callable[..., Any]) -> Iterable[bytes]:
    length = ("Content-Length", str(len(reply.body)))
    start(f"{reply.status} {'OK' if reply.status < 400 else 'Error'}", [*reply.headers, length])
    return [reply.body]
