"""Members that several of OpenAI's objects share: ids, usage, finish reasons, fingerprints."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable
from typing import Any

from cloudft import __version__
from cloudft.inference import Answer
from cloudft.serving.engine import LENGTH, EngineEnd, EngineModel

BASE = "base"
"""The variant of a base model."""


def new_object(kind: str, prefix: str, model: EngineModel) -> dict[str, Any]:
    """Return the members that every part of an answer has."""
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model.name,
        "system_fingerprint": fingerprint(model),
    }


def tuned_first(models: Iterable[EngineModel]) -> list[EngineModel]:
    """Return models in the order of lists: clients that take the first one get a tuned model."""
    return sorted(models, key=lambda model: model.variant == BASE)


def fingerprint(model: EngineModel) -> str:
    """Return what changes with the weights or with cloudft: answers may differ then.

    A job's id has the digest of its data and settings in it.
    """
    decides = f"{model.job_id}\n{model.variant}\n{__version__}"
    return f"fp_{hashlib.sha256(decides.encode()).hexdigest()[:12]}"


def usage(answers: Iterable[Answer], prompts: int) -> dict[str, int]:
    """Return the tokens of a request, whose answers share so many prompts: each counts once.

    The answers to one prompt follow each other.
    """
    listed = list(answers)
    each = max(len(listed) // max(prompts, 1), 1)
    prompt = sum(answer.prompt_tokens for answer in listed[::each])
    generated = sum(answer.tokens for answer in listed)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
    }


def finish_reason(end: EngineEnd, *, has_calls: bool = False) -> str:
    """Return why an answer ended, in OpenAI's words."""
    if has_calls:
        return "tool_calls"
    return "length" if end.answer.finish_reason == LENGTH else "stop"
