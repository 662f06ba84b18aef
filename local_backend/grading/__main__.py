"""Grade answers: `python -m local_backend.grading`, for programs that do not import the trainer.

The first line of standard input is `{"path", "timeoutSeconds", "memoryMb"}`; the reply is
`{"ready": true}` once the file is loaded. Then each line `{"samples": [{"id", "messages",
"metadata"}, ...]}` is one event, and its reply is `{"grades": [{"reward", "metrics"}, ...],
"seconds"}`. In place of either, `{"failure": {"message", "fix", "kind", "sample", "line", "detail",
"output"}}` says what is wrong. `message` quotes no sample; `detail` and `output` may.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from local_backend.grading.grader import Grader, GraderError, GraderSettings
from local_backend.replies import ReplyWriter


def describe_failure(error: GraderError) -> dict[str, Any]:
    """Return the reply about a grader that can't be used, or failed on a sample."""
    names = ("message", "fix", "kind", "sample", "line", "detail", "output")
    return {"failure": {name: getattr(error, name) for name in names}}


def grade_event(grader: Grader, request: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to one event."""
    try:
        grades = grader.grade(request["samples"])
    except GraderError as error:
        return describe_failure(error)
    return {
        "grades": [{"reward": one.reward, "metrics": one.metrics} for one in grades],
        "seconds": grader.last_seconds,
    }


def main() -> int:
    """Answer until standard input ends."""
    with ReplyWriter() as reply:
        first = json.loads(sys.stdin.readline())
        settings = GraderSettings(Path(first["path"]), first["timeoutSeconds"], first["memoryMb"])
        with Grader(settings) as grader:
            try:
                grader.load()
            except GraderError as error:
                reply(describe_failure(error))
                return 1
            reply({"ready": True})
            for line in sys.stdin:
                reply(grade_event(grader, json.loads(line)))
    return reply.status


if __name__ == "__main__":
    sys.exit(main())
