"""What models have said, kept by content: the same question is not asked twice of one model.

A file a model, `CLOUDFT_HOME/answers/DIGEST.jsonl`: a line is what was asked (as a digest) and what
came back. Lines are appended as they come, so whoever breaks off goes on from there; one that a
kill cut short is left out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from cloudft.files import as_store_error, private_folder


def key_of(*parts: Any) -> str:
    """The name of a question: what it says, and how the answer is made."""
    content = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:32]


class Cache:
    """The answers of one model, by question. Raises StoreError where the disk does not take them.

    Two processes may append at once: a line goes out in one write.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        name = hashlib.sha256(identity.encode()).hexdigest()[:32]
        self._path = folder / f"{name}.jsonl"
        self._known: dict[str, Mapping[str, Any]] = {}
        with as_store_error("the answers can't be kept", self._path):
            private_folder(folder)
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._read()

    def _read(self) -> None:
        whole = True
        for line in self._path.read_bytes().splitlines(keepends=True):
            whole = line.endswith(b"\n")
            try:
                value = orjson.loads(line)
                self._known[value["key"]] = value
            except (ValueError, KeyError, TypeError):
                continue
        if not whole:  # the next line begins on one of its own
            os.write(self._file, b"\n")

    def get(self, key: str) -> Mapping[str, Any] | None:
        """What came back, if it was asked before."""
        return self._known.get(key)

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep what came back."""
        line = {"key": key, **value}
        with as_store_error("the answers can't be kept", self._path):
            os.write(self._file, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        self._known[key] = line

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)
