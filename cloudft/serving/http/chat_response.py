"""Answers of `/v1/chat/completions`, whole or as chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cloudft.serving.engine import EngineDelta, EngineEnd, TokenLogprob
from cloudft.serving.http.chat_request import ChatRequest
from cloudft.serving.http.logprobs import chat_logprobs
from cloudft.serving.http.objects import finish_reason, new_object, usage
from cloudft.serving.http.tools import (
    ToolCall,
    ToolUse,
    new_call_id,
    parse_calls,
    text_before_calls,
)

Chunk = dict[str, Any]


def _with_reasoning(content: Chunk, reasoning: str) -> Chunk:
    """Return a message or delta with reasoning, under the two names that clients read.

    vLLM calls it `reasoning` since 0.16; litellm, the AI SDK and many more read
    `reasoning_content`, as DeepSeek called it.
    """
    if not reasoning:
        return content
    return {**content, "reasoning_content": reasoning, "reasoning": reasoning}


class WholeChat:
    """Collects the answers to a request, and writes them as one object."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in request.requests]
        self.ends: dict[int, EngineEnd] = {}

    def add(self, index: int, event: EngineDelta | EngineEnd) -> None:
        """Add an event of a choice."""
        if isinstance(event, EngineEnd):
            self.ends[index] = event
        else:
            self._logprobs[index] += event.logprobs

    def to_json(self) -> Chunk:
        """Return the object, after the last end."""
        ends = [self.ends[index] for index in range(len(self._request.requests))]
        return {
            **new_object("chat.completion", "chatcmpl", self._request.model),
            "choices": [self._choice(index, end) for index, end in enumerate(ends)],
            "usage": usage([end.answer for end in ends], 1),
        }

    def _choice(self, index: int, end: EngineEnd) -> Chunk:
        calls = parse_calls(self._request.tools, end.answer.text, end.answer.calls)
        text = _content(self._request.tools, end, calls)
        message: Chunk = {"role": "assistant", "content": text or (None if calls else "")}
        message = {**_with_reasoning(message, end.answer.reasoning), "refusal": None}
        if calls:
            message["tool_calls"] = [call.to_json() for call in calls]
        logprobs = self._logprobs[index]
        return {
            "index": index,
            "message": message,
            "logprobs": chat_logprobs(logprobs) if self._request.with_logprobs else None,
            "finish_reason": finish_reason(end, has_calls=bool(calls)),
        }


def _content(use: ToolUse, end: EngineEnd, calls: Sequence[ToolCall]) -> str:
    """Return an answer's text without its calls. One that was cut off amid a call is a text."""
    if use.schema is not None and calls:
        return ""
    return text_before_calls(end.answer.text, end.answer.calls)


class _ChoiceStream:
    """The state of one choice of a stream.

    Where there are tools, the latest text is held back until the next event: the last one may be
    the JSON of calls, which are no text here.
    """

    def __init__(self, request: ChatRequest, index: int) -> None:
        self._request, self._index = request, index
        self._shown = self._pending = ""
        self._is_first = True
        self._call_id = ""

    def chunks(self, event: EngineDelta | EngineEnd) -> Iterator[Chunk]:
        """Yield the choices (each of one chunk) of an event."""
        if self._is_first:
            self._is_first = False
            yield self._choice({"role": "assistant", "content": ""})
        if isinstance(event, EngineEnd):
            yield from self._finish(event)
            return
        text = self._next_text(event.text)
        delta = _with_reasoning({"content": text} if text else {}, event.reasoning)
        if self._request.tools.named is not None and text:
            delta = self._arguments_delta(text)
        if delta or event.logprobs:
            yield self._choice(delta, logprobs=event.logprobs)

    def _next_text(self, text: str) -> str:
        use = self._request.tools
        if use.config is None or use.named is not None:
            self._shown += text
            return text
        if use.schema is not None:  # a call, known when it is whole
            return ""
        text, self._pending = self._pending, text
        self._shown += text
        return text

    def _arguments_delta(self, text: str) -> Chunk:
        """Return a part of the arguments of the named function; the first has id and name."""
        call: Chunk = {"index": 0, "function": {"arguments": text}}
        if not self._call_id:
            self._call_id = new_call_id()
            function = {"name": self._request.tools.named, "arguments": text}
            call = {"index": 0, "id": self._call_id, "type": "function", "function": function}
        return {"tool_calls": [call]}

    def _finish(self, end: EngineEnd) -> Iterator[Chunk]:
        use = self._request.tools
        calls = parse_calls(use, end.answer.text, end.answer.calls)
        if use.named is None:
            text = _content(use, end, calls)
            rest = text[len(self._shown) :] if text.startswith(self._shown) else ""
            if rest:
                yield self._choice({"content": rest})
            for number, call in enumerate(calls):
                yield self._choice({"tool_calls": [{"index": number, **call.to_json()}]})
        # Of a named function parts are out already, whole or not.
        has_calls = bool(calls) or bool(self._call_id)
        is_cut_off = use.named is not None and not calls
        reason = finish_reason(end, has_calls=has_calls and not is_cut_off)
        yield self._choice({}, reason=reason)

    def _choice(
        self,
        delta: Chunk,
        *,
        logprobs: Sequence[TokenLogprob] = (),
        reason: str | None = None,
    ) -> Chunk:
        return {
            "index": self._index,
            "delta": delta,
            "logprobs": chat_logprobs(logprobs) if logprobs else None,
            "finish_reason": reason,
        }


class ChatStream:
    """Writes the answers to a request as chunks."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._object = new_object("chat.completion.chunk", "chatcmpl", request.model)
        self._choices = [_ChoiceStream(request, i) for i in range(len(request.requests))]
        self.ends: dict[int, EngineEnd] = {}
        if request.include_usage:
            self._object["usage"] = None

    def chunks(self, index: int, event: EngineDelta | EngineEnd) -> Iterator[Chunk]:
        """Yield the chunks of an event of a choice."""
        if isinstance(event, EngineEnd):
            self.ends[index] = event
        for choice in self._choices[index].chunks(event):
            yield {**self._object, "choices": [choice]}

    def last_chunks(self) -> Iterator[Chunk]:
        """Yield the chunk with the usage, if it was requested. It has no choices."""
        if self._request.include_usage:
            answers = [end.answer for _, end in sorted(self.ends.items())]
            yield {**self._object, "choices": [], "usage": usage(answers, 1)}
