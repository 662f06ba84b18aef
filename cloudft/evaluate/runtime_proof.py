"""Prove that an exported model answers in another runtime as the tuned model does.

The runtime answers the job's held-out records, and its answers, their score and the perplexity of
the records' own answers are compared with the tuned model's, each with a 95 % interval. Weights
that are not quantized must give equal answers, and log-probabilities within a tolerance; quantized
ones are measured. Template, tokenizer and end tokens must be the same for both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from cloudft.backends.capabilities import ProgressCallback, SupportsRuntimeCheck
from cloudft.backends.export_options import PROOF
from cloudft.backends.local.model_process import prompt_to_request
from cloudft.catalogue import is_text_only
from cloudft.evaluate.evaluate_job import detect_job_task, job_generation_config
from cloudft.evaluate.held_out import EvalExample, HeldOutData, load_held_out_data
from cloudft.evaluate.metrics.intervals import (
    Interval,
    bootstrap_interval,
    mean_interval,
    paired_mean_interval,
    wilson_interval,
)
from cloudft.evaluate.metrics.resampled_metrics import build_ratio_statistic
from cloudft.evaluate.metrics.scores import HEADLINE_METRIC, score_record
from cloudft.storage.atomic_files import atomic_write
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord, utc_now

RUNTIMES = "runtimes"
"""Its key with the proofs in other runtimes."""
DEFAULT_RECORDS = 50


class Figure(TypedDict):
    """A figure with its 95 % interval; null where the records say nothing of it."""

    value: float
    low: float | None
    high: float | None


class Score(TypedDict):
    """The mean score of the answers, here (`ours`) and in the runtime, and the difference."""

    metric: str
    ours: Figure
    theirs: Figure
    difference: Figure


class Perplexity(TypedDict):
    """Of the records' own answers; `ratio` is that of the runtime over ours."""

    ours: float
    theirs: float
    ratio: Figure


class RuntimeProof(TypedDict):
    """What a runtime makes of an export. `difference` is null where the proof holds.

    `score` is null for a model that continues text; `tolerance` for quantized weights.
    """

    runtime: str
    versions: dict[str, str]
    checked: str
    heldOut: str
    records: int
    tolerance: float | None
    maxDifference: float
    difference: dict[str, Any] | None
    equalAnswers: Figure
    score: Score | None
    perplexity: Perplexity


@dataclass(frozen=True)
class RuntimeCheck:
    """What to run: the runtime by its name in `--for`, its interpreter, how many records."""

    runtime: str
    python: str
    records: int = DEFAULT_RECORDS


def prove_in_runtime(
    record: JobRecord,
    backend: SupportsRuntimeCheck,
    home: Home,
    folder: Path,
    check: RuntimeCheck,
    progress: ProgressCallback,
) -> RuntimeProof:
    """Run the export in `folder`, write the proof into its export.json, and return it.

    `progress` is called after each record. Raise TrainerError where the runtime is missing or
    refuses the model, and UsageError for a job without held-out records.
    """
    held_out = load_held_out_data(record, home, limit=check.records)
    raw = is_text_only(record.customization_type)
    limit = job_generation_config(record, held_out, None).max_new_tokens
    request = {
        "records": [build_item(example, raw=raw) for example in held_out.examples],
        "maxNewTokens": limit,
    }
    job_id = record.backend_job_id or record.id
    result: Mapping[str, Any] = {}
    replies = backend.check_runtime(job_id, folder, check.runtime, check.python, request)
    for result in replies:
        if "done" in result:
            progress(f"records in {check.runtime}", result["done"], result["total"])
    proof = build_proof(result, held_out, None if raw else record)
    path = folder / PROOF
    content = json.loads(path.read_text(encoding="utf-8"))
    content.setdefault(RUNTIMES, {})[check.runtime] = proof
    atomic_write(path, json.dumps(content, indent=1).encode())
    return proof


def build_item(example: EvalExample, *, raw: bool) -> dict[str, Any]:
    """Return a record as the trainer's program takes it: a prompt, and the answer to score.

    Of a text without a prompt, the first half is continued.
    """
    if raw:
        text = example.reference
        half = text.find(" ", len(text) // 2) if " " in text[len(text) // 2 :] else len(text) // 2
        return {"prompt": {"text": text[: max(1, half)]}, "text": text[max(1, half) :]}
    item: dict[str, Any] = {"prompt": prompt_to_request(example.prompt), "text": example.reference}
    return item | ({"reply": dict(example.reply)} if example.reply else {})


def build_proof(
    result: Mapping[str, Any], held_out: HeldOutData, record: JobRecord | None
) -> RuntimeProof:
    """Return the program's result as figures with intervals; without `record` there is no score."""
    rows = result["records"]
    equal = sum(row["equal"] for row in rows)
    return {
        "runtime": result["runtime"],
        "versions": result["versions"],
        "checked": utc_now(),
        "heldOut": held_out.role,
        "records": len(rows),
        "tolerance": result["tolerance"],
        "maxDifference": result["maxDifference"],
        "difference": result["difference"],
        "equalAnswers": make_figure(equal / len(rows), wilson_interval(equal, len(rows))),
        "score": compare_scores(rows, held_out, record) if record else None,
        "perplexity": compare_perplexity(rows),
    }


def compare_scores(
    rows: Sequence[Mapping[str, Any]], held_out: HeldOutData, record: JobRecord
) -> Score:
    """Return the mean scores of both, by the scorer of `evaluate`."""
    task = detect_job_task(record, held_out, None)
    references = [example.reference for example in held_out.examples]
    points = [
        [
            score_record(task, reference, row[name])[0]
            for reference, row in zip(references, rows, strict=True)
        ]
        for name in ("ours", "theirs")
    ]
    ours, theirs = points
    means = [math.fsum(values) / len(values) for values in points]
    return {
        "metric": HEADLINE_METRIC[task.name],
        "ours": make_figure(means[0], mean_interval(ours)),
        "theirs": make_figure(means[1], mean_interval(theirs)),
        "difference": make_figure(means[1] - means[0], paired_mean_interval(ours, theirs)),
    }


def compare_perplexity(rows: Sequence[Mapping[str, Any]]) -> Perplexity:
    """Return the perplexity of the records' own answers in both, and their ratio."""
    tokens = [float(row["tokens"]) for row in rows]
    ours, theirs = ([-row["logLikelihoods"][at] for row in rows] for at in (0, 1))
    total = max(1.0, math.fsum(tokens))
    losses = [math.fsum(values) / total for values in (ours, theirs)]
    changes = [b - a for a, b in zip(ours, theirs, strict=True)]
    ratio = build_ratio_statistic(changes, tokens, math.exp)
    return {
        "ours": math.exp(losses[0]),
        "theirs": math.exp(losses[1]),
        "ratio": make_figure(math.exp(losses[1] - losses[0]), bootstrap_interval(ratio, len(rows))),
    }


def make_figure(value: float, interval: Interval | None) -> Figure:
    """Return a figure with its interval."""
    low, high = interval or (None, None)
    return {"value": value, "low": low, "high": high}


def describe_proof(proof: RuntimeProof) -> str:
    """Return a proof as a few lines for people."""
    names = ", ".join(f"{name} {version}" for name, version in sorted(proof["versions"].items()))
    lines = [f"{proof['runtime']} ({names}), {proof['records']} {proof['heldOut']} records"]
    lines.append(f"  equal greedy answers: {_percent(proof['equalAnswers'])}")
    score = proof["score"]
    if score:
        lines.append(
            f"  {score['metric']}: {_percent(score['theirs'])}, tuned model"
            f" {_percent(score['ours'])}; difference {_percent(score['difference'])}"
        )
    perplexity = proof["perplexity"]
    ratio = perplexity["ratio"]
    lines.append(
        f"  perplexity of the records' answers: {perplexity['theirs']:.4g}, tuned model"
        f" {perplexity['ours']:.4g}; ratio {ratio['value']:.4f}{_range(ratio, '.4f')}"
    )
    allowed = proof["tolerance"]
    limit = "quantized: not limited" if allowed is None else f"allowed {allowed:g}"
    lines.append(
        f"  largest difference of a log-probability: {proof['maxDifference']:.2g} ({limit})"
    )
    return "\n".join(lines)


def _percent(figure: Figure) -> str:
    scaled = Figure(
        value=100 * figure["value"],
        low=None if figure["low"] is None else 100 * figure["low"],
        high=None if figure["high"] is None else 100 * figure["high"],
    )
    return f"{scaled['value']:.1f} %{_range(scaled, '.1f')}"


def _range(figure: Figure, form: str) -> str:
    if figure["low"] is None or figure["high"] is None:
        return ""
    return f" [{figure['low']:{form}}, {figure['high']:{form}}]"
