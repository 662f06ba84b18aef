"""A grader in a process of the trainer: requests and replies as JSON lines."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from cloudft.errors import TrainerError
from cloudft.grading import (
    GRADER_FIELD,
    Grade,
    GradedEvent,
    GraderConfig,
    GraderFailed,
    GradingSample,
    GradingSession,
)
from cloudft.types import Finding


class GraderProcess(GradingSession):
    """A process that has loaded a grader's file. Raise GraderFailed, TrainerError."""

    def __init__(self, config: GraderConfig, environment: Mapping[str, str]) -> None:
        self._config = config
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed by close)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "local_backend.grading"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
            env=dict(environment),
            start_new_session=True,
        )
        try:
            self._exchange(
                {
                    "path": str(config.path.absolute()),
                    "timeoutSeconds": config.timeout_seconds,
                    "memoryMb": config.memory_mb,
                }
            )
        except BaseException:
            self.close()
            raise

    def grade(self, samples: Sequence[GradingSample]) -> GradedEvent:
        """Return the grades of one event's samples."""
        values = [
            {"id": one.id, "messages": list(one.messages), "metadata": dict(one.metadata)}
            for one in samples
        ]
        reply = self._exchange({"samples": values})
        grades = tuple(Grade(one["reward"], one["metrics"]) for one in reply["grades"])
        return GradedEvent(grades, reply["seconds"])

    def close(self) -> None:
        """Kill the process. The grader's own process ends with it."""
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    def _exchange(self, request: Mapping[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        # A process that exits before it has read the request is detected by its missing reply.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._stderr.seek(0)
            printed = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
            raise TrainerError(
                f"the grader's process exited: {(printed or ['no message'])[-1]}",
                fix="check that the trainer is installed: pip install 'cloudft[local]'.",
            )
        reply: dict[str, Any] = json.loads(line)
        failure = reply.get("failure")
        if failure is not None:
            raise self._failed(failure)
        return reply

    def _failed(self, failure: Mapping[str, Any]) -> GraderFailed:
        path = str(self._config.path)
        finding = Finding(
            "error",
            GraderFailed.code,
            failure["message"],
            failure["fix"],
            path,
            failure["line"],
            GRADER_FIELD,
        )
        return GraderFailed(finding, detail=failure["detail"], output=failure["output"])
