"""Requests of `/v1/completions`: text that is continued, without a chat template.

Source: OpenAI API reference, "Create completion" (legacy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from cloudft.inference import Prompt
from cloudft.serving.engine import EngineModel, EngineRequest
from cloudft.serving.http.answer_writers import AnswerRequest
from cloudft.serving.http.body import (
    MAX_CHOICES,
    NEUTRAL,
    CommonBody,
    check_stream_options,
    decode_body,
    require_neutral,
    stop_texts,
    wants_usage,
)
from cloudft.serving.http.decoding import read_decoding
from cloudft.serving.http.errors import ApiError, invalid
from cloudft.serving.http.response_format import read_response_format

DEFAULT_MAX_TOKENS = 16
"""Tokens of an answer, by OpenAI's reference."""


class CompletionBody(CommonBody, kw_only=True, forbid_unknown_fields=True):
    """The body of a completion. `best_of` is allowed where it chooses nothing."""

    prompt: str | list[str | int | list[int]]
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    suffix: str | None = None


@dataclass(frozen=True, kw_only=True)
class CompletionRequest(AnswerRequest):
    """A completion to answer. `echoes` are the texts that each answer begins with.

    With `echo` and `logprobs` the tokens of the prompt are scored, too: the answer begins with the
    text that the engine has of them, which for an array of tokens is the only one.
    """

    echoes: Sequence[str]


def parse_completion(raw: bytes) -> CompletionBody:
    """Return the body of a completion. Raise ApiError."""
    body = decode_body(raw, CompletionBody)
    require_neutral(body, {**NEUTRAL, "suffix": ("",)})
    if body.best_of is not None and body.best_of != (body.n or 1):
        message = "'best_of' above 'n' is not supported: it would choose among unseen answers."
        raise invalid(message, "best_of", "unsupported_parameter")
    check_stream_options(body)
    if body.max_tokens == 0 and not body.echo:
        message = "'max_tokens' is 0, which needs 'echo': true."
        raise invalid(message, "max_tokens", "invalid_value")
    return body


def make_completion_request(body: CompletionBody, model: EngineModel) -> CompletionRequest:
    """Return what the engine gets for a body. Raise ApiError."""
    scores_prompt = bool(body.echo) and body.logprobs is not None
    prompts = _prompts(body.prompt, echo=bool(body.echo) and not scores_prompt)
    schema = read_response_format(body.response_format)
    stops, choices = stop_texts(body.stop), body.n or 1
    if len(prompts) * choices > MAX_CHOICES:
        message = f"A request has {MAX_CHOICES} answers at most: prompts times 'n'."
        raise invalid(message, "n", "invalid_value")
    limit = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    requests = [
        EngineRequest(model.name, prompt, decoding, stops, body.logprobs, schema, scores_prompt)
        for prompt in prompts
        # For each prompt: without a seed, equal prompts have answers of their own.
        for decoding in read_decoding(body, choices, limit)
    ]
    echoes = [
        (prompt.text or "") if body.echo else "" for prompt in prompts for _ in range(choices)
    ]
    return CompletionRequest(
        model=model,
        requests=requests,
        members={"prompt": "prompt", "json_schema": "response_format"},
        with_logprobs=body.logprobs is not None,
        stream=bool(body.stream),
        include_usage=wants_usage(body),
        prompts=len(prompts),
        echoes=echoes,
    )


def _prompts(value: str | list[str | int | list[int]], *, echo: bool) -> list[Prompt]:
    """Return the prompts of a body: texts, or tokens of the model. Raise ApiError."""
    if isinstance(value, str):
        return [Prompt(text=value)]
    if not value:
        raise _wrong("'prompt' is empty.")
    if all(isinstance(part, int) for part in value):
        return [_token_prompt(value, echo)]
    if all(isinstance(part, str) for part in value):
        return [Prompt(text=str(part)) for part in value]
    if all(isinstance(part, list) for part in value):
        return [_token_prompt(part, echo) for part in value]
    raise _wrong("'prompt' mixes texts and tokens.")


def _token_prompt(tokens: Any, echo: bool) -> Prompt:
    """Return the prompt of a list of tokens. Raise ApiError for one whose text is requested."""
    if echo:
        message = "'echo' with an array of tokens needs 'logprobs'; or send the text."
        raise invalid(message, "echo", "unsupported_parameter")
    return Prompt(text="", token_ids=tokens)


def _wrong(message: str) -> ApiError:
    return invalid(message, "prompt", "invalid_value")
