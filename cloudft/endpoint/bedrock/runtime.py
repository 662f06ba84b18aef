"""bedrock-runtime: asking what is served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from cloudft.endpoint.bedrock import invoke_bodies
from cloudft.endpoint.bedrock.customization_jobs import CustomizationJobs
from cloudft.endpoint.bedrock.foundation_models import FoundationModels
from cloudft.endpoint.bedrock.local_inference import (
    InferenceRequest,
    InferenceResult,
    LocalInference,
    ModelRef,
)
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.state import Model, State


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

    def resolve_model(self, identifier: str) -> tuple[ModelRef, invoke_bodies.BodyFormat, bool]:
        """Who answers, the shape of its bodies, and whether it goes on with raw text.

        Raises ResourceNotFoundException.
        """
        with self.state.lock:
            things = (self.state.deployments, self.state.throughputs)
            serving = next((t[identifier] for t in things if identifier in t), None)
            model = serving and self.state.models.get(serving.model_arn)
            model = model or self.state.imported.get(identifier)
        if model is not None:
            return self.resolve_custom_model(model)
        try:
            base = self.foundation.find_model(identifier)
        except ServiceError:
            what = f"Could not find the model to invoke: {identifier}"
            raise ServiceError("ResourceNotFoundException", what) from None
        who = ModelRef(None, self.foundation.stand_in(base.identifier), "base")
        return who, invoke_bodies.body_format_of(base.identifier), False

    def resolve_custom_model(self, model: Model) -> tuple[ModelRef, invoke_bodies.BodyFormat, bool]:
        """As `served`, of a custom or imported model."""
        base = model.base_model_arn.rpartition("/")[2]
        if model.folder is not None:
            family = invoke_bodies.body_format_of(base, imported=True)
            return ModelRef(None, model.folder, "base"), family, False
        job = self.state.jobs[str(model.job_arn)]
        raw = job.request.get("customizationType") == "CONTINUED_PRE_TRAINING"
        return self.customization.model_ref_of(job), invoke_bodies.body_format_of(base), raw

    def converse(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a conversation."""
        reply = self._converse(given)
        message = {"role": "assistant", "content": [{"text": reply.text}]}
        return {
            "output": {"message": message},
            "stopReason": reply.stop_reason,
            "usage": invoke_bodies.converse_usage(reply),
            "metrics": {"latencyMs": 0},
        }

    def converse_stream(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a conversation, piece by piece."""
        return {"stream": invoke_bodies.converse_stream_events(self._converse(given))}

    def _converse(self, given: Mapping[str, Any]) -> InferenceResult:
        who, _, _ = self.resolve_model(given["modelId"])
        return self.inference.generate(who, parse_converse_request(given))

    def invoke_model(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer in the family's own body shape."""
        reply, family = self._invoke(given)
        return {
            "body": orjson.dumps(family.format_response(reply)),
            "contentType": "application/json",
        }

    def invoke_model_with_response_stream(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer in the family's own pieces."""
        reply, family = self._invoke(given)
        pieces = (
            ("chunk", {"bytes": orjson.dumps(piece)}) for piece in family.format_chunks(reply)
        )
        return {"body": pieces, "contentType": "application/json"}

    def _invoke(self, given: Mapping[str, Any]) -> tuple[InferenceResult, invoke_bodies.BodyFormat]:
        who, family, raw = self.resolve_model(given["modelId"])
        body = invoke_bodies.parse_json_object(given.get("body", b""))
        question = invoke_bodies.parse_request(family, body, raw=raw)
        return self.inference.generate(who, question), invoke_bodies.response_format(family, body)

    def count_tokens(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """How many tokens the stand-in reads."""
        who, family, raw = self.resolve_model(given["modelId"])
        asked = given["input"]
        if "invokeModel" in asked:
            body = invoke_bodies.parse_json_object(asked["invokeModel"]["body"])
            question = invoke_bodies.parse_request(family, body, raw=raw)
        else:
            question = parse_converse_request(asked["converse"])
        return {"inputTokens": self.inference.count_tokens(who, question)}


def parse_converse_request(given: Mapping[str, Any]) -> InferenceRequest:
    """Converse's request as a question. Raises ValidationException for one without text."""
    for message in given.get("messages", ()):
        if any("text" not in block for block in message["content"]):
            raise ServiceError("ValidationException", "This model takes text only.")
    try:
        turns = invoke_bodies.normalize_messages(given.get("messages", ()), given.get("system"))
    except ValueError as error:
        raise ServiceError("ValidationException", f"messages: {error}") from None
    return InferenceRequest(messages=turns, inference_config=given.get("inferenceConfig", {}))
