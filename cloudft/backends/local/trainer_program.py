"""Run a program of the trainer: one JSON request in, JSON lines out, errors as TrainerError."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cloudft.errors import TrainerError


def run_trainer_program(
    program: Sequence[str], environment: Mapping[str, str], *, request: object = None
) -> Iterator[dict[str, Any]]:
    """Yield the replies of `python -m PROGRAM`; kill the process when the iterator is closed.

    Raise TrainerError for a reply that is an error, and for a program that crashes.
    """
    with (
        tempfile.TemporaryFile("w+") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=dict(environment),
            start_new_session=True,
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.close()
            for line in process.stdout:
                reply = json.loads(line)
                if "error" in reply:
                    raise TrainerError(reply["error"], fix=reply["fix"])
                yield reply
            if process.wait() != 0:
                stderr.seek(0)
                last = (stderr.read().strip().splitlines() or ["no message"])[-1]
                raise TrainerError(f"{program[0]} exited: {last}")
        except BrokenPipeError:
            raise TrainerError(f"{program[0]} exited before it read its request") from None
        finally:
            process.kill()
