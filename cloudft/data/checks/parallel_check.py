"""A large file checked on several cores: each process takes a part of its lines.

Only for what is right: when a part has anything to be said about, or is unlike the others, the
whole file is read again in one go, so that every finding has its words and its line.

`python -m cloudft.data.checks.parallel_check` is one such process. Its request comes on standard
input (pickled, from the process that started it); it says how many records it has read, a line each
time, and at last what it has found. (Not multiprocessing: that would run the main module of whoever
calls.)
"""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, cast

from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.checks.record_counter import RecordCounter
from cloudft.data.findings import Findings
from cloudft.data.sources.line_blocks import ByteCounter
from cloudft.data.sources.source_files import SourceFile

MIN_PART_BYTES = 128 * 1024 * 1024
"""Bytes of a part: a process takes a fifth of a second to start."""
POLL_INTERVAL_S = 0.05


@dataclass(frozen=True)
class FilePart(SourceFile):
    """The lines of a file from one byte to another."""

    start: int = 0
    end: int = 0

    def open(self) -> IO[bytes]:
        """Those bytes alone. Raises OSError."""
        return cast(IO[bytes], _Bytes(self.path, self.start, self.end))


class _Bytes(io.RawIOBase):
    def __init__(self, path: Path, start: int, end: int) -> None:
        super().__init__()
        self._file = path.open("rb", buffering=0)
        self._file.seek(start)
        self._left = end - start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with memoryview(buffer) as view:
            count = self._file.readinto(view[: self._left]) or 0
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def count_cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def split_file(source: SourceFile, max_parts: int) -> list[FilePart]:
    """The file in up to `most` parts of whole lines; none when it is not that large."""
    if type(source) is not SourceFile or source.file_type != "jsonl":
        return []
    size = source.path.stat().st_size
    count = min(max_parts, size // MIN_PART_BYTES)
    if count < 2:
        return []
    edges = [0]
    with source.path.open("rb") as handle:
        for index in range(1, count):
            handle.seek(size * index // count)
            handle.readline()
            edges.append(handle.tell())
    return [
        FilePart(source.path, source.display_name, source.name, source.file_type, start, end)
        for start, end in pairwise([*edges, size])
        if start < end
    ]


def count_in_parallel(
    source: SourceFile, target: str, limits: DatasetLimits, progress: Callable[[int], None]
) -> RecordCounter | None:
    """The records of a flawless file; None when it has to be read in one go."""
    try:
        workers = [_Worker((part, target, limits)) for part in split_file(source, count_cores())]
    except OSError:
        return None
    try:
        while any(worker.running() for worker in workers):
            progress(sum(worker.records for worker in workers))
            time.sleep(POLL_INTERVAL_S)
    finally:
        for worker in workers:
            worker.end()
    found = [worker.found for worker in workers]
    whole = RecordCounter(target)
    for result in found:
        if result is None or not _alike(result, found[0]):
            return None
        whole.merge(*result["tally"])
    return whole if found else None


def _alike(one: Any, other: Any) -> bool:
    """True when two parts have one shape, and no field has another type."""
    types = one["types"].items()
    return one["shape"] == other["shape"] and all(
        other["types"].get(key, kind) == kind for key, kind in types
    )


class _Worker:
    """A process that checks a part. `found` stays None when the part is not flawless."""

    def __init__(self, request: object) -> None:
        self.records = 0
        self.found: Any = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cloudft.data.checks.parallel_check"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the one who started it
        )
        self._request = pickle.dumps(request)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            with stdin:
                stdin.write(self._request)
            for line in stdout:
                said = json.loads(line)
                self.records, self.found = said["records"], said.get("found")
        except (OSError, ValueError):
            self.found = None

    def running(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


class _Flawed(Exception):
    """The part has something to be said about."""


def _check(
    part: FilePart, target: str, rules: DatasetLimits, progress: Callable[[int], None]
) -> Any:
    """One part's records, shape and types; None as soon as there is anything wrong."""
    from cloudft.data.checks.validator import Validator

    findings, sink = Findings(), RecordCounter(target)

    def look(count: int) -> None:
        if findings.has_any():
            raise _Flawed
        progress(count)

    validator = Validator(target, {}, findings, look, ByteCounter, rules)
    try:
        shape = validator.read_file(part, "", sink).shape
    except _Flawed:
        return None
    types = {key: kind.__name__ for key, kind in validator.field_types.items()}
    return None if findings.has_any() else {"tally": sink.state(), "shape": shape, "types": types}


def main() -> None:
    """Answer one request."""

    def say(records: int, **more: Any) -> None:
        print(json.dumps({"records": records, **more}), flush=True)

    part, target, rules = pickle.load(sys.stdin.buffer)
    found = _check(part, target, rules, say)
    say(found["tally"][0] if found else 0, found=found)


if __name__ == "__main__":
    main()
