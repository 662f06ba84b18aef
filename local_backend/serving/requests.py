"""Requests to the engine's process and its replies, as JSON.

Standard input has one JSON object a line. The first says what to load:

    {"open": {"jobs": [{"folder", "name", "jobId", "base"}, ...], "dtype": "auto", "rows": 32}}

and is answered by `{"ready": true, "models": [{"name", "jobId", "variant", "context",
"parameters", "features"}]}`, or `{"error", "fix"}`. `name` is that of the tuned model, null for a
job that has none; `base` that of its base, null to leave that out. Then each has an `id`:

    {"id", "submit": {"model", "prompt", "maxNewTokens", "temperature", "topP", "topK", "seed",
     "stop": [text, ...], "logprobs": null or 0 to 20, "scorePrompt": false,
     "jsonSchema": null or {...}}}
    {"id", "cancel": true}
    {"id", "count": {"model", "prompt"}}
    {"id", "tokenize": {"model", "text", "special": bool} or {"model", "prompt"}}
    {"id", "detokenize": {"model", "ids"}}
    {"id", "tokenizer": {"model"}}
    {"id", "stats": true}

A prompt is `{"messages", "toolConfig"?}`, `{"text"}`, or `{"text": "", "ids"}` with its tokens.
Replies to a submit are any number of `{"id", "delta", "reasoning", "tokens", "logprobs"}` and one
`{"id", "end": {"text", "reasoning", "calls", "tokens", "finishReason", "promptTokens", "ids",
"stopSequence", "firstTokenS"}}` or `{"id", "error", "fix", "code"?}`, where `code` says what is at
fault (`code` of local_backend/errors.py); a token of `logprobs` is `{"token",
"text", "bytes", "logprob", "top": [the same without top]}`. With `scorePrompt` the first of them
also has `"prompt": {"text", "first", "tokens"}`: the text of the prompt and of its first token, and
the other tokens as in `logprobs`. A count is answered by `{"id", "count"}`, the next three by
`{"id", "ids"}`, `{"id", "text"}` and `{"id", "tokenizer": {"bos", "eos", "pad", "template"}}`,
stats by `{"id", "stats": {...}}`. A canceled answer ends with the finish reason
`canceled`. The process ends with its standard input.
"""

from __future__ import annotations

import traceback
from typing import Any, TypedDict

from local_backend.data.chat_messages import JsonObject
from local_backend.errors import ModelFailed, TrainerError
from local_backend.inference.completion import Prompt


class ServedJob(TypedDict):
    """A job whose models are served: its folder, its id, and what its two models are called."""

    folder: str
    jobId: str
    name: str | None
    base: str | None


class OpenRequest(TypedDict, total=False):
    """What is loaded: jobs, the format of the weights, and how many answers are made at once."""

    jobs: list[ServedJob]
    dtype: str
    rows: int


class Submission(TypedDict, total=False):
    """A prompt, and how it is answered."""

    model: str
    prompt: Prompt
    maxNewTokens: int
    temperature: float
    topP: float
    topK: int
    seed: int
    stop: list[str]
    logprobs: int | None
    scorePrompt: bool
    jsonSchema: JsonObject | None


class CountRequest(TypedDict):
    """A prompt whose tokens are counted."""

    model: str
    prompt: Prompt


class TokenizeRequest(TypedDict, total=False):
    """A prompt, or a text, whose tokens are requested; `special`: with BOS where it has one."""

    model: str
    prompt: Prompt
    text: str
    special: bool


class DetokenizeRequest(TypedDict):
    """Tokens whose text is requested."""

    model: str
    ids: list[int]


class EngineLine(TypedDict, total=False):
    """One line of standard input after the first."""

    id: str
    submit: Submission
    cancel: bool
    count: CountRequest
    tokenize: TokenizeRequest
    detokenize: DetokenizeRequest
    tokenizer: dict[str, str]
    stats: bool
    received: float
    """When it was read, by time.monotonic; not of the line itself."""


class ModelReply(TypedDict):
    """A model that requests can name."""

    name: str
    jobId: str
    variant: str
    context: int
    parameters: int
    features: list[str]


Values = dict[str, Any]
"""A reply."""


def error_reply(error: TrainerError) -> Values:
    """Return the reply to a request that can't be answered, without its id."""
    code = {} if error.code is None else {"code": error.code}
    return {"error": error.message, "fix": error.fix, **code}


def preparation_error(error: Exception) -> TrainerError:
    """Return what is replied to a request that could not be prepared; print what nobody expects."""
    if isinstance(error, TrainerError):
        return error
    traceback.print_exception(error)
    return ModelFailed(
        f"The request could not be prepared: {type(error).__name__}",
        fix="send it without what is unusual in it: a schema, tools, nested values.",
    )
