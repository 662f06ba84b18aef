"""What models have said, kept by content: the same question is not asked twice of one model.

A file a model, `CLOUDFT_HOME/answers/DIGEST.jsonl`: a line is what was asked (as a digest) and what
came back. Lines are appended as they come, so whoever breaks off goes on from there; one that a
kill cut short, or that is damaged, is left out: its question is asked again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import orjson

from cloudft.errors import BadDocument
from cloudft.storage.atomic_files import as_store_error, make_private_folder
from cloudft.storage.documents import Count, decode


def cache_key(*parts: Any) -> str:
    """The name of a question: what it says, and how the answer is made."""
    content = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:32]


class _CachedLine(msgspec.Struct, rename="camel"):
    """An answer, or a likelihood."""

    key: str
    tokens: Count
    text: str | None = None
    finish_reason: str | None = None
    log_likelihood: float | None = None
    greedy: bool | None = None

    @property
    def is_complete(self) -> bool:
        """True when it is one of the two."""
        answer = self.text is not None and self.finish_reason is not None
        return answer or (self.log_likelihood is not None and self.greedy is not None)


class AnswerCache:
    """The answers of one model, by question. Raises StoreError where the disk does not take them.

    Two processes may append at once: a line goes out in one write.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        name = hashlib.sha256(identity.encode()).hexdigest()[:32]
        self._path = folder / f"{name}.jsonl"
        self._values: dict[str, Mapping[str, Any]] = {}
        with as_store_error("the answers can't be kept", self._path):
            make_private_folder(folder)
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            self._load()

    def _load(self) -> None:
        whole = True
        for line in self._path.read_bytes().splitlines(keepends=True):
            whole = line.endswith(b"\n")
            try:
                found = decode(line, _CachedLine, file=self._path)
            except BadDocument:
                continue
            if found.is_complete:
                self._values[found.key] = orjson.loads(line)
        if not whole:  # the next line begins on one of its own
            os.write(self._file, b"\n")

    def get(self, key: str) -> Mapping[str, Any] | None:
        """What came back, if it was asked before."""
        return self._values.get(key)

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep what came back."""
        line = {"key": key, **value}
        with as_store_error("the answers can't be kept", self._path):
            os.write(self._file, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        self._values[key] = line

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)
