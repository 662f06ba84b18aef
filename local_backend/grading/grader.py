"""Rewards of answers by a grader's file, with one clear error for each way in which it can fail."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypedDict

from local_backend.errors import TrainerError
from local_backend.grading.redact import redact
from local_backend.grading.reply_checks import BadReplyError, Grade, read_grades
from local_backend.grading.shapes import to_event
from local_backend.grading.worker_process import (
    INIT_SECONDS,
    GraderSettings,
    WorkerFailure,
    WorkerProcess,
)

__all__ = ["Grade", "Grader", "GraderError", "GraderSettings", "Sample"]
MAX_SEARCHED = 256
"""Samples that are graded alone, at most, to find the one that a failure is about."""


class Sample(TypedDict):
    """An answer to be graded. `messages` are OpenAI's chat messages and end with the answer.

    `metadata` has the `reference_answer` and the other keys of the record.
    """

    id: str
    messages: list[dict[str, Any]]
    metadata: dict[str, Any]


class GraderError(TrainerError):
    """A grader that can't be used, or failed on a sample.

    The message has no text of a sample, since it reaches logs. `detail` has the exception's whole
    text, and `output` the last that the grader printed: both may quote the sample.
    """

    def __init__(
        self,
        message: str,
        *,
        fix: str,
        failure: WorkerFailure | None = None,
        sample: str | None = None,
    ) -> None:
        super().__init__(message, fix=fix)
        self.sample = sample
        self.kind = "reply" if failure is None else failure.kind
        self.line = None if failure is None else failure.line
        self.detail = "" if failure is None else failure.text
        self.output = "" if failure is None else failure.output


class Grader:
    """A grader in a process of its own, which is started by the first call.

    It is killed when a call fails by time or memory, and started again by the next one. As a
    context it is closed at the end. Thread-safe: calls wait for each other.
    """

    def __init__(self, settings: GraderSettings) -> None:
        self.settings = settings
        self.last_seconds = 0.0
        """Seconds inside the handler in the latest successful call."""
        self.peak_bytes = 0
        """The most resident memory of the process, as far as calls have returned."""
        self._process: WorkerProcess | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Grader:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def grade(self, samples: Sequence[Sample]) -> list[Grade]:
        """Return the grades of samples, in their order, by one event with all of them.

        Raise GraderError, which names the sample. Where the failure of an event does not say which
        sample it is about, the samples are graded one at a time to find it.
        """
        ids = [sample["id"] for sample in samples]
        if len(set(ids)) != len(ids):
            raise ValueError("samples of one event need different ids")
        if not samples:
            return []
        with self._lock:
            try:
                return self._grade(samples)
            except (WorkerFailure, BadReplyError) as failure:
                found, sample = self._find_sample(samples, failure)
                raise self._error(found, sample, len(samples)) from None

    def load(self) -> None:
        """Start the process, which loads the file. Raise GraderError."""
        with self._lock:
            try:
                self._started()
            except WorkerFailure as failure:
                raise self._error(failure, None, 0) from None

    def close(self) -> None:
        """Kill the process."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _started(self) -> WorkerProcess:
        if self._process is None:
            self._process = WorkerProcess(self.settings)
        return self._process

    def _grade(self, samples: Sequence[Sample]) -> list[Grade]:
        process = self._started()
        try:
            result = process.call(to_event(samples))
        except WorkerFailure as failure:
            if failure.kind in ("timeout", "memory", "died"):
                self.close()
            raise
        self.last_seconds = result.seconds
        self.peak_bytes = max(self.peak_bytes, result.peak_bytes)
        return read_grades(result.value, [sample["id"] for sample in samples])

    def _find_sample(
        self, samples: Sequence[Sample], failure: WorkerFailure | BadReplyError
    ) -> tuple[WorkerFailure | BadReplyError, Sample | None]:
        """Return the failure and the sample that it is about; None if no sample fails alone."""
        if isinstance(failure, WorkerFailure) and failure.is_in_file:
            return failure, None
        known = _position(failure, samples)
        if known is not None:
            return failure, samples[known]
        # One that is too slow takes a whole time-out; all others together get as long again.
        deadline = time.monotonic() + 2 * self.settings.timeout_seconds
        for sample in samples[:MAX_SEARCHED]:
            try:
                self._grade([sample])
            except (WorkerFailure, BadReplyError) as alone:
                return alone, sample
            if time.monotonic() > deadline:
                break
        return failure, None

    def _error(
        self, failure: WorkerFailure | BadReplyError, sample: Sample | None, count: int
    ) -> GraderError:
        if sample is not None:
            where = f"sample {sample['id']}"
        elif count:
            where = f"an event of {count} samples (each of them alone can be graded)"
        else:
            where = ""
        name = self.settings.path.name
        if isinstance(failure, BadReplyError):
            message = f"the grader {name} can't be used on {where}: {failure.message}"
            return GraderError(message, fix=failure.fix, sample=sample and sample["id"])
        what, fix = _describe_failure(failure, sample, self.settings)
        place = f"{name}:{failure.line}" if failure.line else name
        about = f" on {where}" if where and not failure.is_in_file else ""
        message = f"the grader {place} {what}{about}"
        return GraderError(message, fix=fix, failure=failure, sample=sample and sample["id"])


def _position(failure: WorkerFailure | BadReplyError, samples: Sequence[Sample]) -> int | None:
    if len(samples) == 1:
        return 0
    if isinstance(failure, BadReplyError):
        ids = [sample["id"] for sample in samples]
        return None if failure.sample is None else ids.index(failure.sample)
    return failure.index if failure.index is not None and failure.index < len(samples) else None


def _describe_failure(
    failure: WorkerFailure, sample: Sample | None, settings: GraderSettings
) -> tuple[str, str]:
    """Return what a failure is, as the end of a sentence, and its remedy."""
    seconds, megabytes = settings.timeout_seconds, settings.memory_mb
    text = redact(failure.text, sample) if sample is not None else failure.text
    raised = f"{failure.type}: {text}" if text else failure.type
    if failure.kind == "no-handler":
        names = f" (it has {', '.join(failure.names)})" if failure.names else ""
        return f"has no function {settings.handler}{names}", _HANDLER_FIX
    if failure.kind == "slow-import":
        limit = max(INIT_SECONDS, seconds)
        return f"is not loaded after {limit:g} s", "move slow work out of the top of the file."
    if failure.kind == "syntax":
        return f"is not valid Python: {text}", "correct that line."
    if failure.kind == "import":
        return f"can't be loaded: {raised}", _import_fix(failure)
    if failure.kind == "timeout":
        return f"takes longer than {seconds:g} s", _TIMEOUT_FIX
    if failure.kind == "memory":
        what = f"uses {failure.text}, more than its {megabytes} MB"
        return what, "use less memory, or set reinforcement.memory_mb."
    if failure.kind == "exit":
        return "ends its own process (sys.exit)", "return a reply instead."
    if failure.kind == "died":
        return f"ended its own process with {failure.text}", _DIED_FIX
    if failure.kind == "not-json":
        return f"returns what JSON can't hold: {text}", "return plain lists, dicts and numbers."
    at = f" at `{failure.source}`" if failure.source else ""
    return f"raises {raised}{at}", _raised_fix(failure, sample)


_HANDLER_FIX = "define `def lambda_handler(event, context):` in the file."
_TIMEOUT_FIX = "make it faster, or set reinforcement.timeout_seconds (Lambda allows 900)."
_DIED_FIX = "a grader must not call os._exit; a crash is one of a library that it loads."


def _import_fix(failure: WorkerFailure) -> str:
    if failure.type == "ModuleNotFoundError":
        return (
            "a grader is one file, as on Lambda: write what it needs into it, or install the"
            " package here and give the function a layer with it."
        )
    return "correct that line: it runs when the file is loaded."


def _raised_fix(failure: WorkerFailure, sample: Sample | None) -> str:
    """Return a remedy; for the usual mix-ups about an event's shape, one that names them."""
    key = failure.text.strip("'\"")
    metadata: Mapping[str, object] = {} if sample is None else sample["metadata"]
    if failure.type == "KeyError" and key in metadata:
        return f"read sample['metadata'][{key!r}]: what belongs to a record is under metadata."
    if failure.type == "KeyError" and key == "reference_answer":
        return (
            "give this prompt's record a reference_answer, or let the grader use"
            " sample['metadata'].get('reference_answer')."
        )
    if failure.type in ("TypeError", "AttributeError") and "list" in failure.text:
        return "the event is a list of samples: grade each of them, and return a list."
    if failure.type == "TypeError" and "positional argument" in failure.text:
        return _HANDLER_FIX
    return "let the grader give such an answer a reward (0, say) instead."


@contextlib.contextmanager
def open_grader(settings: GraderSettings) -> Iterator[Grader]:
    """Yield a grader whose file is loaded. Raise GraderError."""
    with Grader(settings) as grader:
        grader.load()
        yield grader
