"""Cache of model answers, keyed by content, so that no model answers the same request twice.

One file per model and what runs it (`InferenceSession.answer_keys`),
`CLOUDFT_HOME/answers/DIGEST.jsonl`. Each line holds a request (as a digest) and
its answer or log-likelihood. Lines are appended as answers arrive, so an interrupted run resumes
from there. A line that a kill truncated, or that is damaged, is skipped and its request is sent
again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType

import msgspec
import orjson

from cloudft.errors import BadDocument
from cloudft.inference import Prompt
from cloudft.storage.atomic_files import as_store_error, make_private_folder
from cloudft.storage.documents import Count, decode


def cache_key(*parts: object) -> str:
    """Return the digest of a request: its content, and how the answer is generated.

    `parts` are JSON values.
    """
    content = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:32]


def prompt_to_json(prompt: Prompt) -> object:
    """Return a prompt as a part of a cache key."""
    if prompt.text is not None:
        return prompt.text
    messages = [dict(message) for message in prompt.messages]
    return [messages, prompt.tool_config] if prompt.tool_config else messages


class CachedResult(msgspec.Struct, rename="camel", omit_defaults=True):
    """An answer (`text` and `finish_reason`) or a log-likelihood in nats (with `greedy`)."""

    tokens: Count
    text: str | None = None
    finish_reason: str | None = None
    log_likelihood: float | None = None
    greedy: bool | None = None

    @property
    def is_complete(self) -> bool:
        """Return whether this is a whole answer or a whole log-likelihood."""
        is_answer = self.text is not None and self.finish_reason is not None
        return is_answer or (self.log_likelihood is not None and self.greedy is not None)


class _CachedLine(CachedResult, rename="camel", omit_defaults=True, kw_only=True):
    """A line of the cache's file."""

    key: str


class AnswerCache:
    """The cached results of one model, by request key.

    Two processes may append at once, because each line is written by one call. Raises StoreError
    when the disk refuses a write.
    """

    def __init__(self, folder: Path, answer_key: str) -> None:
        name = hashlib.sha256(answer_key.encode()).hexdigest()[:32]
        self._path = folder / f"{name}.jsonl"
        self._results: dict[str, CachedResult] = {}
        with as_store_error("can't save the answers", self._path):
            make_private_folder(folder)
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            self._load()

    def _load(self) -> None:
        ends_with_newline = True
        for content in self._path.read_bytes().splitlines(keepends=True):
            ends_with_newline = content.endswith(b"\n")
            try:
                line = decode(content, _CachedLine, file=self._path)
            except BadDocument:
                continue
            if line.is_complete:
                self._results[line.key] = line
        # The last line was truncated by a kill: the next append must not continue it.
        if not ends_with_newline:
            os.write(self._file, b"\n")

    def get(self, key: str) -> CachedResult | None:
        """Return the result for a request key, or None when it is not cached."""
        return self._results.get(key)

    def put(self, key: str, result: CachedResult) -> None:
        """Append a result to the file. Raises StoreError."""
        line = orjson.dumps(
            {"key": key, **msgspec.to_builtins(result)}, option=orjson.OPT_APPEND_NEWLINE
        )
        with as_store_error("can't save the answers", self._path):
            os.write(self._file, line)
        self._results[key] = result

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)
