"""Answer one request by an engine: its events become the parts and the whole of an answer."""

from __future__ import annotations

import queue
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from types import TracebackType

from cloudft.data.formats.record import ToolCall, join_answer
from cloudft.endpoint.bedrock.answer_stream import (
    Answering,
    AnswerPart,
    InferenceResult,
    ReasoningPart,
    TextPart,
)
from cloudft.endpoint.bedrock.inference_request import InferenceRequest
from cloudft.endpoint.bedrock.tool_calls import (
    CallReader,
    Schema,
    call_or_text_schema,
    call_parts,
    call_schema,
    calls_schema,
    new_call_id,
    parse_calls,
)
from cloudft.endpoint.protocols.messages import ConnectionDropped, ServiceError
from cloudft.endpoint.request_context import caller_is_gone
from cloudft.errors import CloudftError, EngineBusy, PromptTooLong, RequestRefused, UsageError
from cloudft.serving.engine import (
    LENGTH,
    STOP_SEQUENCE,
    Engine,
    EngineDelta,
    EngineEnd,
    EngineEvent,
    EngineFailure,
    EngineModel,
    EngineRequest,
    TokenLogprob,
)

POLL_S = 0.25
"""How often it is checked, while no token comes, whether the caller still waits."""
BUSY = ("ThrottlingException", "Too many requests, please wait before trying again.")
MODEL_ERRORS = "The model returned the following errors:"
"""How Bedrock begins what a model itself refuses."""
TOO_LONG = "Input is too long for requested model."
"""Source: continuedev/continue, issue 6005."""
STOP_REASONS = {LENGTH: "max_tokens", STOP_SEQUENCE: "stop_sequence"}
"""Converse's `stopReason` by the engine's finish reason; `end_turn` for others."""


@dataclass(frozen=True)
class EngineUse:
    """An engine, and which of its models answers."""

    engine: Engine
    model: EngineModel


def answer_by_engine(use: EngineUse, request: InferenceRequest) -> Answering:
    """Yield the parts of an answer while it is made, and return the whole. Raises ServiceError.

    Raises ConnectionDropped, and cancels, once the caller is gone.
    """
    tools = request.tools
    schemas = tools.input_schemas
    if tools.forced:
        forced = call_schema([(name, schemas[name]) for name in tools.forced])
        return (yield from _answer_with_call(use, request, forced))
    if schemas and request.json_schema is not None:
        either = call_or_text_schema([*schemas.items()], request.json_schema)
        return (yield from _answer_with_either(use, request, either))
    result = yield from _answer_freely(use, request)
    if not tools.parallel:
        result = replace(result, calls=result.calls[:1])
    called = [call.name for call in result.calls]
    if not tools.strict & {*called}:
        yield from call_parts(result.calls)
        return result
    # What was called freely need not keep the schema: the same tools are called again, within it.
    again = calls_schema([(name, schemas[name]) for name in called])
    strict = yield from _answer_with_call(use, request, again)
    tokens = result.output_tokens + strict.output_tokens
    return replace(strict, text=result.text, reasoning=result.reasoning, output_tokens=tokens)


def _answer_freely(
    use: EngineUse, request: InferenceRequest
) -> Generator[AnswerPart, None, InferenceResult]:
    """Yield text and reasoning, and return the answer; its calls are not among the parts."""
    text = reasoning = ""
    held: EngineDelta | None = None
    with EngineAnswer(use, request, request.json_schema) as answer:
        for delta in answer:
            # The last delta may have the calls, as people read them: they are no text here.
            # Without tools there are none, and no delta needs to wait for the next.
            ready, held = (held, delta) if request.tools.config else (delta, None)
            if ready is not None:
                yield from _parts(ready.text, ready.reasoning, answer.take_logprobs(ready.text))
                text, reasoning = text + ready.text, reasoning + ready.reasoning
        result = replace(to_result(answer.end), logprobs=tuple(answer.logprobs))
        rest = _rest(result.text, text)
        scored = answer.take_logprobs(rest)
    yield from _parts(rest, _rest(result.reasoning, reasoning), scored)
    return result


def _parts(
    text: str, reasoning: str, logprobs: tuple[TokenLogprob, ...] = ()
) -> Iterator[AnswerPart]:
    if reasoning:
        yield ReasoningPart(reasoning)
    if text:
        yield TextPart(text, logprobs)


def _rest(whole: str, sent: str) -> str:
    return whole[len(sent) :] if whole.startswith(sent) else ""


def _answer_with_call(use: EngineUse, request: InferenceRequest, schema: Schema) -> Answering:
    """Yield the parts of an answer that has to be calls, and return it."""
    reader, is_one = CallReader(), "prefixItems" not in schema
    with EngineAnswer(use, request, schema) as answer:
        for delta in answer:
            yield from _parts("", delta.reasoning)
            if is_one:
                yield from reader.feed(delta.text)
        whole = answer.end.answer.text
        result = to_result(answer.end)
    calls = parse_calls(whole, [*request.tools.input_schemas])
    if is_one:
        yield from reader.feed(_rest(whole, reader.text))
        calls = tuple(replace(call, id=reader.call_id) for call in calls)
    else:
        yield from call_parts(calls)
    # An answer that was cut is no call: its text is a part of a JSON object.
    reason = "tool_use" if calls else result.stop_reason
    return replace(result, text="", calls=calls, stop_reason=reason)


def _answer_with_either(use: EngineUse, request: InferenceRequest, schema: Schema) -> Answering:
    """Yield the parts of an answer that is a call or a JSON text, and return it."""
    with EngineAnswer(use, request, schema) as answer:
        for delta in answer:
            yield from _parts("", delta.reasoning)
        result = to_result(answer.end)
        calls = parse_calls(answer.end.answer.text, [*request.tools.input_schemas])
    if calls:
        result = replace(result, text="", calls=calls, stop_reason="tool_use")
    yield from _parts(result.text, "")
    yield from call_parts(result.calls)
    return result


class EngineAnswer:
    """One request under way: iterating yields what is new; then `end` is there.

    Leaving its context cancels what is not made yet. Raises ServiceError, and ConnectionDropped
    once the caller is gone.
    """

    def __init__(self, use: EngineUse, request: InferenceRequest, schema: Schema | None) -> None:
        self._use, self._request, self._schema = use, request, schema
        self._events: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
        self._end: EngineEnd | None = None
        self.logprobs: list[TokenLogprob] = []
        """Those of the tokens so far."""
        self._taken = 0

    def take_logprobs(self, text: str) -> tuple[TokenLogprob, ...]:
        """Return those that no text had before; none where there is no text to have them."""
        if not text:
            return ()
        taken, self._taken = self._taken, len(self.logprobs)
        return tuple(self.logprobs[taken:])

    def __enter__(self) -> EngineAnswer:
        request = self._request
        submitted = EngineRequest(
            self._use.model.name,
            request.prompt,
            request.generation_config,
            stop=request.stop_sequences,
            logprobs=request.logprobs,
            json_schema=self._schema,
        )
        try:
            self._id = self._use.engine.submit(submitted, self._events.put)
        except CloudftError as error:
            raise to_service_error(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._use.engine.cancel(self._id)

    def __iter__(self) -> Iterator[EngineDelta]:
        """Yield what is new, as it is made."""
        while self._end is None:
            try:
                event: EngineEvent | None = self._events.get(timeout=POLL_S)
            except queue.Empty:
                event = None
            if caller_is_gone():
                raise ConnectionDropped
            if isinstance(event, EngineFailure):
                raise to_service_error(event.error) from event.error
            if isinstance(event, EngineEnd):
                self._end = event
            elif event is not None:
                self.logprobs += event.logprobs
                yield event

    @property
    def end(self) -> EngineEnd:
        """Return the end of the answer, after the last delta."""
        assert self._end is not None, "the answer has not ended"
        return self._end


def to_service_error(error: CloudftError) -> ServiceError:
    """Return an error of the engine in Bedrock's words, where it has some."""
    if isinstance(error, EngineBusy):
        return ServiceError(*BUSY)
    if isinstance(error, PromptTooLong):
        return ServiceError("ValidationException", TOO_LONG)
    text = f"{error.message} {error.fix or ''}".strip()
    if isinstance(error, RequestRefused | UsageError):
        return ServiceError("ValidationException", f"{MODEL_ERRORS} {text}")
    return ServiceError("ModelErrorException", text)


def to_result(end: EngineEnd) -> InferenceResult:
    """Return the result of an answer that has ended."""
    answer = end.answer
    calls = tuple(ToolCall(new_call_id(), call["name"], call["arguments"]) for call in answer.calls)
    # The text of an answer has its calls at its end, as people read them.
    text = answer.text.removesuffix(join_answer("", calls)).rstrip() if calls else answer.text
    reason = STOP_REASONS.get(answer.finish_reason, "end_turn")
    return InferenceResult(
        text,
        "tool_use" if calls else reason,
        answer.prompt_tokens,
        answer.tokens,
        stop_sequence=end.stop_sequence,
        reasoning=answer.reasoning,
        calls=calls,
    )
