"""Tokenize records with the local model's tokenizer, in child processes.

Rendering a chat template holds a process to one core, so long data is shared among two children, in
blocks; the replies come in the order of the records all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import orjson

from cloudft.backends.capabilities import TokenPreviewSession
from cloudft.errors import TrainerError

MAX_CHILDREN = 2
NEXT_CHILD_BYTES = 4_000_000
"""Bytes after which the second child starts: for fewer, its start takes longer than it saves."""
BLOCK_RECORDS = 1000
MAX_BLOCKS = 6
"""Blocks that are sent and not yet replied to. A child replies once it has BLOCK_RECORDS records
more or its input ends, so each must get several: they take turns."""
PUT_INTERVAL_S = 0.2
Item = TypeVar("Item")


def tokenize_lines(
    request: Mapping[str, object],
    lines: Iterable[bytes],
    environment: Mapping[str, str],
    *,
    next_child_bytes: int = NEXT_CHILD_BYTES,
) -> Iterator[dict[str, Any]]:
    """Yield the facts of the model, then a reply for each line.

    The replies are defined in local_backend/data/tokenize_records.py. Lines are consumed in another
    thread as the children read them. Raise TrainerError, and what `lines` raises.
    """
    shared = _SharedWork(request, environment, next_child_bytes)
    try:
        yield shared.start(lines)
        yield from shared.replies()
    finally:
        shared.close()


class _Child:
    """A process of the trainer that tokenizes; its input and its output have a thread each."""

    def __init__(self, request: Mapping[str, object], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local_backend.data.tokenize_records"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )
        self.blocks: queue.Queue[bytes | None] = queue.Queue(MAX_BLOCKS)
        """Input that is not yet written; None is its end."""
        self._replies: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._noise: list[bytes] = []
        self._facts: dict[str, Any] | None = None
        self.blocks.put(json.dumps(request).encode() + b"\n")
        self._threads = [
            threading.Thread(target=work, daemon=True)
            for work in (self._write, self._read, self._read_noise)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def facts(self) -> dict[str, Any]:
        """Return the facts of the model, which are the first reply."""
        if self._facts is None:
            self._facts = self.take()
        return self._facts

    def take(self) -> dict[str, Any]:
        """Return the next reply. Raise TrainerError for a failure, and where there is none."""
        line = self._replies.get()
        if line is None:
            raise self._exit_error()
        reply: dict[str, Any] = orjson.loads(line)
        if "error" in reply:
            raise TrainerError(reply["error"], fix=reply["fix"])
        return reply

    def finish(self) -> None:
        """Wait until the process has ended. Raise TrainerError if it failed."""
        if self._replies.get() is not None or self.process.wait() != 0:
            raise self._exit_error()

    def close(self) -> None:
        """End the process and the threads, and close the pipes."""
        self.process.kill()
        self.process.wait()
        self._put_end()
        for thread in self._threads:
            thread.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def _put_end(self) -> None:
        """Put the end of the input in place of what is not yet written."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.blocks.get_nowait()
        self.blocks.put(None)

    def _exit_error(self) -> TrainerError:
        self.process.wait()
        last = self._noise[-1].decode("utf-8", "replace").strip() if self._noise else "no message"
        return TrainerError(f"the tokenizer's process exited: {last}")

    def _write(self) -> None:
        # A child that has exited is detected by its missing replies.
        assert self.process.stdin is not None
        with contextlib.suppress(OSError), self.process.stdin as stdin:
            while (block := self.blocks.get()) is not None:
                stdin.write(block)
                stdin.flush()  # the reply to a single line is waited for

    def _read(self) -> None:
        # Always read on: a child that waits for its reader reads no input either.
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._replies.put(line)
        self._replies.put(None)

    def _read_noise(self) -> None:
        assert self.process.stderr is not None
        self._noise.extend(self.process.stderr)


class PreviewProcess(TokenPreviewSession):
    """A process that has loaded a tokenizer and replies to one line after another."""

    def __init__(self, request: Mapping[str, object], environment: Mapping[str, str]) -> None:
        self._child = _Child(request, environment)

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return the facts of the model. Wait until it is loaded."""
        return self._child.facts

    def preview(self, line: bytes) -> Mapping[str, Any]:
        """Return the tokens of a line."""
        assert self.facts
        self._child.blocks.put(line.rstrip(b"\n") + b"\n")
        return self._child.take()

    def close(self) -> None:
        """Kill the process."""
        self._child.close()


class _SharedWork:
    """Lines that are shared among children, and their replies in order."""

    def __init__(
        self,
        request: Mapping[str, object],
        environment: Mapping[str, str],
        next_child_bytes: int,
    ) -> None:
        self._request, self._environment = request, environment
        self._next_child_bytes = next_child_bytes
        self._children: list[_Child] = []
        self._sent: queue.Queue[tuple[_Child, int] | None] = queue.Queue(MAX_BLOCKS)
        """The child of each block and its number of records, in order; None is the end."""
        self._closed = threading.Event()
        self._broken: list[Exception] = []

    def start(self, lines: Iterable[bytes]) -> dict[str, Any]:
        """Start to read and to share the lines; return the facts of the model."""
        child = self._add_child()
        threading.Thread(target=self._share, args=(lines,), daemon=True).start()
        return child.facts

    def replies(self) -> Iterator[dict[str, Any]]:
        """Yield the replies in the order of the lines. Raise what reading the lines raised."""
        while (block := self._sent.get()) is not None:
            child, count = block
            assert child.facts
            for _ in range(count):
                yield child.take()
        if self._broken:
            raise self._broken[0]
        for child in self._children:
            assert child.facts
            child.finish()

    def close(self) -> None:
        """End the processes and the threads."""
        self._closed.set()
        for child in self._children:
            child.close()

    def _add_child(self) -> _Child:
        child = _Child(self._request, self._environment)
        self._children.append(child)
        if self._closed.is_set():  # by the other thread, which may not have seen this child
            child.close()
        return child

    def _share(self, lines: Iterable[bytes]) -> None:
        try:
            self._send_blocks(lines)
        except Exception as error:  # raised in the thread that waits for the replies
            self._broken.append(error)
        for child in self._children:
            self._put(child.blocks, None)
        self._put(self._sent, None)

    def _send_blocks(self, lines: Iterable[bytes]) -> None:
        total, limit = 0, min(MAX_CHILDREN, _count_cpus())
        for number, (block, count) in enumerate(_blocks(lines)):
            if self._closed.is_set():
                return
            if len(self._children) < limit and total >= self._next_child_bytes:
                self._add_child()
            child = self._children[number % len(self._children)]
            self._put(self._sent, (child, count))
            self._put(child.blocks, block)
            total += len(block)

    def _put(self, queued: queue.Queue[Item], item: Item) -> None:
        """Put an item as soon as there is room, unless the replies are no longer wanted."""
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                queued.put(item, timeout=PUT_INTERVAL_S)
                return


def _blocks(lines: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield lines in blocks with the number of records of each; one of `lines` may have several."""
    block: list[bytes] = []
    count = 0
    for some in lines:
        block.append(some)
        count += some.count(b"\n")
        if count >= BLOCK_RECORDS:
            yield b"".join(block), count
            block, count = [], 0
    if block:
        yield b"".join(block), count


def _count_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
