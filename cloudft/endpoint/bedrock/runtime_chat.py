"""OpenAI's chat completions on bedrock-runtime, for every model that answers there.

On AWS it is permitted as `bedrock:InvokeModel`, by which its calls are logged here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloudft.endpoint.bedrock.answer_stream import AnswerStream, InferenceResult, whole_answer
from cloudft.endpoint.bedrock.body_checks import as_malformed
from cloudft.endpoint.bedrock.invocation_logging import LoggedCall
from cloudft.endpoint.bedrock.runtime import BedrockRuntime, token_headers
from cloudft.endpoint.openai_api.chat_answers import chat_chunks, format_chat, wants_usage
from cloudft.endpoint.openai_api.chat_requests import parse_chat
from cloudft.endpoint.openai_api.protocol import CHUNKS
from cloudft.endpoint.protocols.messages import (
    HTTP_HEADERS,
    Parameters,
    Response,
    ResponseStream,
)


class RuntimeChat:
    """Chat completions by deployments, imported models, base models and profiles."""

    def __init__(self, runtime: BedrockRuntime) -> None:
        self.runtime = runtime

    def create_inference(self, request: Parameters) -> Response:
        """Answer a conversation, whole or as a stream."""
        name = request["model"]
        resolved = self.runtime.resolve_model(name)
        with as_malformed():
            parsed = parse_chat(request)
        answer = self.runtime.inference.stream(resolved.model, parsed, name)
        if request.get("stream"):
            answer.wait_for_first()
            return {CHUNKS: ResponseStream(self._chunks(request, answer), answer.close)}
        result = whole_answer(answer)
        response = format_chat(result)
        self._log("InvokeModel", request, result, response)
        return {**response, HTTP_HEADERS: token_headers(result)}

    def _chunks(self, request: Parameters, answer: AnswerStream) -> Iterator[Response]:
        """Yield the chunks of an answer, which is logged before its last ones."""
        written: list[Response] = []
        chunks = chat_chunks(answer, with_usage=wants_usage(request))
        last: list[Response] = []
        for chunk in chunks:
            if answer.has_ended:
                last = [chunk, *chunks]
                break
            written.append(chunk)
            yield chunk
        operation = "InvokeModelWithResponseStream"
        self._log(operation, request, answer.result, [*written, *last])
        yield from last

    def _log(
        self, operation: str, request: Parameters, result: InferenceResult, answer: Any
    ) -> None:
        body = dict(request)
        tokens = (result.input_tokens, result.output_tokens)
        self.runtime.log(LoggedCall(operation, body.pop("model"), None, body, answer, *tokens))
