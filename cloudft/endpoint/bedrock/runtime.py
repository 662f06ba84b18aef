"""Operations of `bedrock-runtime`: inference with deployed, imported and foundation models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import orjson

from cloudft.catalogue import is_text_only
from cloudft.endpoint.bedrock import invoke_bodies
from cloudft.endpoint.bedrock.answer_stream import (
    AnswerStream,
    InferenceResult,
    whole_answer,
)
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
from cloudft.endpoint.bedrock.inference_request import ModelRef
from cloudft.endpoint.bedrock.invocation_logging import LoggedCall
from cloudft.endpoint.bedrock.invoke_bodies import BodyFormat
from cloudft.endpoint.bedrock.local_inference import LocalInference
from cloudft.endpoint.bedrock.shapes import (
    ConverseRequest,
    CountTokensRequest,
    InvokeModelRequest,
)
from cloudft.endpoint.protocols.messages import HTTP_HEADERS, Response, ResponseStream, ServiceError
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
            model = deployment and self.state.models.get(deployment.served_model_arn)
            model = model or self.state.imported.get(identifier)
        if deployment is not None and not self.deployments.is_ready(deployment):
            # botocore documents this error for a model that is not ready, and retries it.
            message = "The model is not ready for inference. Wait and try your request again."
            raise ServiceError("ModelNotReadyException", message)
        if model is not None:
            return self.resolve_custom_model(model)
        if deployment is not None:
            return self._base_model(self.foundation.find_model(deployment.served_model_arn))
        return self._base_model(self._find_on_demand(identifier))

    def _find_on_demand(self, identifier: str) -> FoundationModel:
        """Return the base model of a profile, or that answers to its own id."""
        base = self.profiles.find_model(identifier)
        if base is not None:
            return base
        if not self.foundation.is_offered(identifier):
            self.foundation.raise_if_ended(identifier)
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
        # What was tuned from a model ends with it (Bedrock user guide, "Model lifecycle").
        self.foundation.raise_if_ended(base)
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
        result = whole_answer(self._converse(request))
        response = {**converse_output(result), "metrics": converse_metrics(result)}
        self._log_converse("Converse", request, result, response)
        return response

    def converse_stream(self, request: ConverseRequest) -> Response:
        """Answer a conversation as a stream of events."""
        answer = self._converse(request)
        answer.wait_for_first()
        return {"stream": ResponseStream(self._converse_events(request, answer), answer.close)}

    def _converse_events(
        self, request: ConverseRequest, answer: AnswerStream
    ) -> Iterator[tuple[str, Response]]:
        """Yield the events of an answer, which is logged before its last one."""
        for kind, event in converse_stream_events(answer):
            if kind == "metadata":
                result = answer.result
                # AWS logs a stream of Converse as one answer.
                response = {**converse_output(result), "metrics": converse_metrics(result)}
                self._log_converse("ConverseStream", request, result, response)
            yield kind, event

    def _log_converse(
        self, operation: str, request: ConverseRequest, result: InferenceResult, response: Response
    ) -> None:
        body = {k: v for k, v in request.items() if k not in ("modelId", "requestMetadata")}
        metadata = request.get("requestMetadata")
        tokens = (result.input_tokens, result.output_tokens)
        self.log(LoggedCall(operation, request["modelId"], metadata, body, response, *tokens))

    def _converse(self, request: ConverseRequest) -> AnswerStream:
        resolved = self.resolve_model(request["modelId"])
        return self.inference.stream(resolved.model, parse_converse_request(request))

    def invoke_model(self, request: InvokeModelRequest) -> Response:
        """Answer in the body format of the model's family."""
        stream, body_format = self._invoke(request)
        result = whole_answer(stream)
        answer = body_format.format_response(result)
        self._log_invoke("InvokeModel", request, result, answer)
        body = orjson.dumps(answer)
        return {
            "body": body,
            "contentType": "application/json",
            HTTP_HEADERS: token_headers(result),
        }

    def invoke_model_with_response_stream(self, request: InvokeModelRequest) -> Response:
        """Answer as a stream, in the chunks of the model's family."""
        answer, body_format = self._invoke(request)
        answer.wait_for_first()
        chunks = self._invoke_chunks(request, answer, body_format)
        return {
            "body": ResponseStream(chunks, answer.close),
            "contentType": "application/json",
        }

    def _invoke_chunks(
        self, request: InvokeModelRequest, answer: AnswerStream, body_format: BodyFormat
    ) -> Iterator[tuple[str, Response]]:
        """Yield the chunks of an answer, which is logged before its last ones."""
        written: list[Response] = []
        last: list[Response] = []
        chunks = body_format.format_chunks(answer)
        for chunk in chunks:
            if answer.has_ended:
                last = [chunk, *chunks]
                break
            written.append(chunk)
            yield _to_event(chunk)
        result = answer.result
        last[-1] |= invocation_metrics(result)
        operation = "InvokeModelWithResponseStream"
        self._log_invoke(operation, request, result, [*written, *last])
        yield from map(_to_event, last)

    def _log_invoke(
        self, operation: str, request: InvokeModelRequest, result: InferenceResult, answer: object
    ) -> None:
        body = parse_json_object(request.get("body", b""))
        given = request.get("requestMetadata")
        tokens = (result.input_tokens, result.output_tokens)
        metadata = None if given is None else parse_request_metadata(given)
        self.log(LoggedCall(operation, request["modelId"], metadata, body, answer, *tokens))

    def _invoke(self, request: InvokeModelRequest) -> tuple[AnswerStream, BodyFormat]:
        resolved = self.resolve_model(request["modelId"])
        if request.get("guardrailIdentifier"):
            raise refuse(NO_GUARDRAIL)
        if "requestMetadata" in request:  # refused before the model answers
            parse_request_metadata(request["requestMetadata"])
        body = parse_json_object(request.get("body", b""))
        parsed = invoke_bodies.parse_request(resolved.body_format, body, raw=resolved.raw_text)
        answer = self.inference.stream(resolved.model, parsed, resolved.name)
        return answer, invoke_bodies.response_format(resolved.body_format, body)

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


def _to_event(chunk: Response) -> tuple[str, Response]:
    return "chunk", {"bytes": orjson.dumps(chunk)}


def token_headers(result: InferenceResult) -> dict[str, str]:
    """Return the headers of a whole answer with what Bedrock counted and measured."""
    return {
        "X-Amzn-Bedrock-Input-Token-Count": str(result.input_tokens),
        "X-Amzn-Bedrock-Output-Token-Count": str(result.output_tokens),
        "X-Amzn-Bedrock-Invocation-Latency": str(result.latency_ms),
    }


def invocation_metrics(result: InferenceResult) -> Response:
    """Return what the last chunk of a stream has of the whole invocation.

    Source of the member: the Java example of Anthropic's streams in AWS's code example library.
    """
    metrics = {
        "inputTokenCount": result.input_tokens,
        "outputTokenCount": result.output_tokens,
        "invocationLatency": result.latency_ms,
        "firstByteLatency": result.first_ms,
    }
    return {"amazon-bedrock-invocationMetrics": metrics}


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
