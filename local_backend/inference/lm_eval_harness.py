"""Evaluate a job's models with EleutherAI's lm-eval: `python -m
local_backend.inference.lm_eval_harness JOB_DIR`.

Standard input holds `{"tasks": [...], "include": DIR | null, "limit": N | null}`. Standard output
has `{"done": N, "total": N}` for each model, then for each task and each metric that every record
has `{"task", "figure", "base": [...], "tuned": [...]}`, records in the same order; or `{"error",
"fix"}`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from local_backend.errors import TrainerError
from local_backend.inference.model_variants import BASE, TUNED, ModelVariants
from local_backend.job_dir import JobDir
from local_backend.libraries import silence_libraries
from local_backend.replies import Reply, ReplyWriter
from local_backend.settings import read_settings

BATCH_ROWS = 16
"""Rows that the harness puts through the model at once."""
INSTALL = "pip install 'cloudft[lm-eval]'"

Sample = Mapping[str, Any]
"""What lm-eval keeps of one record: `doc_id`, `metrics` (their names), and each metric by name."""


class TaskRequest(TypedDict):
    """What standard input holds. `include` is a folder with tasks of one's own."""

    tasks: list[str]
    include: str | None
    limit: int | None


def run_tasks(models: ModelVariants, request: TaskRequest, reply: Reply) -> None:
    """Run both models and write the results. Raise TrainerError."""
    samples = {}
    for number, name in enumerate((BASE, TUNED)):
        reply({"done": number, "total": 2})
        samples[name] = run_variant(models, name, request)
    reply({"done": 2, "total": 2})
    for task, base in samples[BASE].items():
        tuned = dict(per_record_metrics(samples[TUNED][task]))
        for metric, values in per_record_metrics(base):
            reply({"task": task, "figure": metric, "base": values, "tuned": tuned[metric]})


def run_variant(models: ModelVariants, name: str, request: TaskRequest) -> dict[str, list[Sample]]:
    """Return the harness's samples by task. Raise TrainerError."""
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise TrainerError(f"lm-eval can't be loaded: {error}.", fix=INSTALL) from error
    with models.variant(name) as loaded:
        model = HFLM(
            pretrained=loaded.model,
            tokenizer=loaded.tokenizer,
            batch_size=BATCH_ROWS,
            max_length=loaded.context_length,
        )
        try:
            manager = TaskManager(include_path=request["include"])
            results = lm_eval.simple_evaluate(
                model=model,
                tasks=list(request["tasks"]),
                limit=request["limit"],
                task_manager=manager,
                log_samples=True,
                bootstrap_iters=0,  # cloudft computes intervals itself, from each record's metrics
            )
        except (OSError, ValueError, KeyError) as error:  # no such task, or its data is not here
            raise TrainerError(
                f"lm-eval can't run {', '.join(request['tasks'])}: {first_line(error)}",
                fix="`lm-eval ls tasks` lists the tasks; their data comes from the model hub."
                " Tasks of your own: --suite-path DIR with their YAML files.",
            ) from error
    return {
        task: sorted(samples, key=lambda sample: sample["doc_id"])
        for task, samples in results["samples"].items()
    }


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def per_record_metrics(samples: Sequence[Sample]) -> Iterator[tuple[str, list[float]]]:
    """Yield the metrics that each record has by itself, as numbers."""
    for name in samples[0]["metrics"] if samples else ():
        values = [sample.get(name) for sample in samples]
        numbers = [float(value) for value in values if isinstance(value, (bool, int, float))]
        if len(numbers) == len(values):  # others (perplexity, say) exist only for a whole task
            yield name, numbers


def main() -> int:
    """Run one request. Send the output of libraries to standard error."""
    with ReplyWriter() as reply:
        job_dir = JobDir(Path(sys.argv[1]))
        silence_libraries()
        models = ModelVariants(job_dir, read_settings(job_dir))
        run_tasks(models, json.loads(sys.stdin.readline()), reply)
    return reply.status


if __name__ == "__main__":
    sys.exit(main())
