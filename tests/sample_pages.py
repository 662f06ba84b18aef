"""Make up jobs, evaluations and data for pages: many records, files and labels, and long texts."""

from __future__ import annotations

import functools
import math
import random
from pathlib import Path
from typing import Any

from job_records import make_record

from cloudft.data.analysis.stats import summarize_lengths
from cloudft.evaluate.compare import ModelResult, compare_models
from cloudft.evaluate.held_out import EvalExample, HeldOutData
from cloudft.evaluate.inference.cached_inference import BASE, TUNED, ModelAnswer
from cloudft.evaluate.metrics.tasks import Task
from cloudft.evaluate.report.compare_page import render_compare_page
from cloudft.evaluate.report.data_page import render_data_page
from cloudft.evaluate.report.job_page import render_job_page
from cloudft.evaluate.results import DiagnosticResult, Evaluation
from cloudft.evaluate.supervised import evaluate_supervised
from cloudft.inference import Prompt
from cloudft.jobs.lifecycle import Job
from cloudft.storage.store import Store
from cloudft.types import JobState, Metric, Split, StatusDetails

INSTRUCTION = (
    "You route the requests of customers.\nRead the request to its end. Answer with the name of"
    " one queue and nothing else.\n\nRequest: "
)
"""The text with which every prompt begins."""
MARKUP = '</pre></main><b>bold</b> "quoted" & \'single\' <img alt="x">'
ARABIC = "أين طردي؟ طلبته قبل ثلاثة أسابيع ولم يصل بعد، وأريد استعادة نقودي."
LONG = "The parcel was sent on Monday and has not arrived. " * 120
QUESTIONS = ("Where is my parcel {}?", f"{ARABIC} {{}}", f"{MARKUP} {{}}", f"{LONG} {{}}")
DIAGNOSTICS: dict[str, DiagnosticResult] = {
    "form": {"level": "good", "sentence": "The tuned model learned more than the answer format."},
    "forgetting": {"level": "warning", "sentence": "Some general knowledge was lost."},
    "memorised": {"level": "bad", "sentence": "Training texts are repeated word by word."},
    "data": {"level": "good", "sentence": "More data of this kind would help."},
}

FIGURES = {
    "base": 0.25,
    "tuned": 0.5,
    "delta": {"value": 0.25, "low": None, "high": None},
}


@functools.cache
def make_evaluation(*, records: int = 200, labels: int = 40) -> Evaluation:
    """Return an evaluation of a classifier: the base is right in 3 of 10 records, the job in 8."""
    names = tuple(f"queue_{n:02d}_{'returns' if n % 2 else 'deliveries'}" for n in range(labels))
    draw = random.Random(7)
    examples = tuple(
        EvalExample(
            f"k{n}",
            "held-out.jsonl",
            n + 1,
            Prompt(text=""),
            INSTRUCTION + QUESTIONS[n % len(QUESTIONS)].format(n),
            names[n % labels],
        )
        for n in range(records)
    )

    def answer(example: EvalExample, right: float, filler: str) -> ModelAnswer:
        label = example.reference if draw.random() < right else draw.choice(names)
        return ModelAnswer(f"{filler}{label}", 8, "stop")

    answers = {
        BASE: [
            answer(x, 0.3, f"{LONG}\n{MARKUP}\n" if n % 9 == 0 else "")
            for n, x in enumerate(examples)
        ],
        TUNED: [answer(x, 0.8, "") for x in examples],
    }
    held_out = HeldOutData(examples, (), "given", ("held-out.jsonl",), (), False)
    scores = evaluate_supervised(Task("classification", names), held_out, answers, {})
    for n, record in enumerate(scores["records"]):
        for variant in (BASE, TUNED):
            said = f"{LONG}\n{MARKUP}" if n % 9 == 0 else "It names the queue."
            score = None if n % 5 == 0 else record[variant]["score"]
            record[variant]["judged"] = {"Correctness": {"score": score, "explanation": said}}
    return {
        "job": "ticket-router-0a1b2c3d",
        "data": {"sha256": held_out.sha256, "role": "given", "files": ["held-out.jsonl"]},
        "warnings": [{"code": "FewRecords", "message": "only large differences are significant"}],
        "identities": {"base": "a" * 64, "tuned": "b" * 64},
        "pitfalls": DIAGNOSTICS,
        **scores,
        "omitted": [{"metric": "bleu", "reason": "the references are single words"}],
        "suites": [
            {"suite": "arc_easy", "figure": "acc", "n": 200, "higherIsBetter": True, **FIGURES},
            {"suite": "wikitext", "figure": "bits_per_byte", "n": 9, "higherIsBetter": False}
            | FIGURES,
            {"suite": "bedrock-judge:Correctness", "figure": "by nova-pro", "n": 160, **FIGURES}
            | {"sentence": "The tuned model is better: correctness."},
        ],
        "earlier": [
            {"task": "text", "metric": "chrf", "n": 12, "evaluatedAt": "2026-01-01T00:00:00+00:00"}
            | {"data": {"role": "test", "sha256": "e" * 64}}
            | FIGURES
        ],
    }


def make_job(folder: Path, *, files: int = 72, **state: Any) -> Job:
    """Return a completed job that was trained on `files` files."""
    paths = [f"exports/2026/region-{n % 9}/tickets-of-customer-{n:03d}.jsonl" for n in range(files)]
    sources = [
        {"role": role, "path": path, "records": 60, "shape": shape}
        for n, path in enumerate(paths)
        for role, shape in [("test" if n % 12 == 11 else "train", "chat" if n % 3 else "prompt")]
    ]
    staged = {
        role: {"records": 60 * count, "tokens": 9000 * count, "sha256": "c" * 64}
        for role, count in (("train", files - files // 12), ("test", files // 12))
    }
    record = make_record(
        Store(folder),
        "ticket-router-0a1b2c3d",
        manifest={
            "sha256": "d" * 64,
            "format": "converse",
            "tokenRule": "estimate: characters / 6",
            "files": staged,
            "sources": sources,
        },
        estimate={"usd": {"training": 1.25}, "priceSource": "price list", "priceDate": "2026-01"},
        spec={"name": "ticket-router", "data": {"train": paths, "validation": 0.1}},
    )
    values = {
        "id": record.id,
        "status": "Completed",
        "status_details": StatusDetails(),
        "created_at": record.created_at,
        "ended_at": "2026-01-02T04:04:05.678+00:00",
        "summary": {"model": "smollm2-135m", "chatTemplate": "chatml " * 40},
    }
    return Job(record, JobState(**values | state))


def make_curves(steps: int = 300, first: float = 11.2) -> list[Metric]:
    """Return curves that fall from `first`, with a validation every tenth of the steps."""
    loss = [first * math.exp(-4 * n / steps) + 0.1 * math.sin(n) ** 2 for n in range(steps)]
    every = max(1, steps // 10)
    return [
        *(_point(n, "train", value) for n, value in enumerate(loss)),
        *(_point(n, "validation", loss[n] + 0.3) for n in range(every - 1, steps, every)),
    ]


def _point(step: int, split: Split, loss: float) -> Metric:
    return Metric(step, 0, split, loss, math.exp(loss), None, None, "2026-01-02T03:04:05Z")


def make_results(evaluation: Evaluation) -> list[ModelResult]:
    """Return the results of a base model, and of two jobs that answer alike."""
    return [
        ModelResult("amazon.nova-lite-v1:0:300k (base)", evaluation, "base", 0.0),
        ModelResult("ticket-router-0a1b2c3d", evaluation, "tuned", 1.25, 3600.0),
        ModelResult("ticket-router-with-a-long-name-4e5f6a7b", evaluation, "tuned", None, 95.0),
    ]


def make_data_stats(*, labels: int = 40) -> dict[str, Any]:
    """Return the statistics of two sets as `data report` gets them."""
    draw = random.Random(7)
    tokens = [int(draw.lognormvariate(5, 0.8)) + 1 for _ in range(3000)]
    counts = {f"queue_{n:02d} {MARKUP if n == 3 else ''}": 400 - 9 * n for n in range(labels)}
    counts[ARABIC] = 10
    first = {"file": "exports/2026/region-1/tickets-of-customer-001.jsonl", "line": 1200}
    other = {"ofFile": first["file"], "ofLine": 7}
    return {
        "train": {
            "records": 3000,
            "tokens": summarize_lengths(tokens, estimated=False, limit=700),
            "labels": counts,
            "commonestShare": 0.13,
            "duplicates": 17,
            "conflicts": {"count": 70, "first": [first | other] * 5},
            "languages": {"en": 1900, "ar": 100},
            "turns": {"2": 2900, "4": 100},
        },
        "test": {
            "records": 0,
            "tokens": summarize_lengths([], estimated=True),
            "labels": None,
            "commonestShare": None,
            "duplicates": 0,
            "conflicts": {"count": 0, "first": []},
            "languages": {},
            "turns": {},
        },
    }


def render_pages(folder: Path, *, records: int = 200) -> dict[str, str]:
    """Return a report, a comparison and a report of data. The job's record is in `folder`."""
    evaluation = make_evaluation(records=records)
    return {
        "report": render_job_page(make_job(folder), make_curves(), evaluation),
        "compare": render_compare_page(compare_models(make_results(evaluation))),
        "data": render_data_page(
            "ticket-router", make_data_stats(), {"train": {"EMAIL": 12, "PHONE": 3}, "test": {}}
        ),
    }
