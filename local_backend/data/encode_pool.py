"""Encode a staged file's blocks, with all cores if it is large.

Rendering a record is Python and holds the GIL, so several cores take several processes. Each is
`python -m local_backend.data.encode_pool`, which imports no torch. It reads JSON lines from
standard input: first {"source", "chatTemplate", "stopTexts", "format", "customizationType",
"maxLength", "path"}, then {"start", "end", "first", "count"} for each block. For each, it writes a
line {"counts", "sizes", "rows"} and the arrays `ids` (int32), `mask`, `ends` (int64) and `rows` as
bytes; or {"error", "fix"}. It ends with its input: a trainer that is killed leaves none for longer
than a block.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from local_backend.data.chat_template import RecordFormat
from local_backend.data.encode import StagedLines, split_into_blocks
from local_backend.data.examples import EncodedData
from local_backend.data.token_arrays import COUNTS, TokenArrays
from local_backend.errors import TrainerError
from local_backend.process_exit import exit_now
from local_backend.training.objectives import Objective, find_objective

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from local_backend.settings import DataFile

MANY_RECORDS = 50_000
"""From here on several processes pay: they take half a second to start, two where the tokenizer was
not prepared, and this one 40 us a record."""
AHEAD = 2
"""Blocks in work for each process, so that none waits for the file to be written."""


def encode_blocks(
    objective: Objective,
    record_format: RecordFormat,
    source: str,
    max_length: int,
    file: DataFile,
) -> Iterator[tuple[StagedLines, EncodedData]]:
    """Yield each block of a staged file with its examples, in order. Raise TrainerError."""
    blocks = split_into_blocks(file.path)
    processes = usable_cores()
    if file.records < MANY_RECORDS or processes == 1:
        for lines in blocks:
            yield lines, objective.encode_lines(lines, record_format, max_length)
        return
    request = {
        "source": source,
        "chatTemplate": record_format.tokenizer.chat_template,
        "stopTexts": list(record_format.stop_texts),
        "format": record_format.name,
        "customizationType": objective.customization_type,
        "maxLength": max_length,
        "path": str(file.path),
    }
    with EncodePool(request, processes) as pool:
        yield from pool.encode(blocks)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class EncodePool:
    """Processes that encode blocks, each driven by a thread of this one."""

    def __init__(self, request: dict[str, Any], processes: int) -> None:
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "local_backend.data.encode_pool"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
            for _ in range(processes)
        ]
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(processes)
        self._request = json.dumps(request).encode() + b"\n"
        self._started: set[int] = set()

    def __enter__(self) -> EncodePool:
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes. What they have not encoded yet is dropped."""
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                try:
                    stream.close()
                except BrokenPipeError:
                    continue

    def encode(self, blocks: Iterator[StagedLines]) -> Iterator[tuple[StagedLines, EncodedData]]:
        """Yield each block with its examples, in order, however many are in work."""
        pending: deque[tuple[StagedLines, Future[EncodedData]]] = deque()
        ahead = AHEAD * len(self._processes)
        for lines in blocks:
            pending.append((lines, self._threads.submit(self._encode_one, lines)))
            if len(pending) >= ahead:
                done, result = pending.popleft()
                yield done, result.result()
        for done, result in pending:
            yield done, result.result()

    def _encode_one(self, lines: StagedLines) -> EncodedData:
        process = self._idle.get()
        assert process.stdin is not None and process.stdout is not None
        try:
            if process.pid not in self._started:
                self._started.add(process.pid)
                process.stdin.write(self._request)
            keys = ("start", "end", "first", "count")
            block = {key: getattr(lines, key) for key in keys}
            process.stdin.write(json.dumps(block).encode() + b"\n")
            process.stdin.flush()
            encoded = read_encoded(process.stdout)
        except (BrokenPipeError, EOFError) as error:
            raise TrainerError(
                f"A process that makes tokens ended early (status {process.wait()}).",
                fix="look for its own error in the log, or for too little memory; `cloudft resume`"
                " makes them again.",
            ) from error
        finally:
            self._idle.put(process)
        return encoded


def write_encoded(stream: IO[bytes], encoded: EncodedData) -> None:
    """Write a block's counts and arrays."""
    arrays = TokenArrays.of(encoded.examples)
    rows = np.empty((0, 0), dtype=np.int32) if arrays.rows is None else arrays.rows
    parts = [array.tobytes() for array in (arrays.ids, arrays.mask, arrays.ends, rows)]
    head = {
        "counts": {name: getattr(encoded, name) for name in COUNTS},
        "sizes": [len(part) for part in parts],
        "rows": rows.shape[1],
    }
    stream.write(json.dumps(head).encode() + b"\n")
    for part in parts:
        stream.write(part)
    stream.flush()


def read_encoded(stream: IO[bytes]) -> EncodedData:
    """Return a block that another process has encoded. Raise its TrainerError, or EOFError."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    head = json.loads(line)
    if "error" in head:
        raise TrainerError(head["error"], fix=head["fix"])
    parts = [stream.read(size) for size in head["sizes"]]
    if [len(part) for part in parts] != head["sizes"]:
        raise EOFError
    ids, mask, ends, rows = map(np.frombuffer, parts, (np.int32, np.uint8, np.int64, np.int32))
    shaped = rows.reshape(-1, head["rows"]) if head["rows"] else None
    return EncodedData(TokenArrays(ids, mask, ends, shaped), **head["counts"])


def serve(requests: Iterator[bytes], replies: IO[bytes]) -> None:
    """Encode blocks until the input ends."""
    request = json.loads(next(requests))
    tokenizer = _load_tokenizer(request["source"])
    tokenizer.chat_template = request["chatTemplate"]
    record_format = RecordFormat(request["format"], tokenizer, request["stopTexts"])
    objective, path = find_objective(request["customizationType"]), Path(request["path"])
    for line in requests:
        lines = StagedLines(path, **json.loads(line))
        try:
            encoded = objective.encode_lines(lines, record_format, request["maxLength"])
        except TrainerError as error:
            refusal = {"error": error.message, "fix": error.fix}
            replies.write(json.dumps(refusal).encode() + b"\n")
            replies.flush()
        else:
            write_encoded(replies, encoded)


def _load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    from local_backend.data.prepared_tokenizer import read_prepared
    from local_backend.libraries import hide_torch, silence_libraries
    from local_backend.models.load_tokenizer import load_tokenizer

    hide_torch()
    folder = Path(source)
    kept = read_prepared(folder, lambda: load_tokenizer(source)[0]) if folder.is_dir() else None
    if kept is not None:
        return kept[0]
    silence_libraries()
    return load_tokenizer(source)[0]


def main() -> int:
    """Serve one trainer. Only it ends this process, by ending its input."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        serve(itertools.chain(iter(sys.stdin.buffer.readline, b"")), sys.stdout.buffer)
    except (BrokenPipeError, StopIteration):
        return 1
    return 0


if __name__ == "__main__":
    exit_now(main())
