"""lm-eval on a job's models: a child process that runs the tasks."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cloudft.backends.base import Progress, TaskFigure
from cloudft.errors import TrainerError


def benchmark(
    job_dir: Path,
    environment: Mapping[str, str],
    tasks: Sequence[str],
    include: Path | None,
    limit: int | None,
    progress: Progress,
) -> Iterator[TaskFigure]:
    """Every figure as it comes. Raises TrainerError."""
    wanted = {"tasks": list(tasks), "include": include and str(include), "limit": limit}
    command = [sys.executable, "-m", "local_backend.harness", str(job_dir)]
    with (
        tempfile.TemporaryFile("w+") as noise,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            text=True,
            env=dict(environment),
            start_new_session=True,
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(wanted) + "\n")
            process.stdin.close()
            for line in process.stdout:
                reply = json.loads(line)
                if "error" in reply:
                    raise TrainerError(reply["error"], fix=reply["fix"])
                if "done" in reply:
                    progress("lm-eval", reply["done"], reply["total"])
                else:
                    yield TaskFigure(**reply)
            if process.wait() != 0:
                noise.seek(0)
                last = (noise.read().strip().splitlines() or ["no message"])[-1]
                raise TrainerError(f"lm-eval broke off: {last}")
        finally:
            process.kill()
