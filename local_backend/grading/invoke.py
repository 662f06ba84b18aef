"""Call a handler once, as Lambda's Invoke does: `python -m local_backend.grading.invoke`.

It reads one JSON line `{"path", "handler", "timeoutSeconds", "memoryMb", "platform", "event"}` and
writes one: `{"value": ...}` for what the handler returned, or `{"failure": {"type", "message"}}` in
the words of Lambda's runtime. `platform` says whose event and reply they are: `bedrock`,
`sagemaker-nova` or `sagemaker-open-weight`. Nothing checks the value.

Of a line `{"reply", "ids"}` it checks the reply of a function that ran elsewhere, as the trainer
does: `{"rewards": [...]}`, or `{"error", "fix"}`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from local_backend.grading.reply_checks import BadReplyError, read_grades
from local_backend.grading.shapes import from_sagemaker_event, to_sagemaker_reply
from local_backend.grading.worker_process import GraderSettings, WorkerFailure, WorkerProcess


def invoke(settings: GraderSettings, event: object) -> dict[str, object]:
    """Return the reply of one call in a process of its own."""
    process: WorkerProcess | None = None
    try:
        process = WorkerProcess(settings)
        return {"value": process.call(event).value}
    except WorkerFailure as failure:
        return {"failure": describe_failure(failure, settings)}
    finally:
        if process is not None:
            process.close()


def describe_failure(failure: WorkerFailure, settings: GraderSettings) -> dict[str, str]:
    """Return type and message of a failure, as Lambda's reply to an Invoke has them."""
    if failure.kind in ("timeout", "slow-import"):
        message = f"Task timed out after {settings.timeout_seconds:.2f} seconds"
        return {"type": "Sandbox.Timedout", "message": message}
    if failure.kind == "memory":
        return {"type": "Runtime.OutOfMemory", "message": "Runtime exited: signal: killed"}
    if failure.kind in ("exit", "died"):
        return {"type": "Runtime.ExitError", "message": f"Runtime exited {failure.text}".strip()}
    if failure.kind == "no-handler":
        message = f"Handler '{settings.handler}' missing on module '{settings.path.stem}'"
        return {"type": "Runtime.HandlerNotFound", "message": message}
    if failure.kind in ("syntax", "import"):
        message = f"Unable to import module '{settings.path.stem}': {failure.text}"
        kind = "Runtime.UserCodeSyntaxError" if failure.kind == "syntax" else failure.type
        return {"type": kind or "Runtime.ImportModuleError", "message": message}
    if failure.kind == "not-json":
        message = f"Unable to marshal response: {failure.text}"
        return {"type": "Runtime.MarshalError", "message": message}
    return {"type": failure.type or "Runtime.Unknown", "message": failure.text}


def check_reply(reply: object, ids: Sequence[str]) -> dict[str, object]:
    """Return the rewards in a handler's reply, or what is wrong with it."""
    try:
        return {"rewards": [grade.reward for grade in read_grades(reply, ids)]}
    except BadReplyError as error:
        return {"error": error.message, "fix": error.fix}


def main() -> None:
    """Answer the request on standard input."""
    request = json.loads(sys.stdin.readline())
    if "reply" in request:
        print(json.dumps(check_reply(request["reply"], request["ids"])), flush=True)
        return
    settings = GraderSettings(
        Path(request["path"]),
        request["timeoutSeconds"],
        request["memoryMb"],
        request["handler"],
    )
    event, platform = request["event"], request.get("platform", "bedrock")
    if platform != "bedrock":
        event = from_sagemaker_event(event)
    reply = invoke(settings, event)
    if platform == "sagemaker-open-weight" and "value" in reply:
        reply = {"value": to_sagemaker_reply(reply["value"])}
    print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
