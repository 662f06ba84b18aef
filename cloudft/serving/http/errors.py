"""Errors in the form of OpenAI's API: `{"error": {"message", "type", "param", "code"}}`.

Source: OpenAI API reference, "Error codes"; openai-python 3.57 `_base_client.py` and `_client.py`,
for what a client makes of statuses and of `Retry-After`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
from starlette.responses import Response

from cloudft.errors import CloudftError, EngineBusy, EngineFailed, PromptTooLong

RETRY_AFTER_S = 1
"""Seconds after which a client may try again when too many requests wait."""
CONTEXT_LENGTH = "context_length_exceeded"
"""Code by which clients detect a prompt that is too long."""


@dataclass(eq=False)  # an exception is hashed by its identity
class ApiError(Exception):
    """An error that is answered with `status`. `param` names the member of the body at fault."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, object]:
        """Return the error as OpenAI's API writes it."""
        content = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return {"error": content}

    def response(self) -> Response:
        """Return the error as a response."""
        return Response(
            orjson.dumps(self.body()),
            self.status,
            headers=dict(self.headers),
            media_type="application/json",
        )


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return the error of a body that can't be used."""
    return ApiError(400, message, param=param, code=code)


def model_not_found(name: str, known: list[str]) -> ApiError:
    """Return the error of a model that is not served here."""
    message = f"The model {name[:200]!r} does not exist. Models here: {', '.join(known)}."
    return ApiError(404, message, param="model", code="model_not_found")


def internal_error() -> ApiError:
    """Return the error of a fault of the server. Its cause is in the server's log."""
    message = "The server had an error; its log has the cause, by the response's x-request-id."
    return ApiError(500, message, "server_error", code="internal_error")


def engine_failed(error: CloudftError) -> ApiError:
    """Return the error of a request that is not at fault. Clients try such a request again."""
    return ApiError(503, _with_fix(error), "server_error", code="engine_failed")


def _with_fix(error: CloudftError) -> str:
    return f"{error.message} Fix: {error.fix}" if error.fix else error.message


def from_engine(error: CloudftError, context: int, members: Mapping[str, str]) -> ApiError:
    """Return an error of the engine as one of the API.

    `context` is the model's; `members` maps the fields of EngineRequest to the members of the body
    that they come from. What is said of a prompt that is too long has the words of OpenAI's and
    Anthropic's messages, by which litellm 1.110 and langchain-openai 1.7 detect it.
    """
    message = _with_fix(error)
    if isinstance(error, EngineBusy):
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        return ApiError(
            429, message, "rate_limit_error", code="rate_limit_exceeded", headers=headers
        )
    if isinstance(error, EngineFailed):
        return engine_failed(error)
    param = members.get(error.field or "")
    if isinstance(error, PromptTooLong):
        limit = f"This model's maximum context length is {context} tokens"
        message = f"{limit}: the prompt is too long. {message}"
        return invalid(message, param, CONTEXT_LENGTH)
    return invalid(message, param)
