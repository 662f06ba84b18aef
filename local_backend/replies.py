"""JSON replies of the programs that cloudft starts, one a line on standard output."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from types import TracebackType

from local_backend.errors import TrainerError

Reply = Callable[[Mapping[str, object]], None]
"""Writes one reply."""


class ReplyWriter:
    """Writes replies to standard output and sends all other output to standard error.

    File descriptor 1 itself is redirected, because libraries (tokenizers, CUDA) print without
    Python. As a context it turns a TrainerError into the reply `{"error", "fix"}`, and sets the
    program's exit status `status` to 1.
    """

    def __init__(self, *, flush_each: bool = True) -> None:
        self.status = 0
        self._flush_each = flush_each
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def __call__(self, value: Mapping[str, object]) -> None:
        """Write one reply."""
        print(json.dumps(value), file=self._stream, flush=self._flush_each)

    def __enter__(self) -> ReplyWriter:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        is_refusal = isinstance(error, TrainerError)
        if isinstance(error, TrainerError):
            self({"error": error.message, "fix": error.fix})
            self.status = 1
        self._stream.flush()
        return is_refusal
