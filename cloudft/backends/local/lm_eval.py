"""Run lm-eval on a job's models, in a child process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cloudft.backends.capabilities import ProgressCallback
from cloudft.backends.local import trainer_program
from cloudft.inference import LmEvalMetric


def run_lm_eval(
    job_dir: Path,
    environment: Mapping[str, str],
    tasks: Sequence[str],
    include: Path | None,
    limit: int | None,
    progress: ProgressCallback,
) -> Iterator[LmEvalMetric]:
    """Yield every metric as it is computed. Raise TrainerError."""
    request = {"tasks": list(tasks), "include": include and str(include), "limit": limit}
    program = ["local_backend.inference.lm_eval_harness", str(job_dir)]
    for reply in trainer_program.run_trainer_program(program, environment, request=request):
        if "done" in reply:
            progress("lm-eval", reply["done"], reply["total"])
        else:
            yield LmEvalMetric(**reply)
