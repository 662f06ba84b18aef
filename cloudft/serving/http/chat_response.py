"""Answers of `/v1/chat/completions`, whole or as chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudft.serving.engine import EngineDelta, EngineEnd, TokenLogprob
from cloudft.serving.http.answer_writers import AnswerStream, Chunk, WholeAnswer
from cloudft.serving.http.chat_request import ChatRequest
from cloudft.serving.http.logprobs import chat_logprobs
from cloudft.serving.http.objects import finish_reason
from cloudft.serving.http.tools import (
    ToolCall,
    ToolUse,
    new_call_id,
    parse_calls,
    text_before_calls,
)


def _with_reasoning(content: Chunk, reasoning: str) -> Chunk:
    """Return a message or delta with reasoning, under the two names that clients read.

    vLLM calls it `reasoning` since 0.16; litellm, the AI SDK and many more read
    `reasoning_content`, as DeepSeek called it.
    """
    if not reasoning:
        return content
    return {**content, "reasoning_content": reasoning, "reasoning": reasoning}


class WholeChat(WholeAnswer):
    """The answers to a request, as one object."""

    kind, id_prefix = "chat.completion", "chatcmpl"

    def __init__(self, request: ChatRequest) -> None:
        super().__init__(request)
        self._tools = request.tools

    def _choice(self, index: int, end: EngineEnd, logprobs: Sequence[TokenLogprob]) -> Chunk:
        calls = parse_calls(self._tools, end.answer.text, end.answer.calls)
        text = _content(self._tools, end, calls)
        message: Chunk = {"role": "assistant", "content": text or (None if calls else "")}
        message = {**_with_reasoning(message, end.answer.reasoning), "refusal": None}
        if calls:
            message["tool_calls"] = [call.to_json() for call in calls]
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

    def __init__(self, tools: ToolUse, index: int) -> None:
        self._tools, self._index = tools, index
        self._shown = self._pending = ""
        self._is_first = True
        self._call_id = ""

    def parts(self, event: EngineDelta | EngineEnd) -> Iterator[Chunk]:
        """Yield what an event adds to the choice, each for one chunk."""
        if self._is_first:
            self._is_first = False
            yield self._choice({"role": "assistant", "content": ""})
        if isinstance(event, EngineEnd):
            yield from self._finish(event)
            return
        text = self._next_text(event.text)
        delta = _with_reasoning({"content": text} if text else {}, event.reasoning)
        if self._tools.named is not None and text:
            delta = self._arguments_delta(text)
        if delta or event.logprobs:
            yield self._choice(delta, logprobs=event.logprobs)

    def _next_text(self, text: str) -> str:
        use = self._tools
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
            function = {"name": self._tools.named, "arguments": text}
            call = {"index": 0, "id": self._call_id, "type": "function", "function": function}
        return {"tool_calls": [call]}

    def _finish(self, end: EngineEnd) -> Iterator[Chunk]:
        use = self._tools
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


class ChatStream(AnswerStream):
    """The answers to a request, as chunks."""

    kind, id_prefix = "chat.completion.chunk", "chatcmpl"

    def __init__(self, request: ChatRequest) -> None:
        super().__init__(request)
        self._choices = [_ChoiceStream(request.tools, i) for i in range(len(request.requests))]

    def _parts(self, index: int, event: EngineDelta | EngineEnd) -> Iterator[Chunk]:
        return self._choices[index].parts(event)
