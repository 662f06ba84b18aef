"""Check a large file on several cores: each process takes a part of its lines.

Only flawless files are checked this way. When a part has any finding, or differs from the others in
format or types, the whole file is read again in one process, so that every finding has its message
and its line.

`python -m cloudft.data.checks.parallel_check` is one such process. It reads its request from
standard input (pickled, by the process that started it), prints how many records it has read, a
line each time, and at last its result and the hashes of its records. multiprocessing is no choice
here: it would import the main module of the calling program, which may have no
`if __name__ == "__main__"`.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.checks.record_counter import CounterState, RecordCounter
from cloudft.data.checks.record_keys import RecordKeys
from cloudft.data.findings import Findings
from cloudft.data.sources.file_parts import FilePart
from cloudft.data.sources.line_blocks import ByteCounter
from cloudft.types import ManifestSource

POLL_INTERVAL_S = 0.05
PART_ROLE = "part"


class WholeFile(NamedTuple):
    """What was counted in a flawless file, and its records' hashes, as RecordKeys.merge takes."""

    counter: RecordCounter
    source: ManifestSource
    hashes: tuple[bytes, ...]


class PartResult(TypedDict):
    """What a process found in its part. `types` are the names of the fields' Python types.

    `templateNeeds` are the needs of its records (template_limits.py), which the process that
    started this one compares with the template.
    """

    counter: CounterState
    format: str
    readAs: str
    evidence: str
    leftOut: list[str]
    types: dict[str, str]
    templateNeeds: list[list[str]]


def count_in_parallel(
    parts: Sequence[FilePart],
    target: str,
    limits: DatasetLimits,
    progress: Callable[[int], None],
) -> WholeFile | None:
    """Count the records of a flawless file; None if it has to be read in one process.

    The source has no digest: the parts are read in no order.
    """
    try:
        workers = [_Worker((part, target, limits)) for part in parts]
    except OSError:
        return None
    try:
        while any(worker.is_running() for worker in workers):
            progress(sum(worker.records for worker in workers))
            time.sleep(POLL_INTERVAL_S)
    finally:
        for worker in workers:
            worker.end()
    results = [worker.result for worker in workers]
    counter = RecordCounter(target)
    for result in results:
        if result is None or results[0] is None or not _is_similar(result, results[0]):
            return None
        counter.merge(*result["counter"])
    first = results[0] if results else None
    if first is None:
        return None
    needs = {frozenset(each) for part in results if part for each in part["templateNeeds"]}
    if limits.template is not None and limits.template.has_problem(needs):
        return None
    left_out = dict.fromkeys(key for result in results if result for key in result["leftOut"])
    source = ManifestSource(
        role="",
        path=parts[0].name,
        sha256="",
        bytes=sum(part.end - part.start for part in parts),
        records=len(counter),
        shape=first["format"],
        read_as=first["readAs"],
        evidence=first["evidence"],
        matched=len(counter),
        left_out=tuple(left_out),
    )
    return WholeFile(counter, source, tuple(worker.hashes for worker in workers))


def _is_similar(one: PartResult, other: PartResult) -> bool:
    """Return whether two parts have one format, and no field has another type."""
    types = one["types"].items()
    return one["format"] == other["format"] and all(
        other["types"].get(key, name) == name for key, name in types
    )


class _Worker:
    """A process that checks a part. `result` stays None when the part is not flawless."""

    def __init__(self, request: tuple[FilePart, str, DatasetLimits]) -> None:
        self.records = 0
        self.result: PartResult | None = None
        self.hashes = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cloudft.data.checks.parallel_check"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C goes to the parent alone, which ends this one
        )
        self._request = pickle.dumps(request)
        # A thread a process: a pipe that nobody reads would block the child when it is full.
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            with stdin:
                stdin.write(self._request)
            for line in stdout:
                message = json.loads(line)
                self.records, self.result = message["records"], message.get("result")
                self.hashes = stdout.read(message.get("hashBytes", 0))
        except (OSError, ValueError):
            self.result = None

    def is_running(self) -> bool:
        """Return whether the process may still report something."""
        return self._thread.is_alive()

    def end(self) -> None:
        """Kill the process if it still runs, and wait for it."""
        self._process.kill()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


class _FoundProblem(Exception):
    """The part has a finding: the rest of it need not be read."""


def _check_part(
    part: FilePart, target: str, limits: DatasetLimits, progress: Callable[[int], None]
) -> tuple[PartResult, bytes] | None:
    """Return what a part holds and its records' hashes; None as soon as anything is wrong."""
    from cloudft.data.checks.validator import Validator

    findings, counter = Findings(), RecordCounter(target)

    def report(records: int) -> None:
        if findings.has_any():
            raise _FoundProblem
        progress(records)

    validator = Validator(target, {}, findings, report, ByteCounter, limits)
    keys = validator.keys[PART_ROLE] = RecordKeys()
    try:
        source = validator.read_file(part, PART_ROLE, counter)
    except _FoundProblem:
        return None
    if findings.has_any() or limits.media.kinds:
        return None  # media: what the whole file names is collected in one process
    types = {key: kind.__name__ for key, kind in validator.field_types.items()}
    needs = limits.template.needs if limits.template else set()
    result: PartResult = {
        "counter": counter.state(),
        "format": source.shape,
        "readAs": source.read_as,
        "evidence": source.evidence,
        "leftOut": list(source.left_out),
        "types": types,
        "templateNeeds": [sorted(each) for each in needs],
    }
    return result, keys.to_bytes()


def main() -> None:
    """Answer one request."""

    def report(records: int) -> None:
        print(json.dumps({"records": records}), flush=True)

    part, target, limits = pickle.load(sys.stdin.buffer)
    found = _check_part(part, target, limits, report)
    result, hashes = found or (None, b"")
    records = result["counter"][0] if result else 0
    answer = {"records": records, "result": result, "hashBytes": len(hashes)}
    print(json.dumps(answer), flush=True)
    sys.stdout.buffer.write(hashes)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
