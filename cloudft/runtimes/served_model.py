"""Find out which model a server answers with, and recognize it when it was replaced.

No server says what its weights are, so its answers may only be cached together with what it
answers to a fixed prompt: another model, template or precision gives other log-probabilities.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from cloudft.errors import CloudRefused, UsageError
from cloudft.inference import GenerationConfig, Prompt
from cloudft.runtimes.chat_request import build_request
from cloudft.runtimes.openai_client import OpenAIClient

SAMPLE = Prompt([{"role": "user", "content": "Name three colors and one number between 1 and 9."}])
"""The prompt that a model is recognized by."""
SAMPLE_TOKENS = 12
DIGITS = 2
"""Decimals of a log-probability that two runs of one server share."""
VERSION_PATHS = ("/version", "/props", "/api/version")
"""Where vLLM, llama.cpp and Ollama have their version."""
MAX_NAMES_SHOWN = 8


@dataclass(frozen=True)
class ServedModel:
    """A model of a server. `digest` changes with what it answers, as far as a sample shows.

    `title` and `place` name it in evaluations and in the cache: its address, or, of a server that
    was started for one evaluation, the digest of its files.
    """

    server: OpenAIClient
    name: str
    title: str
    place: str
    version: str | None
    digest: str

    @property
    def identity(self) -> str:
        """Return what names the model in an evaluation."""
        version = f" ({self.version})" if self.version else ""
        return f"{self.title} at {self.place}{version}, answers {self.digest[:12]}"

    @property
    def answer_key(self) -> str:
        """Return all that decides its answers to a request, as far as is known."""
        return f"{self.place} {self.title} {self.version} {self.digest}"


def find_served_model(
    server: OpenAIClient,
    name: str | None,
    expected: Sequence[str] = (),
    *,
    option: str = "--engine-model",
) -> ServedModel:
    """Return the model called `name`; without one, the only model or one of the `expected` names.

    Raise UsageError for a name that the server does not list: some answer with another model. Its
    remedy is the `option` that has the name.
    """
    listed = _list_models(server)
    chosen = _choose(server, name, listed, expected, option)
    digest = sample_digest(server, chosen)
    return ServedModel(server, chosen, chosen, server.url, read_version(server), digest)


def _list_models(server: OpenAIClient) -> list[Mapping[str, Any]]:
    reply = server.get("/v1/models")
    found = reply.get("data")
    if not isinstance(found, list):
        raise CloudRefused(
            f"{server.url}/v1/models lists no models",
            fix="name the address of an OpenAI-compatible server: openai:http://HOST:PORT/v1",
        )
    return [one for one in found if isinstance(one, dict) and isinstance(one.get("id"), str)]


def _choose(
    server: OpenAIClient,
    name: str | None,
    listed: Sequence[Mapping[str, Any]],
    expected: Sequence[str],
    option: str,
) -> str:
    ids = [str(one["id"]) for one in listed]
    aliases = [alias for one in listed for alias in one.get("aliases") or ()]
    if name is not None:
        # Ollama lists NAME:latest and takes NAME.
        if name in ids or name in aliases or f"{name}:latest" in ids:
            return name
    elif len(ids) == 1:
        return ids[0]
    else:
        found = next((one for one in expected if one in ids), None)
        if found is not None:
            return found
    shown = ", ".join(ids[:MAX_NAMES_SHOWN]) or "none"
    what = f"{server.url} has no model {name!r}" if name else f"{server.url} has several models"
    raise UsageError(f"{what}: it lists {shown}", fix=f"name one that it lists: {option} NAME")


def read_version(server: OpenAIClient) -> str | None:
    """Return the version that a server states, None for one that states none."""
    for path in VERSION_PATHS:
        found = server.find(path) or {}
        for key in ("version", "build_info"):
            if isinstance(found.get(key), str):
                return str(found[key])[:80]
    return None


def sample_digest(server: OpenAIClient, name: str) -> str:
    """Return the digest of a model's greedy answer to a fixed prompt, with log-probabilities.

    Without these for a server that refuses to give them.
    """
    path, body = build_request(SAMPLE, name, GenerationConfig(max_new_tokens=SAMPLE_TOKENS))
    try:
        reply = server.post(path, {**body, "logprobs": True, "top_logprobs": 1})
    except CloudRefused:
        reply = server.post(path, body)
    choices = reply.get("choices") or [{}]
    content = [(one.get("message") or {}).get("content") for one in choices]
    scores = [
        round(float(token.get("logprob") or 0.0), DIGITS)
        for one in choices
        for token in (one.get("logprobs") or {}).get("content") or ()
    ]
    return hashlib.sha256(orjson.dumps([content, scores])).hexdigest()
