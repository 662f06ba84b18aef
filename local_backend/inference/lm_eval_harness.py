"""Evaluate a job's models with EleutherAI's lm-eval: `python -m
local_backend.inference.lm_eval_harness JOB_DIR`.

Standard input holds `{"tasks": [...], "include": DIR | null, "limit": N | null}`. Standard output
has `{"done": N, "total": N}` for each model, then for each figure of each task `{"task", "figure",
"records", "base", "tuned", "higher_is_better", "base_scores": [...], "tuned_scores": [...]}`; or
`{"error", "fix"}`. A task with several filters has a figure for each. Scores have one entry a
document, in the same order for both models; they are empty where the figure is not their mean.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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

NO_FILTER = "none"
"""The filter of a task that lists none."""

Sample = Mapping[str, Any]
"""What lm-eval keeps of one document and one filter: `doc_id`, `filter`, `metrics` (their names),
and each metric by name."""


@dataclass(frozen=True)
class TaskResult:
    """The result of one task: its samples, its figures as `METRIC,FILTER`, and which way is up."""

    samples: Sequence[Sample]
    figures: Mapping[str, object]
    higher_is_better: Mapping[str, bool | None]

    @property
    def documents(self) -> int:
        """Return the number of documents, however many filters there are."""
        return len({sample["doc_id"] for sample in self.samples})

    def get_figure(self, name: str) -> float | None:
        """Return a figure as lm-eval computes it; None for one that is no finite number."""
        value = self.figures.get(name)
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            return None
        return float(value)

    def get_scores(self, metric: str, filter_name: str) -> list[float]:
        """Return the documents' scores by their number; nothing if the figure is not their mean."""
        by_document = {
            sample["doc_id"]: sample.get(metric)
            for sample in self.samples
            if sample.get("filter", NO_FILTER) == filter_name
        }
        scores = [by_document[number] for number in sorted(by_document)]
        values = [float(score) for score in scores if isinstance(score, (bool, int, float))]
        figure = self.get_figure(f"{metric},{filter_name}")
        # Some are a sum and a count: perplexity is computed from all of them.
        if figure is None or len(values) < len(scores):
            return []
        mean = math.fsum(values) / len(values)
        return values if math.isclose(mean, figure, rel_tol=1e-6, abs_tol=1e-9) else []


class TaskRequest(TypedDict):
    """What standard input holds. `include` is a folder with tasks of one's own."""

    tasks: list[str]
    include: str | None
    limit: int | None


def run_tasks(models: ModelVariants, request: TaskRequest, reply: Reply) -> None:
    """Run both models and write the results. Raise TrainerError."""
    results = {}
    for number, name in enumerate((BASE, TUNED)):
        reply({"done": number, "total": 2})
        results[name] = run_variant(models, name, request)
    reply({"done": 2, "total": 2})
    for task, base in results[BASE].items():
        for figure in compare_figures(base, results[TUNED][task]):
            reply({"task": task, **figure})


def compare_figures(base: TaskResult, tuned: TaskResult) -> Iterator[dict[str, object]]:
    """Yield each figure of a task for both models, a metric with each of its filters."""
    pairs = {
        (str(metric), str(sample.get("filter", NO_FILTER)))
        for sample in base.samples
        for metric in sample["metrics"]
    }
    for metric, filter_name in sorted(pairs):
        scores = [result.get_scores(metric, filter_name) for result in (base, tuned)]
        if len(scores[0]) != len(scores[1]):
            scores = [[], []]
        name = f"{metric},{filter_name}"
        yield {
            "figure": metric if filter_name == NO_FILTER else name,
            "records": base.documents,
            "base": base.get_figure(name),
            "tuned": tuned.get_figure(name),
            "higher_is_better": base.higher_is_better.get(metric),
            "base_scores": scores[0],
            "tuned_scores": scores[1],
        }


def run_variant(models: ModelVariants, name: str, request: TaskRequest) -> dict[str, TaskResult]:
    """Return the harness's results by task. Raise TrainerError."""
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
        task: TaskResult(samples, results["results"][task], results["higher_is_better"][task])
        for task, samples in results["samples"].items()
    }


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


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
