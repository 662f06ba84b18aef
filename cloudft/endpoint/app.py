"""The endpoint as one WSGI application: Bedrock is implemented here, moto serves the rest."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cloudft.endpoint import fault_injection
from cloudft.endpoint.admin import AdminRoutes
from cloudft.endpoint.call_log import CallLog
from cloudft.endpoint.fault_injection import FaultInjector
from cloudft.endpoint.grader_functions import GraderFunctions
from cloudft.endpoint.openai_api.protocol import OpenAIProtocol
from cloudft.endpoint.operations import Operation, find_operation, validate_input
from cloudft.endpoint.protocols.aws_json import AwsJsonProtocol
from cloudft.endpoint.protocols.caller_identity import (
    BEARER_PREFIX,
    Caller,
    identify_caller,
    is_presigned_object,
    unsigned_protocol,
)
from cloudft.endpoint.protocols.messages import (
    ConnectionDropped,
    HttpResponse,
    OperationCall,
    Parameters,
    ServiceError,
    ServiceNotOffered,
)
from cloudft.endpoint.protocols.rest_json import RestJsonProtocol
from cloudft.endpoint.protocols.service_models import OperationModel
from cloudft.endpoint.protocols.sigv4 import SignedRequest, verify_signature
from cloudft.endpoint.protocols.unparsed_errors import serialize_json_error, serialize_xml_error
from cloudft.endpoint.query_service import QueryService
from cloudft.endpoint.request_context import begin_request
from cloudft.endpoint.state import State
from cloudft.endpoint.wsgi import (
    buffer_body,
    inert_start_response,
    numbered_start_response,
    read_body,
    request_headers,
    send_response,
)
from cloudft.errors import CloudftError
from cloudft.web.request_guard import RequestGuard

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ParsedProtocol: TypeAlias = RestJsonProtocol | AwsJsonProtocol
MUTATING_PREFIXES = ("Delete", "Stop", "Tag", "Untag", "Update")
"""Beginnings of operations after which the state is saved. Those that create resources save it."""
FUNCTION_PATH = re.compile(r"/2015-03-31/functions/[^/]+(/invocations)?")
"""Path of Lambda's operations on one function: GetFunction, DeleteFunction and Invoke."""
OPENAI_PREFIX = "/openai"
"""What bedrock-runtime has before the paths of OpenAI's API; bedrock-mantle may have it, too."""
CHAT_PATHS = ("/openai/v1/chat/completions", "/v1/chat/completions")
"""Paths of the one operation of OpenAI's API that bedrock-runtime has (Bedrock user guide, "Invoke
a model with the OpenAI Chat Completions API", then "Inference using Chat Completions API")."""
MISSING_TOKEN = ServiceError("MissingAuthenticationTokenException", "Missing Authentication Token")
UNREADABLE_AUTHORIZATION = ServiceError("InvalidArgument", "Unsupported Authorization Type")
"""What S3 answers to such a header (S3 API reference, "Error responses"): moto fails at some."""


@dataclass(frozen=True)
class RegionServices:
    """The state of one more Region, and the services of Bedrock that work on it."""

    state: State
    services: Sequence[object]


@dataclass(frozen=True)
class AppOptions:
    """Options of the application. `jobs_folder` has a folder of each local job.

    `secret_keys` maps access keys to secret keys; None accepts any credentials. `other_regions`
    are answered to calls of Bedrock that are signed for them. `openai_services` have the operations
    of Bedrock's OpenAI-compatible API, which all Regions share. `functions` performs operations of
    Lambda in moto's place.
    """

    jobs_folder: Path
    secret_keys: Mapping[str, str] | None = None
    guard: RequestGuard = field(default_factory=RequestGuard)
    other_regions: Mapping[str, RegionServices] = field(default_factory=dict)
    functions: GraderFunctions | None = None
    openai_services: Sequence[object] = ()


class App:
    """Routes each request to the service that its signature names.

    The methods of `services` are the operations of bedrock, bedrock-runtime, sagemaker and
    service-quotas by their names in snake case; `query_services` have operations of services that
    speak the query protocol, and the options' `functions` those of Lambda. `moto` answers
    everything else.
    """

    def __init__(
        self,
        state: State,
        services: Sequence[object],
        moto: WSGIApplication,
        fault_injector: FaultInjector,
        options: AppOptions,
        query_services: Sequence[QueryService] = (),
    ) -> None:
        self.rest_json_protocols = (
            RestJsonProtocol("bedrock"),
            RestJsonProtocol("bedrock-runtime"),
        )
        self.openai_protocol = OpenAIProtocol()
        self.aws_json_protocols = {
            "sagemaker": AwsJsonProtocol("sagemaker"),
            "servicequotas": AwsJsonProtocol("service-quotas"),
        }
        self.lambda_protocol = RestJsonProtocol("lambda")
        self.home_region = RegionServices(state, services)
        self.moto = moto
        self.fault_injector = fault_injector
        self.options = options
        self.query_services = {service.service: service for service in query_services}
        self.call_log = CallLog()
        self.admin = AdminRoutes(
            state, options.jobs_folder, fault_injector, self.call_log, options.guard
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a WSGI request, unless a web page of another origin sent it."""
        begin_request(environ)
        method, path = environ["REQUEST_METHOD"], str(environ["PATH_INFO"])
        headers = request_headers(environ)
        caller = identify_caller(headers, str(environ.get("QUERY_STRING", "")), path)
        is_admin = self.admin.is_admin_request(method, path, caller)
        has_token = is_admin and self.admin.has_token(environ, headers)
        reason = self.options.guard.refusal_reason(
            method, headers, allow_navigation=has_token or is_presigned_object(caller, path)
        )
        # Stored objects come from whoever could write them: no browser may run them as a page.
        start_inert = inert_start_response(start_response, download=not caller.is_signed)
        start_numbered = numbered_start_response(start_inert, caller.service)
        if reason is not None:
            error = ServiceError("AccessDeniedException", reason)
            response = self._error_response(environ, caller.service, error)
            return send_response(response, start_numbered)
        if not is_admin:
            return self._route(environ, headers, caller, start_numbered)
        page = self.admin.respond(environ, path, has_token=has_token)
        if page is None:
            return self._serve_from_moto("", environ, start_inert)
        return send_response(page, start_response)

    def _route(
        self,
        environ: WSGIEnvironment,
        headers: Mapping[str, str],
        caller: Caller,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Pass a request that the guard admitted to its service."""
        # PATH_INFO is decoded: an encoded slash of an ARN would look like a separator there.
        raw_path = str(environ.get("REQUEST_URI") or environ["PATH_INFO"]).partition("?")[0]
        service = caller.service
        try:
            self._check_signature(environ, raw_path)
            refusal = self._refuse_unsigned(environ, raw_path, headers, caller)
        except ServiceError as error:
            refusal = self._error_response(environ, service, error)
        if refusal is not None:
            return send_response(refusal, start_response)
        if service in self.aws_json_protocols:
            # SageMaker's jobs are those of the first Region alone.
            others = self.options.other_regions if service == "servicequotas" else {}
            region = others.get(caller.region, self.home_region)
            protocol = self.aws_json_protocols[service]
            response = self._serve_aws_json(protocol, environ, region)
            return send_response(response, start_response)
        if service == "bedrock":
            region = self.options.other_regions.get(caller.region, self.home_region)
            serve = self._serve_openai if raw_path in CHAT_PATHS else self._serve_bedrock
            return send_response(serve(environ, raw_path, region), start_response)
        if service == self.openai_protocol.service:
            region = RegionServices(self.home_region.state, self.options.openai_services)
            return send_response(self._serve_openai(environ, raw_path, region), start_response)
        return self._serve_other_service(service, environ, start_response)

    def _check_signature(self, environ: WSGIEnvironment, raw_path: str) -> None:
        """Raise ServiceError for a signature that is not by one of the endpoint's credentials."""
        secret_keys = self.options.secret_keys
        if secret_keys is None:
            return
        headers = request_headers(environ)
        if headers.get("authorization", "").startswith(BEARER_PREFIX):
            message = "This endpoint was started with --credentials, and they hold no API keys"
            raise ServiceError("AccessDeniedException", message)
        body = buffer_body(environ) if "x-amz-content-sha256" not in headers else None
        query = str(environ.get("QUERY_STRING", ""))
        signed = SignedRequest(environ["REQUEST_METHOD"], raw_path, query, headers, body)
        verify_signature(signed, secret_keys)

    def _refuse_unsigned(
        self,
        environ: WSGIEnvironment,
        raw_path: str,
        headers: Mapping[str, str],
        caller: Caller,
    ) -> HttpResponse | None:
        """Return the refusal of a request that must be signed and is not; None for others."""
        if caller.is_signed or caller.is_presigned:
            return None
        method = environ["REQUEST_METHOD"]
        for rest_json in (self.openai_protocol, *self.rest_json_protocols):
            is_openai = rest_json is self.openai_protocol
            path = raw_path.removeprefix(OPENAI_PREFIX) if is_openai else raw_path
            if rest_json.has_route(method, path):
                return rest_json.serialize_error(MISSING_TOKEN)
        body = buffer_body(environ) if method == "POST" and raw_path == "/" else b""
        protocol = unsigned_protocol(headers, raw_path, body)
        if protocol == "json":
            return serialize_json_error(MISSING_TOKEN)
        if protocol is not None:
            return serialize_xml_error("query", MISSING_TOKEN)
        return serialize_xml_error("s3", UNREADABLE_AUTHORIZATION) if caller.is_unreadable else None

    def _error_response(
        self, environ: WSGIEnvironment, service: str, error: ServiceError
    ) -> HttpResponse:
        """Return an error in the protocol of the service that was called."""
        if service in self.aws_json_protocols:
            return self.aws_json_protocols[service].serialize_error(error)
        is_chat = service == "bedrock" and environ["PATH_INFO"] in CHAT_PATHS
        if is_chat or service == self.openai_protocol.service:
            return self.openai_protocol.serialize_error(error)
        if service == "bedrock":
            return self.rest_json_protocols[0].serialize_error(error)
        if "HTTP_X_AMZ_TARGET" in environ:
            return serialize_json_error(error)
        return serialize_xml_error(service, error)

    def _serve_bedrock(
        self, environ: WSGIEnvironment, raw_path: str, region: RegionServices
    ) -> HttpResponse:
        """Answer an operation of bedrock or bedrock-runtime: they share one signing name."""

        def respond() -> HttpResponse:
            headers, body = request_headers(environ), read_body(environ)
            for protocol in self.rest_json_protocols:
                call = protocol.parse_request(
                    environ["REQUEST_METHOD"], raw_path, environ["QUERY_STRING"], headers, body
                )
                if call is not None:
                    # From here on, errors are those that this one of the two services declares.
                    perform = functools.partial(self._respond, protocol, call, region)
                    return _catch_errors(protocol, perform)
            message = (
                f"There is no operation of bedrock or bedrock-runtime at {raw_path}; "
                "`cloudft endpoint --operations` lists them"
            )
            raise ServiceError("UnknownOperationException", message)

        return _catch_errors(self.rest_json_protocols[0], respond)

    def _serve_openai(
        self, environ: WSGIEnvironment, raw_path: str, region: RegionServices
    ) -> HttpResponse:
        """Answer an operation of Bedrock's OpenAI-compatible API."""
        protocol = self.openai_protocol

        def respond() -> HttpResponse:
            call = protocol.parse_request(
                environ["REQUEST_METHOD"],
                raw_path.removeprefix(OPENAI_PREFIX),
                environ["QUERY_STRING"],
                request_headers(environ),
                read_body(environ),
            )
            if call is None:
                message = f"{protocol.service} has no operation at {raw_path} on this endpoint"
                raise ServiceError("UnknownOperationException", message)
            return self._respond(protocol, call, region)

        return _catch_errors(protocol, respond)

    def _serve_aws_json(
        self, protocol: AwsJsonProtocol, environ: WSGIEnvironment, region: RegionServices
    ) -> HttpResponse:
        def respond() -> HttpResponse:
            target = str(environ.get("HTTP_X_AMZ_TARGET", ""))
            call = protocol.parse_request(target, read_body(environ))
            return self._respond(protocol, call, region)

        return _catch_errors(protocol, respond)

    def _serve_other_service(
        self, service: str, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer a request for a service that moto has, or of which moto lacks an operation."""
        fault = self.fault_injector.take_due_fault(f"{service}:*")
        try:
            fault_injection.apply_before(fault)
        except ServiceError as error:
            return send_response(self._error_response(environ, service, error), start_response)
        response = self._serve_query(service, environ) or self._serve_function(service, environ)
        if response is not None:
            fault_injection.apply_after(fault, {})
            return send_response(response, start_response)
        body = self._serve_from_moto(service, environ, start_response)
        fault_injection.apply_after(fault, {})
        return body

    def _serve_query(self, service: str, environ: WSGIEnvironment) -> HttpResponse | None:
        """Return the response to an operation that replaces one of moto's; None for moto's own."""
        implementation = self.query_services.get(service)
        if implementation is None:
            return None
        # A form is in the body, or in the query of a GET.
        query = str(environ.get("QUERY_STRING", "")).encode()
        try:
            form = buffer_body(environ) or query
            parsed = implementation.parse_request(form)
            if parsed is None:
                return None
            call = parsed.call
            self.call_log.record(call)
            fault = self.fault_injector.take_due_fault(call.operation)
            fault_injection.apply_before(fault)
            result = parsed.operation(call.parameters)
            result = fault_injection.apply_after(fault, result)
            response = implementation.serialize_response(call.operation, result)
        except ServiceError as error:
            response = implementation.serialize_error(error)
        except ConnectionDropped:
            raise
        except Exception as error:
            failure = _internal_error("InternalFailure", error)
            response = implementation.serialize_error(failure)
        return response

    def _serve_function(self, service: str, environ: WSGIEnvironment) -> HttpResponse | None:
        """Return the response to an operation on a function that runs here; None for moto's own."""
        functions, protocol = self.options.functions, self.lambda_protocol
        raw_path = str(environ.get("REQUEST_URI") or environ["PATH_INFO"]).partition("?")[0]
        if service != "lambda" or functions is None or not FUNCTION_PATH.fullmatch(raw_path):
            return None
        method, query = environ["REQUEST_METHOD"], str(environ.get("QUERY_STRING", ""))
        headers, body = request_headers(environ), buffer_body(environ)
        try:
            call = protocol.parse_request(method, raw_path, query, headers, body)
        except ServiceError as error:
            return protocol.serialize_error(error)
        if call is None or not functions.offers(call.operation, call.parameters["FunctionName"]):
            return None
        region = RegionServices(self.home_region.state, (functions,))
        return _catch_errors(protocol, functools.partial(self._respond, protocol, call, region))

    def _serve_from_moto(
        self, service: str, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        try:
            return self.moto(environ, start_response)
        except ServiceNotOffered as error:
            # In JSON: of the services that moto lacks, nearly all are of AWS's last ten years.
            return send_response(serialize_json_error(error), start_response)
        except CloudftError as error:  # the disk of --state is full, for example
            failure = ServiceError("InternalError", error.message)
        except Exception as error:  # moto lacks an operation, or fails at one
            message = f"{type(error).__name__}: {error}"
            failure = ServiceError("UnknownOperationException", message)
        return send_response(self._error_response(environ, service, failure), start_response)

    def _respond(
        self, protocol: ParsedProtocol, call: OperationCall, region: RegionServices
    ) -> HttpResponse:
        return protocol.serialize_response(call.operation, self._perform(protocol, call, region))

    def _perform(
        self, protocol: ParsedProtocol, call: OperationCall, region: RegionServices
    ) -> Parameters:
        """Return the result of a call. Raises ServiceError, and ConnectionDropped."""
        model = protocol.operation_model(call.operation)
        self.call_log.record(call)
        fault = self.fault_injector.take_due_fault(call.operation)
        # A throttled caller learns nothing about its request: faults come before validation.
        fault_injection.apply_before(fault)
        validate_input(model.input_shape, call.parameters, "ValidationException")
        operation = find_operation(region.services, call.operation)
        if operation is None:
            message = f"{call.operation} is not offered by this endpoint"
            raise ServiceError(_not_offered_code(model), message)
        result = operation(call.parameters)
        # Saved before the caller gets its answer: what was acknowledged survives a kill.
        if call.operation.startswith(MUTATING_PREFIXES):
            region.state.save()
        return fault_injection.apply_after(fault, result)

    def find_operation(self, name: str) -> Operation | None:
        """Return the method that implements an operation; None if it is not offered."""
        return find_operation(self.home_region.services, name)


def _catch_errors(protocol: ParsedProtocol, respond: Callable[[], HttpResponse]) -> HttpResponse:
    """Return the response; an exception becomes an error in the protocol's own form."""
    try:
        return respond()
    except ServiceError as error:
        return protocol.serialize_error(error)
    except ConnectionDropped:
        raise
    except CloudftError as error:  # the disk of --state is full, for example
        return protocol.serialize_error(ServiceError("InternalServerException", error.message))
    except Exception as error:
        return protocol.serialize_error(_internal_error("InternalServerException", error))


def _internal_error(code: str, error: Exception) -> ServiceError:
    """Return the error for a bug of ours: its type alone, for its text may hold private data."""
    return ServiceError(code, f"unexpected {type(error).__name__}: this is a fault of cloudft")


def _not_offered_code(operation: OperationModel) -> str:
    """Return the code for an operation that is not offered: one that the operation declares."""
    declared = {shape.name for shape in operation.error_shapes}
    return "ValidationException" if "ValidationException" in declared else "AccessDeniedException"
