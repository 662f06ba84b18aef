"""The process that runs the code of a grader. It is started by its path, and imports no other file.

`python worker.py CHANNEL LIFELINE FILE HANDLER TIMEOUT_SECONDS MEMORY_MB`

CHANNEL is the descriptor of a socket: one JSON document a line in each direction. The first reply
says that FILE is loaded. Each request `{"event", "requestId"}` is then answered by `{"value",
"seconds", "peakBytes"}`. A reply `{"failure": {...}}` says what went wrong instead. LIFELINE is the
end of a pipe; this process and its children end when the other end is closed. Standard output and
standard error belong to the grader.

Lambda's runtime client for Python (awslambdaric) is the model for the context object, and for the
values that a handler may return.
"""

from __future__ import annotations

import decimal
import faulthandler
import importlib.util
import inspect
import json
import os
import resource
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MODULE = "grader"
TRACE_SIGNAL = signal.SIGUSR1
"""Writes the stack of each thread to standard error, even inside a long call of C."""
ALARM_GRACE_S = 5.0
"""The parent kills a process that takes too long. The kernel's alarm does it if that is gone."""
Handler = Callable[[object, object], object]


class LambdaContext:
    """The second argument of a handler, with the attributes that Lambda's has."""

    def __init__(self, request_id: str, deadline: float) -> None:
        name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.aws_request_id = request_id
        self.function_name = name
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = f"/aws/lambda/{name}"
        self.log_stream_name = "local"
        region = os.environ["AWS_REGION"]
        self.invoked_function_arn = f"arn:aws:lambda:{region}:000000000000:function:{name}"
        self.client_context = None
        self.identity = types.SimpleNamespace(
            cognito_identity_id=None, cognito_identity_pool_id=None
        )
        self._deadline = deadline

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds that are left before this call times out."""
        return max(int((self._deadline - time.monotonic()) * 1000), 0)

    def log(self, message: str) -> None:
        """Write a message where the handler's prints go."""
        sys.stdout.write(message)


class UnusableGraderError(Exception):
    """Raised when no handler can be loaded. `failure` is the reply."""

    def __init__(self, failure: Mapping[str, object]) -> None:
        super().__init__()
        self.failure = failure


def load_handler(file: Path, name: str) -> Handler:
    """Return the handler in `file`. Raise UnusableGraderError."""
    try:
        spec = importlib.util.spec_from_file_location(MODULE, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[MODULE] = module
        spec.loader.exec_module(module)
    except SyntaxError as error:
        described = describe_exception(error, file)
        if error.filename == str(file):
            described |= {"line": error.lineno, "text": error.msg, "source": ""}
        raise UnusableGraderError({"kind": "syntax", **described}) from None
    except BaseException as error:
        raise UnusableGraderError({"kind": "import", **describe_exception(error, file)}) from None
    handler = getattr(module, name, None)
    if not callable(handler):
        names = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise UnusableGraderError({"kind": "no-handler", "names": names})
    return handler  # type: ignore[no-any-return]


def describe_exception(error: BaseException, file: Path) -> dict[str, object]:
    """Return type and text of an exception, and the last line of `file` that it went through."""
    described: dict[str, object] = {"type": type(error).__name__, "text": str(error)}
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == str(file):
            described |= {"line": frame.lineno, "source": frame.line}
    return described


def run_handler(handler: Handler, file: Path, request: Mapping[str, Any], limit: float) -> str:
    """Call the handler with the request's event; return the reply as JSON."""
    began = time.monotonic()
    context = LambdaContext(request["requestId"], began + limit)
    signal.setitimer(signal.ITIMER_REAL, limit + ALARM_GRACE_S)
    try:
        value = handler(request["event"], context)
        seconds = time.monotonic() - began
    except SystemExit as error:
        return _failure({"kind": "exit", **describe_exception(error, file)})
    except BaseException as error:
        described = describe_exception(error, file)
        if "line" not in described and inspect.isfunction(handler):
            described["line"] = handler.__code__.co_firstlineno
        return _failure({"kind": "raised", **described})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        return json.dumps(
            {"value": value, "seconds": seconds, "peakBytes": peak_bytes()}, default=_to_json
        )
    except (TypeError, ValueError, RecursionError) as error:
        return _failure({"kind": "not-json", "text": str(error), "index": _first_not_json(value)})


def _failure(failure: Mapping[str, object]) -> str:
    return json.dumps({"failure": failure, "peakBytes": peak_bytes()})


def _to_json(value: object) -> object:
    if isinstance(value, decimal.Decimal):  # Lambda's runtime returns it as a number too
        return float(value)
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError("a coroutine: the handler must not be async")
    raise TypeError(f"a value of type {type(value).__name__}")


def _first_not_json(value: object) -> int | None:
    if not isinstance(value, list | tuple):
        return None
    for index, item in enumerate(value):
        try:
            json.dumps(item, default=_to_json)
        except (TypeError, ValueError, RecursionError):
            return index
    return None


def peak_bytes() -> int:
    """Return the most memory that this process has had resident.

    `ru_maxrss` would be wrong on Linux: a new program inherits it from the process that forked it,
    here a trainer with gigabytes.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _end_with_parent(lifeline: int, scratch: Path) -> None:
    while os.read(lifeline, 1):
        pass
    shutil.rmtree(scratch, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Load the handler and answer requests until the channel is closed."""
    channel, lifeline, path, name, timeout = sys.argv[1:6]
    # The folder of this file is no place for a grader's imports. On Lambda there is the file alone.
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).parent)]
    watch = threading.Thread(target=_end_with_parent, args=(int(lifeline), Path.cwd()), daemon=True)
    watch.start()
    faulthandler.register(TRACE_SIGNAL)
    file = Path(path)
    with socket.socket(fileno=int(channel)) as stream:
        requests, replies = stream.makefile("rb"), stream.makefile("wb")

        def reply(text: str) -> None:
            replies.write(text.encode("ascii") + b"\n")
            replies.flush()

        try:
            handler = load_handler(file, name)
        except UnusableGraderError as error:
            reply(json.dumps({"failure": error.failure}))
            return
        reply(json.dumps({"loaded": True, "peakBytes": peak_bytes()}))
        for line in requests:
            reply(run_handler(handler, file, json.loads(line), float(timeout)))


if __name__ == "__main__":
    main()
