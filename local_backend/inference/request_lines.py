"""Read requests from standard input, also while one of them is being answered."""

from __future__ import annotations

import json
import os
import select
from collections import deque
from collections.abc import Iterator

from local_backend.inference.completion import Request

CHUNK_BYTES = 1 << 16


class RequestLines:
    """JSON lines of a file descriptor. Nothing else may read from it."""

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self._lines: deque[bytes] = deque()
        self._has_ended = False

    def __iter__(self) -> Iterator[Request]:
        """Yield the requests, until the input ends. One that only cancels came too late."""
        while True:
            while not self._lines:
                if self._has_ended:
                    return
                self._read()
            request: Request = json.loads(self._lines.popleft())
            if "cancel" not in request:
                yield request

    def is_canceled(self) -> bool:
        """Return whether the request that is being answered was canceled. Does not wait.

        So is every request once nobody is there any more to read its answer.
        """
        while not self._lines and not self._has_ended and self._is_readable():
            self._read()
        if self._lines:
            return "cancel" in json.loads(self._lines[0])
        return self._has_ended

    def _is_readable(self) -> bool:
        return bool(select.select([self._descriptor], [], [], 0)[0])

    def _read(self) -> None:
        chunk = os.read(self._descriptor, CHUNK_BYTES)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if not chunk:
            self._has_ended = True
            lines, self._rest = [self._rest], b""
        self._lines.extend(line for line in lines if line.strip())
