"""Operations of `bedrock-runtime`: inference with deployed, imported and foundation models."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from cloudft.catalogue import is_text_only
from cloudft.endpoint.bedrock import invoke_bodies
from cloudft.endpoint.bedrock.customization_jobs import CustomizationJobs
from cloudft.endpoint.bedrock.foundation_models import FoundationModels
from cloudft.endpoint.bedrock.invoke_bodies import BodyFormat
from cloudft.endpoint.bedrock.local_inference import (
    InferenceRequest,
    InferenceResult,
    LocalInference,
    ModelRef,
)
from cloudft.endpoint.bedrock.shapes import (
    ConverseInput,
    ConverseRequest,
    CountTokensRequest,
    InvokeModelRequest,
)
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.state import Model, State


class ResolvedModel(NamedTuple):
    """The model that a model id resolves to.

    `raw_text` is true for a model that continues text (from continued pre-training): its prompt
    is not put into a chat template.
    """

    model: ModelRef
    body_format: BodyFormat
    raw_text: bool


class BedrockRuntime:
    """Converse, InvokeModel, their streams, and CountTokens."""

    def __init__(
        self,
        state: State,
        foundation: FoundationModels,
        customization: CustomizationJobs,
        inference: LocalInference,
    ) -> None:
        self.state = state
        self.foundation = foundation
        self.customization = customization
        self.inference = inference

    def resolve_model(self, identifier: str) -> ResolvedModel:
        """Return what answers for a deployment, an imported model or a foundation model.

        Raises ResourceNotFoundException.
        """
        with self.state.lock:
            groups = (self.state.deployments, self.state.throughputs)
            deployment = next((g[identifier] for g in groups if identifier in g), None)
            model = deployment and self.state.models.get(deployment.model_arn)
            model = model or self.state.imported.get(identifier)
        if model is not None:
            return self.resolve_custom_model(model)
        try:
            base = self.foundation.find_model(identifier)
        except ServiceError:
            what = f"Could not find the model to invoke: {identifier}"
            raise ServiceError("ResourceNotFoundException", what) from None
        stand_in = ModelRef(None, self.foundation.stand_in(base.identifier), "base")
        return ResolvedModel(stand_in, invoke_bodies.body_format_of(base.identifier), False)

    def resolve_custom_model(self, model: Model) -> ResolvedModel:
        """Return what answers for a custom or imported model."""
        base = model.base_model_arn.rpartition("/")[2]
        if model.folder is not None:
            body_format = invoke_bodies.body_format_of(base, imported=True)
            return ResolvedModel(ModelRef(None, model.folder, "base"), body_format, False)
        job = self.state.jobs[str(model.job_arn)]
        raw_text = is_text_only(job.request.get("customizationType", ""))
        body_format = invoke_bodies.body_format_of(base)
        return ResolvedModel(self.customization.model_ref_of(job), body_format, raw_text)

    def converse(self, request: ConverseRequest) -> Response:
        """Answer a conversation."""
        result = self._converse(request)
        return {**invoke_bodies.converse_output(result), "metrics": {"latencyMs": 0}}

    def converse_stream(self, request: ConverseRequest) -> Response:
        """Answer a conversation as a stream of events."""
        return {"stream": invoke_bodies.converse_stream_events(self._converse(request))}

    def _converse(self, request: ConverseRequest) -> InferenceResult:
        resolved = self.resolve_model(request["modelId"])
        return self.inference.generate(resolved.model, parse_converse_request(request))

    def invoke_model(self, request: InvokeModelRequest) -> Response:
        """Answer in the body format of the model's family."""
        result, body_format = self._invoke(request)
        body = orjson.dumps(body_format.format_response(result))
        return {"body": body, "contentType": "application/json"}

    def invoke_model_with_response_stream(self, request: InvokeModelRequest) -> Response:
        """Answer as a stream, in the chunks of the model's family."""
        result, body_format = self._invoke(request)
        chunks = (
            ("chunk", {"bytes": orjson.dumps(chunk)}) for chunk in body_format.format_chunks(result)
        )
        return {"body": chunks, "contentType": "application/json"}

    def _invoke(self, request: InvokeModelRequest) -> tuple[InferenceResult, BodyFormat]:
        model, body_format, raw_text = self.resolve_model(request["modelId"])
        body = invoke_bodies.parse_json_object(request.get("body", b""))
        parsed = invoke_bodies.parse_request(body_format, body, raw=raw_text)
        result = self.inference.generate(model, parsed)
        return result, invoke_bodies.response_format(body_format, body)

    def count_tokens(self, request: CountTokensRequest) -> Response:
        """Return the number of tokens, by the stand-in's tokenizer."""
        model, body_format, raw_text = self.resolve_model(request["modelId"])
        counted = request["input"]
        if "invokeModel" in counted:
            body = invoke_bodies.parse_json_object(counted["invokeModel"]["body"])
            parsed = invoke_bodies.parse_request(body_format, body, raw=raw_text)
        else:
            parsed = parse_converse_request(counted["converse"])
        return {"inputTokens": self.inference.count_tokens(model, parsed)}


def parse_converse_request(request: ConverseInput) -> InferenceRequest:
    """Parse a request of Converse. Raises ValidationException for one that has more than text."""
    for message in request.get("messages", ()):
        if any("text" not in block for block in message["content"]):
            raise ServiceError("ValidationException", "This model takes text only.")
    try:
        messages = invoke_bodies.normalize_messages(
            request.get("messages", ()), request.get("system")
        )
    except ValueError as error:
        raise ServiceError("ValidationException", f"messages: {error}") from None
    return InferenceRequest(messages=messages, inference_config=request.get("inferenceConfig", {}))
