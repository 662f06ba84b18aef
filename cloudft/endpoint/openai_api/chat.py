"""Models and chat completions of the OpenAI-compatible API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudft.endpoint.bedrock.answer_stream import whole_answer
from cloudft.endpoint.bedrock.body_checks import as_malformed
from cloudft.endpoint.bedrock.foundation_models import FoundationModels
from cloudft.endpoint.bedrock.inference_request import ModelRef
from cloudft.endpoint.bedrock.local_inference import LocalInference
from cloudft.endpoint.openai_api.chat_answers import chat_chunks, format_chat, wants_usage
from cloudft.endpoint.openai_api.chat_requests import parse_chat
from cloudft.endpoint.openai_api.protocol import CHUNKS
from cloudft.endpoint.openai_api.records import now_s
from cloudft.endpoint.protocols.messages import Parameters, Response, ResponseStream, ServiceError

if TYPE_CHECKING:
    from cloudft.endpoint.state import State


class ChatCompletions:
    """Operations that answer: base models by their stand-ins, fine-tuned models by their own."""

    def __init__(
        self, state: State, foundation: FoundationModels, inference: LocalInference
    ) -> None:
        self.state = state
        self.foundation = foundation
        self.inference = inference
        self._started = now_s()

    def list_answering_models(self, request: Parameters) -> Response:
        """Return the base models and the fine-tuned ones."""
        with self.state.lock:
            tuned = [job for job in self.state.fine_tuning_jobs.values() if job.fine_tuned_model]
        cards = [(base.identifier, self._started, "aws") for base in self.foundation.models]
        cards += [(str(job.fine_tuned_model), job.finished or 0, "account") for job in tuned]
        data = [
            {"id": name, "object": "model", "created": created, "owned_by": owner}
            for name, created, owner in cards
        ]
        return {"object": "list", "data": data}

    def create_inference(self, request: Parameters) -> Response:
        """Answer a conversation, whole or as a stream."""
        with as_malformed():
            parsed = parse_chat(request)
        answer = self.inference.stream(self._resolve(request["model"]), parsed, request["model"])
        if not request.get("stream"):
            return format_chat(whole_answer(answer))
        answer.wait_for_first()
        chunks = chat_chunks(answer, with_usage=wants_usage(request))
        return {CHUNKS: ResponseStream(chunks, answer.close)}

    def _resolve(self, name: str) -> ModelRef:
        """Return what answers for a model's id. Raises ServiceError (ResourceNotFoundException)."""
        with self.state.lock:
            jobs = list(self.state.fine_tuning_jobs.values())
        for job in jobs:
            if name == job.fine_tuned_model:
                if job.local is not None:
                    return ModelRef(job.local)
                name = job.request["model"]  # the simulated trainer made no model
                break
        if not self.foundation.is_offered(name):
            message = f"The model '{name}' does not exist"
            raise ServiceError("ResourceNotFoundException", message)
        return ModelRef(None, self.foundation.stand_in(name), "base")
