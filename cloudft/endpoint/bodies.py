"""InvokeModel's bodies: each family of models has its own shape, and its own pieces of a stream.

Source of the shapes: Bedrock user guide, "Inference request parameters and response fields for
foundation models"; for imported models "Invoke your imported model".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudft.endpoint.answering import Question, Reply
from cloudft.endpoint.wire import WireError, loads

Body = Mapping[str, Any]
LIMITS: Mapping[str, Callable[[Any], bool]] = {
    "maxTokens": lambda value: type(value) is int and value >= 0,
    "temperature": lambda value: type(value) in (int, float) and 0 <= value <= 5,
    "topP": lambda value: type(value) in (int, float) and 0 <= value <= 1,
    "stopSequences": lambda value: (
        type(value) is list and all(type(word) is str and word for word in value)
    ),
}
"""What a limit may be: the widest that any family takes."""
LLAMA_TURN = re.compile(
    r"<\|start_header_id\|>(?P<role>\w+)<\|end_header_id\|>\s*(?P<text>.*?)<\|eot_id\|>", re.S
)


@dataclass(frozen=True)
class Family:
    """How to read a request of that family, and to tell the reply: whole, or piece by piece."""

    read: Callable[[Body, bool], Question]
    tell: Callable[[Reply], Body]
    pieces: Callable[[Reply], Iterator[Body]]


def family_of(base: str, *, imported: bool = False) -> Family:
    """The family of a model id. Raises ValidationException for one that has no such body here."""
    if imported:
        return IMPORTED
    found = next((made for start, made in FAMILIES.items() if base.startswith(start)), None)
    if found is None:
        raise WireError("ValidationException", f"{base} can't be invoked here; use Converse.")
    return found


def parse(body: bytes) -> Body:
    """The JSON object of a request. Raises ValidationException."""
    try:
        content = loads(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise WireError("ValidationException", "Malformed input request: it is no JSON object")
    return content


def read(family: Family, body: Body, *, raw: bool) -> Question:
    """The question in a body; `raw` for a model that goes on with text. Raises WireError."""
    try:
        return family.read(body, raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"Malformed input request: {type(error).__name__} {error}"
        raise WireError("ValidationException", what) from None


def words(text: str) -> Iterator[str]:
    """The text in the pieces of a stream."""
    yield from re.findall(r"\s*\S+|\s+$", text)


def texts(content: Any) -> str:
    """The text of a message's content: text itself, or blocks of which some are text."""
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if "text" in block)


def conversation(messages: Any, system: Any = None) -> tuple[Mapping[str, str], ...]:
    """Messages in the one form, the system's first."""
    first = ({"role": "system", "content": texts(system)},) if system else ()
    turns = tuple({"role": str(m["role"]), "content": texts(m["content"])} for m in messages)
    return (*first, *_begun(turns))


def _begun(turns: Sequence[Mapping[str, str]]) -> tuple[Mapping[str, str], ...]:
    """The turns. Raises ValueError when they are not the user's at first: a model answers those."""
    said = [turn["role"] for turn in turns if turn["role"] != "system"]
    if not said:
        raise ValueError("there is no message")
    if said[0] != "user":
        raise ValueError("a conversation must start with a user message")
    return tuple(turns)


def _prompt(text: str, raw: bool, limits: Body) -> Question:
    if not isinstance(text, str):
        raise TypeError("the prompt is no text")
    if raw:
        return Question(text=text, limits=limits)
    turns = [
        {"role": m["role"], "content": m["text"].strip()} for m in LLAMA_TURN.finditer(text)
    ] or [{"role": "user", "content": text}]
    return Question(messages=_begun(turns), limits=limits)


def _limits(body: Body, names: Mapping[str, str]) -> dict[str, Any]:
    limits = {ours: body[theirs] for theirs, ours in names.items() if body.get(theirs) is not None}
    for name, value in limits.items():
        if not LIMITS[name](value):
            raise ValueError(f"{name} can't be {str(value)[:100]}")
    return limits


def _read_titan(body: Body, raw: bool) -> Question:
    names = {
        "maxTokenCount": "maxTokens",
        "temperature": "temperature",
        "topP": "topP",
        "stopSequences": "stopSequences",
    }
    return _prompt(body["inputText"], raw, _limits(body.get("textGenerationConfig", {}), names))


def _titan(reply: Reply) -> Body:
    reason = {"max_tokens": "LENGTH", "stop_sequence": "STOP_CRITERIA_MET"}.get(reply.stop)
    result = {
        "tokenCount": reply.tokens_out,
        "outputText": reply.text,
        "completionReason": reason or "FINISH",
    }
    return {"inputTextTokenCount": reply.tokens_in, "results": [result]}


def _titan_pieces(reply: Reply) -> Iterator[Body]:
    whole = _titan(reply)
    result = whole["results"][0]
    pieces = list(words(reply.text)) or [""]
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        yield {
            "outputText": piece,
            "index": 0,
            "totalOutputTextTokenCount": reply.tokens_out if last else None,
            "completionReason": result["completionReason"] if last else None,
            "inputTextTokenCount": reply.tokens_in if number == 0 else None,
        }


NOVA_LIMITS = {
    "maxTokens": "maxTokens",
    "max_new_tokens": "maxTokens",
    "temperature": "temperature",
    "topP": "topP",
    "top_p": "topP",
    "stopSequences": "stopSequences",
}


def _read_nova(body: Body, raw: bool) -> Question:
    turns = conversation(body["messages"], body.get("system"))
    return Question(messages=turns, limits=_limits(body.get("inferenceConfig", {}), NOVA_LIMITS))


def usage(reply: Reply) -> dict[str, int]:
    """Converse's `usage`."""
    return {
        "inputTokens": reply.tokens_in,
        "outputTokens": reply.tokens_out,
        "totalTokens": reply.tokens_in + reply.tokens_out,
    }


def _nova(reply: Reply) -> Body:
    message = {"role": "assistant", "content": [{"text": reply.text}]}
    return {"output": {"message": message}, "stopReason": reply.stop, "usage": usage(reply)}


def events(reply: Reply) -> Iterator[tuple[str, dict[str, Any]]]:
    """ConverseStream's events, by name."""
    yield "messageStart", {"role": "assistant"}
    for piece in words(reply.text):
        yield "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": piece}}
    yield "contentBlockStop", {"contentBlockIndex": 0}
    yield "messageStop", {"stopReason": reply.stop}
    yield "metadata", {"usage": usage(reply), "metrics": {"latencyMs": 0}}


def _nova_pieces(reply: Reply) -> Iterator[Body]:
    return ({name: content} for name, content in events(reply))


def _read_llama(body: Body, raw: bool) -> Question:
    names = {"max_gen_len": "maxTokens", "temperature": "temperature", "top_p": "topP"}
    return _prompt(body["prompt"], raw, _limits(body, names))


def _llama(reply: Reply) -> Body:
    return {
        "generation": reply.text,
        "prompt_token_count": reply.tokens_in,
        "generation_token_count": reply.tokens_out,
        "stop_reason": "length" if reply.stop == "max_tokens" else "stop",
    }


def _llama_pieces(reply: Reply) -> Iterator[Body]:
    pieces = list(words(reply.text)) or [""]
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        yield {
            "generation": piece,
            "prompt_token_count": reply.tokens_in if number == 0 else None,
            "generation_token_count": reply.tokens_out if last else number + 1,
            "stop_reason": _llama(reply)["stop_reason"] if last else None,
        }


def _read_claude(body: Body, raw: bool) -> Question:
    names = {
        "max_tokens": "maxTokens",
        "temperature": "temperature",
        "top_p": "topP",
        "stop_sequences": "stopSequences",
    }
    turns = conversation(body["messages"], body.get("system"))
    return Question(messages=turns, limits=_limits(body, names))


def _claude(reply: Reply) -> Body:
    return {
        "id": "msg_local",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": reply.text}],
        "stop_reason": reply.stop,
        "stop_sequence": None,
        "usage": {"input_tokens": reply.tokens_in, "output_tokens": reply.tokens_out},
    }


def _claude_pieces(reply: Reply) -> Iterator[Body]:
    whole = _claude(reply)
    start = whole | {"content": [], "stop_reason": None}  # type: ignore[operator]
    yield {"type": "message_start", "message": start}
    block = {"type": "text", "text": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    for piece in words(reply.text):
        delta = {"type": "text_delta", "text": piece}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    ending = {"stop_reason": reply.stop, "stop_sequence": None}
    yield {
        "type": "message_delta",
        "delta": ending,
        "usage": {"output_tokens": reply.tokens_out},
    }
    yield {"type": "message_stop"}


def _read_cohere(body: Body, raw: bool) -> Question:
    names = {
        "max_tokens": "maxTokens",
        "temperature": "temperature",
        "p": "topP",
        "stop_sequences": "stopSequences",
    }
    return _prompt(body["prompt"], raw, _limits(body, names))


def _cohere(reply: Reply) -> Body:
    reason = "MAX_TOKENS" if reply.stop == "max_tokens" else "COMPLETE"
    return {
        "id": "local",
        "generations": [{"id": "local", "text": reply.text, "finish_reason": reason}],
    }


def _cohere_pieces(reply: Reply) -> Iterator[Body]:
    for piece in words(reply.text):
        yield {"text": piece, "is_finished": False}
    yield {"is_finished": True, "finish_reason": _cohere(reply)["generations"][0]["finish_reason"]}


def _read_imported(body: Body, raw: bool) -> Question:
    """Bedrock's completion, or OpenAI's completion or chat."""
    if "messages" in body:
        return _read_claude(body, raw)
    names = {
        "max_gen_len": "maxTokens",
        "max_tokens": "maxTokens",
        "temperature": "temperature",
        "top_p": "topP",
    }
    return _prompt(body["prompt"], True, _limits(body, names))


FAMILIES = {
    "amazon.titan": Family(_read_titan, _titan, _titan_pieces),
    "amazon.nova": Family(_read_nova, _nova, _nova_pieces),
    "meta.llama": Family(_read_llama, _llama, _llama_pieces),
    "anthropic.claude": Family(_read_claude, _claude, _claude_pieces),
    "cohere.command": Family(_read_cohere, _cohere, _cohere_pieces),
}
IMPORTED = Family(_read_imported, _llama, _llama_pieces)


def _openai(reply: Reply, choice: Body) -> Body:
    ended = "length" if reply.stop == "max_tokens" else "stop"
    used = {
        "prompt_tokens": reply.tokens_in,
        "completion_tokens": reply.tokens_out,
        "total_tokens": reply.tokens_in + reply.tokens_out,
    }
    return {"choices": [{"index": 0, "finish_reason": ended, **choice}], "usage": used}


def _chat(reply: Reply) -> Body:
    message = {"role": "assistant", "content": reply.text}
    return {"object": "chat.completion", **_openai(reply, {"message": message})}


def _completion(reply: Reply) -> Body:
    return {"object": "text_completion", **_openai(reply, {"text": reply.text})}


def form(family: Family, body: Body) -> Family:
    """An imported model answers in the form in which it is asked: Bedrock's, or OpenAI's."""
    if family is not IMPORTED or not ("messages" in body or "max_tokens" in body):
        return family
    return Family(family.read, _chat if "messages" in body else _completion, family.pieces)
