"""Run Step Functions on moto, with its interpreter patched before the first request for it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cloudft.endpoint.clients import ClientFactory
from cloudft.endpoint.operations import validate_input
from cloudft.endpoint.protocols.aws_json import AwsJsonProtocol
from cloudft.endpoint.protocols.messages import HttpResponse, ServiceError
from cloudft.endpoint.wsgi import read_body, send_response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

STEP_FUNCTIONS_SCOPE = "/states/aws4_request"
"""A part of the signature of requests to Step Functions."""
VALIDATION_TARGET = "AWSStepFunctions.ValidateStateMachineDefinition"
"""The operation that moto lacks, and that Terraform calls before it plans a state machine."""


class StepFunctionsMiddleware:
    """WSGI middleware around moto. `client` returns the clients that state machines call by."""

    def __init__(self, moto: WSGIApplication, client: ClientFactory) -> None:
        self._moto = moto
        self._client = client
        self._lock = threading.Lock()
        self._is_patched = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Return moto's response; patch its interpreter before the first state machine."""
        if STEP_FUNCTIONS_SCOPE in environ.get("HTTP_AUTHORIZATION", ""):
            self._patch_interpreter()
            if environ.get("HTTP_X_AMZ_TARGET") == VALIDATION_TARGET:
                return send_response(_validate_definition(read_body(environ)), start_response)
        return self._moto(environ, start_response)

    def _patch_interpreter(self) -> None:
        with self._lock:
            if not self._is_patched:
                # Importing moto's interpreter takes a second or two: most endpoints never need it.
                from cloudft.endpoint.moto.step_functions_interpreter import patch_moto

                patch_moto(self._client)
                self._is_patched = True


def _validate_definition(body: bytes) -> HttpResponse:
    """Return the response of ValidateStateMachineDefinition (Step Functions API reference)."""
    from cloudft.endpoint.moto.step_functions_interpreter import find_definition_error

    protocol = AwsJsonProtocol("stepfunctions")
    try:
        call = protocol.parse_request(VALIDATION_TARGET, body)
        shape = protocol.operation_model(call.operation).input_shape
        validate_input(shape, call.parameters, "ValidationException")
    except ServiceError as error:
        return protocol.serialize_error(error)
    reason = find_definition_error(call.parameters["definition"])
    diagnostic = {"severity": "ERROR", "code": "SCHEMA_VALIDATION_FAILED", "message": reason}
    failed = {"result": "FAIL", "diagnostics": [diagnostic], "truncated": False}
    succeeded = {"result": "OK", "diagnostics": [], "truncated": False}
    return protocol.serialize_response(call.operation, failed if reason else succeeded)
