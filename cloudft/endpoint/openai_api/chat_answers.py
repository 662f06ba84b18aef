"""Write answers as OpenAI's objects: chat completions and text completions, whole and in chunks.

Source: OpenAI API reference for the objects. `reasoning` is the member that bedrock-mantle has
beside them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence

from cloudft.endpoint.bedrock.answer_stream import (
    AnswerPart,
    AnswerStream,
    CallInput,
    CallStart,
    InferenceResult,
    ReasoningPart,
    TextPart,
)
from cloudft.endpoint.protocols.messages import Parameters, Response
from cloudft.endpoint.state import new_id
from cloudft.serving.engine import TokenLogprob
from cloudft.serving.http.logprobs import chat_logprobs

FINISH_REASONS = {"max_tokens": "length", "tool_use": "tool_calls"}
"""OpenAI's `finish_reason` by Converse's; `stop` for others."""


def finish_reason(result: InferenceResult) -> str:
    """Return why an answer ended, in OpenAI's words."""
    return FINISH_REASONS.get(result.stop_reason, "stop")


def openai_usage(result: InferenceResult) -> dict[str, int]:
    """Return OpenAI's `usage`."""
    return {
        "prompt_tokens": result.input_tokens,
        "completion_tokens": result.output_tokens,
        "total_tokens": result.input_tokens + result.output_tokens,
    }


def _object(kind: str, identifier: str, model: str) -> Response:
    """Return the members that all of OpenAI's objects have."""
    return {"id": identifier, "object": kind, "created": int(time.time()), "model": model}


def _choice(
    reason: str | None, scored: Sequence[TokenLogprob] = (), **content: object
) -> list[Response]:
    logprobs = chat_logprobs(scored) if scored else None
    return [{"index": 0, **content, "logprobs": logprobs, "finish_reason": reason}]


def format_chat(result: InferenceResult) -> Response:
    """Return OpenAI's chat completion."""
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": json.dumps(call.arguments, ensure_ascii=False),
            },
        }
        for call in result.calls
    ]
    message = {
        "role": "assistant",
        # Null where the answer is a call and nothing else.
        "content": result.text or (None if calls else ""),
        **({"reasoning": result.reasoning} if result.reasoning else {}),
        **({"tool_calls": calls} if calls else {}),
    }
    made = _object("chat.completion", f"chatcmpl-{new_id()}", result.model_id)
    choices = _choice(finish_reason(result), result.logprobs, message=message)
    return {**made, "choices": choices, "usage": openai_usage(result)}


def chat_chunks(answer: AnswerStream, *, with_usage: bool = False) -> Iterator[Response]:
    """Yield OpenAI's chunks of a chat completion, while it is made.

    The last one has the usage: the one that says why the answer ended, or with `with_usage` one
    more, without choices.
    """
    made = _object("chat.completion.chunk", f"chatcmpl-{new_id()}", answer.model_id)
    yield {**made, "choices": _choice(None, delta={"role": "assistant", "content": ""})}
    calls = 0
    for part in answer:
        calls += isinstance(part, CallStart)
        scored = part.logprobs if isinstance(part, TextPart) else ()
        yield {**made, "choices": _choice(None, scored, delta=_delta(part, calls - 1))}
    choices = _choice(finish_reason(answer.result), delta={})
    yield from _last_chunks(made, choices, answer.result, with_usage=with_usage)


def _delta(part: AnswerPart, call: int) -> Response:
    """Return what a part adds to the message; `call` is the number of the last tool call."""
    if isinstance(part, TextPart):
        return {"content": part.text}
    if isinstance(part, ReasoningPart):
        return {"reasoning": part.text}
    if isinstance(part, CallInput):
        return {"tool_calls": [{"index": call, "function": {"arguments": part.text}}]}
    function = {"name": part.name, "arguments": ""}
    started = {"index": call, "id": part.call_id, "type": "function", "function": function}
    return {"tool_calls": [started]}


def _last_chunks(
    made: Response, choices: list[Response], result: InferenceResult, *, with_usage: bool
) -> Iterator[Response]:
    usage = {"usage": openai_usage(result)}
    if not with_usage:
        yield {**made, "choices": choices, **usage}
        return
    yield {**made, "choices": choices}
    yield {**made, "choices": [], **usage}


def format_completion(result: InferenceResult) -> Response:
    """Return OpenAI's text completion."""
    made = _object("text_completion", f"cmpl-{new_id()}", result.model_id)
    choices = _choice(finish_reason(result), text=result.text)
    return {**made, "choices": choices, "usage": openai_usage(result)}


def completion_chunks(answer: AnswerStream, *, with_usage: bool = False) -> Iterator[Response]:
    """Yield OpenAI's chunks of a text completion, while it is made, as `chat_chunks` does."""
    made = _object("text_completion", f"cmpl-{new_id()}", answer.model_id)
    for part in answer:
        if isinstance(part, TextPart):
            yield {**made, "choices": _choice(None, text=part.text)}
    choices = _choice(finish_reason(answer.result), text="")
    yield from _last_chunks(made, choices, answer.result, with_usage=with_usage)


def wants_usage(body: Parameters) -> bool:
    """Return whether a request for a stream has `stream_options.include_usage`."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True
