"""Operations of `bedrock-runtime`: inference with deployed, imported and foundation models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import orjson

from cloudft.catalogue import is_text_only
from cloudft.endpoint.bedrock import invoke_bodies
from cloudft.endpoint.bedrock.body_checks import parse_json_object
from cloudft.endpoint.bedrock.converse_requests import (
    NO_GUARDRAIL,
    parse_converse_request,
    refuse,
)
from cloudft.endpoint.bedrock.converse_responses import (
    converse_metrics,
    converse_output,
    converse_stream_events,
)
from cloudft.endpoint.bedrock.customization_jobs import CustomizationJobs
from cloudft.endpoint.bedrock.deployments import Deployments
from cloudft.endpoint.bedrock.foundation_models import FoundationModel
from cloudft.endpoint.bedrock.inference_profiles import InferenceProfiles
from cloudft.endpoint.bedrock.invocation_logging import LoggedCall
from cloudft.endpoint.bedrock.invoke_bodies import BodyFormat
from cloudft.endpoint.bedrock.local_inference import InferenceResult, LocalInference, ModelRef
from cloudft.endpoint.bedrock.shapes import (
    ConverseRequest,
    CountTokensRequest,
    InvokeModelRequest,
)
from cloudft.endpoint.protocols.messages import HTTP_HEADERS, Response, ServiceError
from cloudft.endpoint.state import ACCOUNT, Model, State

INVALID_IDENTIFIER = "The provided model identifier is invalid."
"""Source: aws-samples/amazon-bedrock-workshop, issue 315."""
NOVA_PREFIX = "amazon.nova"
"""The body of a custom model that CreateCustomModel made: Bedrock takes Nova's alone."""


class ResolvedModel(NamedTuple):
    """The model that a model id resolves to.

    `raw_text` is true for a model that continues text (from continued pre-training): its prompt
    is not put into a chat template. `name` is what answers call the model.
    """

    model: ModelRef
    body_format: BodyFormat
    raw_text: bool
    name: str


class BedrockRuntime:
    """Converse, InvokeModel, their streams, and CountTokens."""

    def __init__(
        self,
        state: State,
        profiles: InferenceProfiles,
        customization: CustomizationJobs,
        deployments: Deployments,
        inference: LocalInference,
        log: Callable[[LoggedCall], object] = lambda call: None,
    ) -> None:
        self.log = log
        self.state = state
        self.profiles = profiles
        self.foundation = profiles.foundation
        self.customization = customization
        self.deployments = deployments
        self.inference = inference

    def resolve_model(self, identifier: str) -> ResolvedModel:
        """Return what answers for a deployment, an imported model, a base model or a profile.

        Raises ServiceError: ValidationException, ResourceNotFoundException for the ARN of a
        resource that is gone, ModelNotReadyException for a deployment that is being made.
        """
        with self.state.lock:
            groups = (self.state.deployments, self.state.throughputs)
            deployment = next((g[identifier] for g in groups if identifier in g), None)
            model = deployment and self.state.models.get(deployment.model_arn)
            model = model or self.state.imported.get(identifier)
        if deployment is not None and not self.deployments.is_ready(deployment):
            # botocore documents this error for a model that is not ready, and retries it.
            message = "The model is not ready for inference. Wait and try your request again."
            raise ServiceError("ModelNotReadyException", message)
        if model is not None:
            return self.resolve_custom_model(model)
        if deployment is not None:
            return self._base_model(self.foundation.find_model(deployment.model_arn))
        return self._base_model(self._find_on_demand(identifier))

    def _find_on_demand(self, identifier: str) -> FoundationModel:
        """Return the base model of a profile, or that answers to its own id."""
        base = self.profiles.find_model(identifier)
        if base is not None:
            return base
        if not self.foundation.is_offered(identifier):
            if identifier.startswith(self._account_arn):
                what = f"Could not find the model to invoke: {identifier}"
                raise ServiceError("ResourceNotFoundException", what)
            raise refuse(INVALID_IDENTIFIER)
        return self.foundation.require_on_demand(identifier)

    @property
    def _account_arn(self) -> str:
        return f"arn:aws:bedrock:{self.state.region}:{ACCOUNT}:"

    def _base_model(self, base: FoundationModel) -> ResolvedModel:
        stand_in = ModelRef(None, self.foundation.stand_in(base.identifier), "base")
        body_format = invoke_bodies.body_format_of(base.identifier)
        return ResolvedModel(stand_in, body_format, False, base.on_demand_id)

    def resolve_custom_model(self, model: Model) -> ResolvedModel:
        """Return what answers for a custom or imported model."""
        base = model.base_model_arn.rpartition("/")[2]
        if model.folder is not None:
            is_imported = ":imported-model/" in model.arn
            body_format = invoke_bodies.body_format_of(NOVA_PREFIX, imported=is_imported)
            return ResolvedModel(
                ModelRef(None, model.folder, "base"), body_format, False, model.arn
            )
        job = self.state.job_of(model)
        raw_text = is_text_only(job.request.get("customizationType", ""))
        body_format = invoke_bodies.body_format_of(base)
        return ResolvedModel(self.customization.model_ref_of(job), body_format, raw_text, base)

    def converse(self, request: ConverseRequest) -> Response:
        """Answer a conversation."""
        result = self._converse(request)
        response = {**converse_output(result), "metrics": converse_metrics(result)}
        self._log_converse("Converse", request, result, response)
        return response

    def converse_stream(self, request: ConverseRequest) -> Response:
        """Answer a conversation as a stream of events."""
        result = self._converse(request)
        response = {**converse_output(result), "metrics": converse_metrics(result)}
        # AWS logs a stream of Converse as one answer.
        self._log_converse("ConverseStream", request, result, response)
        return {"stream": converse_stream_events(result)}

    def _log_converse(
        self, operation: str, request: ConverseRequest, result: InferenceResult, response: Response
    ) -> None:
        body = {k: v for k, v in request.items() if k not in ("modelId", "requestMetadata")}
        metadata = request.get("requestMetadata")
        tokens = (result.input_tokens, result.output_tokens)
        self.log(LoggedCall(operation, request["modelId"], metadata, body, response, *tokens))

    def _converse(self, request: ConverseRequest) -> InferenceResult:
        resolved = self.resolve_model(request["modelId"])
        return self.inference.generate(resolved.model, parse_converse_request(request))

    def invoke_model(self, request: InvokeModelRequest) -> Response:
        """Answer in the body format of the model's family."""
        result, body_format = self._invoke(request)
        answer = body_format.format_response(result)
        self._log_invoke("InvokeModel", request, result, answer)
        body = orjson.dumps(answer)
        return {
            "body": body,
            "contentType": "application/json",
            HTTP_HEADERS: {
                "X-Amzn-Bedrock-Input-Token-Count": str(result.input_tokens),
                "X-Amzn-Bedrock-Output-Token-Count": str(result.output_tokens),
                "X-Amzn-Bedrock-Invocation-Latency": str(result.latency_ms),
            },
        }

    def invoke_model_with_response_stream(self, request: InvokeModelRequest) -> Response:
        """Answer as a stream, in the chunks of the model's family."""
        result, body_format = self._invoke(request)
        written = list(_with_metrics(body_format.format_chunks(result), result))
        self._log_invoke("InvokeModelWithResponseStream", request, result, written)
        chunks = (("chunk", {"bytes": orjson.dumps(chunk)}) for chunk in written)
        return {"body": chunks, "contentType": "application/json"}

    def _log_invoke(
        self, operation: str, request: InvokeModelRequest, result: InferenceResult, answer: object
    ) -> None:
        body = parse_json_object(request.get("body", b""))
        given = request.get("requestMetadata")
        tokens = (result.input_tokens, result.output_tokens)
        metadata = None if given is None else parse_request_metadata(given)
        self.log(LoggedCall(operation, request["modelId"], metadata, body, answer, *tokens))

    def _invoke(self, request: InvokeModelRequest) -> tuple[InferenceResult, BodyFormat]:
        resolved = self.resolve_model(request["modelId"])
        if request.get("guardrailIdentifier"):
            raise refuse(NO_GUARDRAIL)
        if "requestMetadata" in request:  # refused before the model answers
            parse_request_metadata(request["requestMetadata"])
        body = parse_json_object(request.get("body", b""))
        parsed = invoke_bodies.parse_request(resolved.body_format, body, raw=resolved.raw_text)
        result = replace(self.inference.generate(resolved.model, parsed), model_id=resolved.name)
        return result, invoke_bodies.response_format(resolved.body_format, body)

    def count_tokens(self, request: CountTokensRequest) -> Response:
        """Return the number of tokens, by the stand-in's tokenizer."""
        resolved = self.resolve_model(request["modelId"])
        counted = request["input"]
        if "invokeModel" in counted:
            body = parse_json_object(counted["invokeModel"]["body"])
            parsed = invoke_bodies.parse_request(resolved.body_format, body, raw=resolved.raw_text)
        else:
            parsed = parse_converse_request(counted["converse"])
        return {"inputTokens": self.inference.count_tokens(resolved.model, parsed)}


def _with_metrics(chunks: Iterable[Response], result: InferenceResult) -> Iterator[Response]:
    """Yield the chunks; the last one has what AWS measured of the whole invocation.

    Source of the member: the Java example of Anthropic's streams in AWS's code example library.
    """
    *before, last = chunks
    yield from before
    metrics = {
        "inputTokenCount": result.input_tokens,
        "outputTokenCount": result.output_tokens,
        "invocationLatency": result.latency_ms,
        # An answer is complete before its first chunk is sent.
        "firstByteLatency": result.latency_ms,
    }
    yield {**last, "amazon-bedrock-invocationMetrics": metrics}


def parse_request_metadata(text: str) -> dict[str, str]:
    """Return the pairs of InvokeModel's header X-Amzn-Bedrock-Request-Metadata.

    Raises ServiceError (ValidationException) for anything but a JSON object of texts.
    """
    try:
        pairs = orjson.loads(text)
    except ValueError:
        pairs = None
    if not isinstance(pairs, dict) or not all(isinstance(v, str) for v in pairs.values()):
        raise ServiceError("ValidationException", "requestMetadata is no JSON object of texts.")
    return pairs
