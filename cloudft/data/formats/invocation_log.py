"""Bedrock's invocation logs: a line is one call of a model, with the request and the answer.

Source: Bedrock user guide, "Monitor model invocation using CloudWatch Logs and Amazon S3" (log
entry format, read 2026-10), and a record of ConverseStream in
dheerajoruganty/aws-bedrock-logs-mcp-server (setup.md, 2025-03). The bodies are those of the
operations: Converse's, or the model family's own in InvokeModel ("Inference request parameters and
response fields for foundation models").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cloudft.data.formats.chat_messages import SYSTEM_KEYS, TOOL_KEYS, parse_messages
from cloudft.data.formats.record import Conversation, JsonObject, OmittedRecord, RawRecord
from cloudft.data.formats.record_format import Keys, RecordFormat

NAME = "invocation-log"
SCHEMA_TYPE = "ModelInvocationLog"
LLAMA_TURN = re.compile(
    r"<\|start_header_id\|>(?P<role>\w+)<\|end_header_id\|>\s*(?P<text>.*?)<\|eot_id\|>", re.DOTALL
)
LOG_KEYS = Keys(
    ("schemaType", "input"),
    (
        *("output", "schemaVersion", "timestamp", "accountId", "identity", "region"),
        *("requestId", "operation", "modelId", "requestMetadata", "inferenceRegion"),
        *("errorCode", "performanceConfig", "serviceTier"),
    ),
)
PROMPT_KEYS = ("prompt", "inputText")
"""Keys of a prompt in the bodies of Llama, Cohere, Mistral and Titan."""
ANSWER_PATHS: tuple[tuple[str | int, ...], ...] = (
    ("output", "message", "content"),
    ("choices", 0, "message", "content"),
    ("choices", 0, "text"),
    ("results", 0, "outputText"),
    ("generations", 0, "text"),
    ("outputs", 0, "text"),
    ("generation",),
    ("completion",),
    ("content",),
    ("text",),
)
"""Where a body has its answer: Converse and Nova, OpenAI's forms, Titan, Cohere, Mistral, Llama,
Claude."""
CHUNK_PATHS: tuple[tuple[str | int, ...], ...] = (
    ("contentBlockDelta", "delta", "text"),
    ("delta", "text"),
    ("choices", 0, "delta", "content"),
    ("generation",),
    ("outputText",),
    ("outputs", 0, "text"),
    ("completion",),
    ("text",),
)
"""Where a chunk of a streamed answer has its text."""
STOP_PATHS: tuple[tuple[str | int, ...], ...] = (
    ("stopReason",),
    ("stop_reason",),
    ("results", 0, "completionReason"),
    ("choices", 0, "finish_reason"),
    ("generations", 0, "finish_reason"),
)
CUT_REASONS = {"max_tokens", "length", "LENGTH", "MAX_TOKENS"}
"""Stop reasons of an answer that was cut at its token limit."""


def recognizes(value: RawRecord) -> bool:
    """Return whether a record is one line of an invocation log."""
    return value.get("schemaType") == SCHEMA_TYPE


def parse(value: RawRecord) -> Conversation:
    """Parse the request with the logged answer. Raises BadRecord, and OmittedRecord without one."""
    prompt = prompt_record(value)
    answer = answer_content(value)
    if answer is None:
        raise OmittedRecord("NoAnswer", "the log has no answer of the model", "")
    messages = [*_as_list(prompt["messages"]), {"role": "assistant", "content": answer}]
    return _with_left_out(parse_messages({**prompt, "messages": messages}, NAME), value)


def parse_prompt(value: RawRecord) -> Conversation:
    """Parse the request without the answer. Raises BadRecord, OmittedRecord."""
    return parse_messages(prompt_record(value), NAME, allow_open_end=True)


def prompt_record(value: RawRecord) -> JsonObject:
    """Return the request as a chat record that ends with the user's turn. Raises OmittedRecord."""
    if value.get("errorCode") is not None:
        raise OmittedRecord("NoAnswer", f"the call failed ({value['errorCode']})", "")
    body = _body(value, "input")
    messages = body.get("messages")
    if isinstance(messages, list) and messages:
        kept = (*SYSTEM_KEYS, *TOOL_KEYS)
        return {"messages": messages, **{k: body[k] for k in kept if body.get(k)}}
    text = next((body[k] for k in PROMPT_KEYS if isinstance(body.get(k), str)), None)
    if not text:
        raise OmittedRecord("NoAnswer", "the call is no conversation (an embedding, an image)", "")
    return {"messages": _split_llama_turns(str(text))}


def answer_content(value: RawRecord) -> object | None:
    """Return the content of the logged answer: a text or blocks; None where there is none.

    Raises OmittedRecord for an answer that is in an object of its own.
    """
    body = _raw_body(value, "output")
    if isinstance(body, list):  # a stream: the log has its chunks
        pieces = [_first(chunk, CHUNK_PATHS) for chunk in body]
        return "".join(piece for piece in pieces if isinstance(piece, str)) or None
    found = _first(body, ANSWER_PATHS) if isinstance(body, Mapping) else None
    # Llama's template writes two line ends before an answer: they are no part of it.
    return found.lstrip("\n") if isinstance(found, str) else found


def is_cut(value: RawRecord) -> bool:
    """Return whether the answer was cut at its token limit."""
    output = value.get("output")
    body = output.get("outputBodyJson") if isinstance(output, Mapping) else None
    return _first(body, STOP_PATHS) in CUT_REASONS


def _split_llama_turns(text: str) -> list[object]:
    """Return a prompt's turns: those of Llama's markers, or all of it as the user's."""
    turns = [
        {"role": found["role"], "content": found["text"].strip()}
        for found in LLAMA_TURN.finditer(text)
    ]
    return list(turns) or [{"role": "user", "content": text}]


def _body(value: RawRecord, side: str) -> Mapping[str, object]:
    body = _raw_body(value, side)
    if not isinstance(body, Mapping):
        raise OmittedRecord("NoAnswer", f"the log has no JSON body of the {side}", "")
    return body


def _raw_body(value: RawRecord, side: str) -> object:
    """Return the body of `input` or `output`. Raises OmittedRecord for one in another object."""
    part = value.get(side)
    if not isinstance(part, Mapping):
        return None
    body = part.get(f"{side}BodyJson")
    if body is None and part.get(f"{side}BodyS3Path"):
        message = f"the {side} is larger than 100 KB, and so in an object of its own"
        raise OmittedRecord("NoAnswer", f"{message}: {part[f'{side}BodyS3Path']}", "")
    return body


def _first(value: object, paths: Sequence[Sequence[str | int]]) -> object:
    """Return what is at the first path that leads to something; None for none."""
    for path in paths:
        found: object = value
        for key in path:
            if isinstance(key, int):
                found = found[key] if isinstance(found, list) and len(found) > key else None
            else:
                found = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(found, (str, list)) and found:
            return found
    return None


def _as_list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def _with_left_out(record: Conversation, value: RawRecord) -> Conversation:
    known = {*LOG_KEYS.required, *LOG_KEYS.optional}
    keys = tuple([key for key, item in value.items() if item is not None and key not in known])
    return replace(record, left_out=(*record.left_out, *keys))


def describe(values: Sequence[RawRecord]) -> str:
    """Name the operations and the models."""
    models = sorted({str(value.get("modelId")) for value in values})
    return f"`schemaType` is {SCHEMA_TYPE}, calls of {', '.join(models[:3])}"


FORMAT = RecordFormat(
    name=NAME,
    title="Bedrock invocation logs",
    keys=LOG_KEYS,
    parse=parse,
    describe=describe,
    recognizes=recognizes,
    reads_all_keys=True,
    rewrite_as="converse",
)
