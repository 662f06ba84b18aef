"""Show a model's tokens by vLLM's routes: `/tokenize`, `/detokenize` and `/tokenizer_info`.

lm-evaluation-harness takes its tokenizer from them. Without `model` it is the first one of
`/v1/models`. Source: vLLM's documentation, "OpenAI-Compatible Server".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from cloudft.errors import CloudftError
from cloudft.inference import Prompt
from cloudft.serving.engine import Engine, EngineModel, SupportsTokenizer
from cloudft.serving.http.body import decode_body
from cloudft.serving.http.errors import ApiError, from_engine, invalid
from cloudft.serving.http.messages import ChatMessage, to_prompt_messages

FindModel = Callable[[str | None], EngineModel]
"""Returns the model that a request names, or the first one. Raises ApiError."""


class TokenizeBody(Struct, forbid_unknown_fields=True):
    """A text or a conversation whose tokens are requested."""

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = None
    add_special_tokens: bool = True


class DetokenizeBody(Struct, forbid_unknown_fields=True):
    """Tokens whose text is requested."""

    tokens: list[int]
    model: str | None = None


def tokenize(engine: Engine, find_model: FindModel, raw: bytes) -> Mapping[str, Any]:
    """Return the tokens of a text, or of a conversation to answer. Raise ApiError."""
    body = decode_body(raw, TokenizeBody)
    if (body.prompt is None) == (body.messages is None):
        raise invalid("Send either 'prompt' or 'messages'.", "prompt", "invalid_value")
    model = find_model(body.model)
    if body.messages is not None:
        prompt: Prompt | str = Prompt(to_prompt_messages(body.messages))
    else:
        prompt = body.prompt or ""
    special = body.add_special_tokens
    tokens = _call(
        model, lambda: _of(engine).tokenize(model.name, prompt, add_special_tokens=special)
    )
    return {"count": len(tokens), "max_model_len": model.context, "tokens": list(tokens)}


def detokenize(engine: Engine, find_model: FindModel, raw: bytes) -> Mapping[str, Any]:
    """Return the text of tokens. Raise ApiError."""
    body = decode_body(raw, DetokenizeBody)
    model = find_model(body.model)
    return {"prompt": _call(model, lambda: _of(engine).detokenize(model.name, body.tokens))}


def show_tokenizer(engine: Engine, find_model: FindModel) -> Mapping[str, Any]:
    """Return the first model's special tokens and chat template. Raise ApiError."""
    model = find_model(None)
    info = _call(model, lambda: _of(engine).tokenizer_info(model.name))
    return {
        "bos_token": info.bos_token,
        "eos_token": info.eos_token,
        "pad_token": info.pad_token,
        "chat_template": info.chat_template,
        "model_max_length": model.context,
    }


def _of(engine: Engine) -> SupportsTokenizer:
    if not isinstance(engine, SupportsTokenizer):
        raise ApiError(404, "This engine does not show its tokens.", code="unknown_url")
    return engine


def _call(model: EngineModel, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except CloudftError as error:
        raise from_engine(error, model.context, {"prompt": "prompt"}) from error
