"""`python -m local_backend.inference.lm_eval_harness JOB_DIR`: the job's models on tasks of EleutherAI's lm-eval.

Standard input holds `{"tasks": [...], "include": DIR | null, "limit": N | null}`. Standard output
has `{"done": N, "total": N}` as the models come through, then for each task and each figure that it
has of every record `{"task", "figure", "base": [...], "tuned": [...]}`, records in one order; or
`{"error", "fix"}`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from local_backend.errors import TrainerError
from local_backend.inference.model_variants import BASE, TUNED, ModelVariants
from local_backend.job_dir import JobDir
from local_backend.progress import silence_libraries
from local_backend.settings import read_settings

BATCH_ROWS = 16
"""Rows that the harness puts through the model at once."""
INSTALL = "pip install 'cloudft[lm-eval]'"


def run_tasks(models: ModelVariants, wanted: Mapping[str, Any], say: Callable[[Any], None]) -> None:
    """Ask both models, and say what came of it. Raises TrainerError."""
    found = {}
    for number, name in enumerate((BASE, TUNED)):
        say({"done": number, "total": 2})
        found[name] = run_variant(models, name, wanted)
    say({"done": 2, "total": 2})
    for task, base in found[BASE].items():
        for figure, values in per_record_metrics(base):
            tuned = dict(per_record_metrics(found[TUNED][task]))[figure]
            say({"task": task, "figure": figure, "base": values, "tuned": tuned})


def run_variant(
    models: ModelVariants, name: str, wanted: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """What the harness keeps of each record, by task. Raises TrainerError."""
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
            manager = TaskManager(include_path=wanted["include"])
            results = lm_eval.simple_evaluate(
                model=model,
                tasks=list(wanted["tasks"]),
                limit=wanted["limit"],
                task_manager=manager,
                log_samples=True,
                bootstrap_iters=0,
            )
        except (OSError, ValueError, KeyError) as error:  # no such task, or its data is not here
            raise TrainerError(
                f"lm-eval can't run {', '.join(wanted['tasks'])}: {first_line(error)}",
                fix="`lm-eval ls tasks` lists the tasks; their data comes from the model hub."
                " Tasks of your own: --suite-path DIR with their YAML files.",
            ) from error
    by_record = {
        task: sorted(kept, key=lambda one: int(one["doc_id"]))
        for task, kept in results["samples"].items()
    }
    return by_record


def first_line(error: BaseException) -> str:
    """The first line of what went wrong."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def per_record_metrics(kept: list[Any]) -> Iterator[tuple[str, list[float]]]:
    """The figures that each record has by itself, as plain numbers."""
    for name in kept[0]["metrics"] if kept else ():
        values = [one.get(name) for one in kept]
        if all(isinstance(value, (bool, int, float)) for value in values):
            yield name, [float(value) for value in values]


def main() -> int:
    """Run one request. What libraries print goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(value: Any) -> None:
        print(json.dumps(value), file=replies, flush=True)

    job_dir = JobDir(Path(sys.argv[1]))
    try:
        silence_libraries()
        run_tasks(
            ModelVariants(job_dir, read_settings(job_dir)), json.loads(sys.stdin.readline()), say
        )
    except TrainerError as error:
        say({"error": error.message, "fix": error.fix})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
