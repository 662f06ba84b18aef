"""Measure the base model prompted, with examples, with documents, and tuned; then recommend.

All methods answer the same held-out records, with the same decoding and the same scorer.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from cloudft.backends.base import Backend, StagedJob
from cloudft.backends.capabilities import ProgressCallback, SupportsInference
from cloudft.catalogue import is_text_only
from cloudft.data.findings import Findings
from cloudft.data.formats.record import Document
from cloudft.data.records import read_records
from cloudft.data.sources.source_files import SourceResolver
from cloudft.errors import UsageError
from cloudft.evaluate import language_modeling
from cloudft.evaluate.advise import prompting
from cloudft.evaluate.advise.bm25 import Bm25Index, split_passages
from cloudft.evaluate.advise.recommendation import (
    DataFacts,
    MethodResult,
    Recommendation,
    recommend,
    recommend_for_corpus,
)
from cloudft.evaluate.diagnostics import general_knowledge
from cloudft.evaluate.diagnostics.learning_curve import WaitForJob, require_completed
from cloudft.evaluate.held_out import HeldOutData, load_held_out_data
from cloudft.evaluate.inference.cached_inference import (
    BASE,
    TUNED,
    CachedInference,
    Variant,
    open_cached_inference,
)
from cloudft.evaluate.metrics.scores import answer_value, score_record
from cloudft.evaluate.metrics.significance import PairedDifference, compare_paired
from cloudft.evaluate.metrics.tasks import Task, detect_task
from cloudft.evaluate.results import Delta, Significance
from cloudft.evaluate.rewards.prompts import read_prompts
from cloudft.evaluate.rewards.run import RewardReport, grade_answers, sample_answers
from cloudft.evaluate.supervised import default_generation_config
from cloudft.grading import GraderConfig
from cloudft.inference import GenerationConfig, Prompt
from cloudft.jobs import lifecycle
from cloudft.spec.load import LoadedJob
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord, Store

CHARACTERS_PER_TOKEN = 4
"""Of English text, approximately; used only for the cost of a request."""


GRADED_PROMPTS, GRADED_SAMPLES = 8, 8
"""Prompts, and answers to each, that show whether a grader gives different rewards."""


@dataclass(frozen=True)
class AdviceOptions:
    """How many held-out records are answered, and the grader of a possible reinforcement."""

    limit: int = 100
    grader: GraderConfig | None = None


class CorpusResult(TypedDict):
    """The evaluation's figures for unlabeled text."""

    base: dict[str, float | None]
    tuned: dict[str, float | None]
    delta: dict[str, Delta]
    significance: Significance


@dataclass(frozen=True)
class AdviceReport:
    """The recommendation and its measurements.

    For unlabeled text `methods` is empty, and `corpus` holds the figures.
    """

    recommendation: Recommendation
    task: str
    n: int
    methods: Mapping[str, MethodResult]
    facts: DataFacts | None
    trained: JobRecord | None
    training_seconds: float | None
    training_usd: float | None
    corpus: CorpusResult | None = None
    rewards: RewardReport | None = None


@dataclass(frozen=True)
class _Measurement:
    """The conditions that all methods share."""

    held_out: HeldOutData
    task: Task
    config: GenerationConfig


def run_advice(
    staged: StagedJob,
    base_backend: Backend,
    training_backend: Backend,
    home: Home,
    *,
    options: AdviceOptions,
    progress: ProgressCallback,
    wait: WaitForJob,
) -> AdviceReport:
    """Measure every method and recommend one.

    `base_backend` has the base model; `training_backend` tunes it, or its stand-in. `wait` waits
    for the job that is trained. Raises UsageError, JobFailed, TrainerError.
    """
    if not isinstance(base_backend, SupportsInference) or not isinstance(
        training_backend, SupportsInference
    ):
        raise UsageError("this backend has no inference", fix="use --backend local.")
    _require_held_out_data(staged)
    # The very job that `submit` would start; one that is already trained is found.
    job = require_completed(wait(lifecycle.submit(staged, training_backend, Store(home.jobs))))
    held_out = load_held_out_data(job.record, home, None, options.limit)
    spec = staged.job.spec
    if is_text_only(spec.customization_type):
        return _advise_on_corpus(job, training_backend, home, held_out, progress)
    references = [example.reference for example in held_out.examples]
    measurement = _Measurement(
        held_out,
        detect_task(
            references,
            [example.reference for example in held_out.train_examples],
            requested=spec.evaluate.task,
            labels=spec.evaluate.labels,
        ),
        default_generation_config(held_out.examples, spec.evaluate.max_new_tokens),
    )
    prompts = _build_prompts(staged.job, measurement)
    session = base_backend.open_base_session(staged.job)
    with open_cached_inference(session, home, progress, variants=(BASE,)) as base:
        methods = {name: _measure(name, base, BASE, prompts[name], measurement) for name in prompts}
    session = training_backend.open_session(job.record.backend_job_id or job.record.id)
    with open_cached_inference(session, home, progress) as tuned:
        questions = [example.prompt for example in held_out.examples]
        methods["fine-tuned"] = _measure("fine-tuned", tuned, TUNED, questions, measurement)
    facts = measure_data_facts(held_out, measurement.task)
    rewards = _grade_base_model(staged.job, training_backend, options.grader, measurement, progress)
    figures = rewards.figures if rewards else None
    return AdviceReport(
        recommendation=recommend(methods, facts, compare_methods(methods), figures),
        rewards=rewards,
        task=measurement.task.name,
        n=len(references),
        methods=methods,
        facts=facts,
        trained=job.record,
        training_seconds=_training_seconds(job),
        training_usd=base_backend.estimate(staged.job, staged.manifest.files).usd["training"],
    )


def _require_held_out_data(staged: StagedJob) -> None:
    """Raise UsageError before a training that takes time, and perhaps money, for nothing."""
    if not staged.job.spec.data.test and staged.manifest.files.keys() <= {"train"}:
        fix = "set data.test or data.validation in the job file."
        raise UsageError("the job has no held-out data to compare the methods on", fix=fix)


def _grade_base_model(
    job: LoadedJob,
    backend: Backend,
    config: GraderConfig | None,
    measurement: _Measurement,
    progress: ProgressCallback,
) -> RewardReport | None:
    """Return a grader's rewards of the base model's sampled answers; None without a grader."""
    if config is None:
        return None
    prompts, _ = read_prompts(job, GRADED_PROMPTS)
    decoding = GenerationConfig(measurement.config.max_new_tokens, 1.0, 1.0, job.spec.seed)
    answers = sample_answers(job, backend, prompts, GRADED_SAMPLES, decoding, progress)
    return grade_answers(answers, backend, config, progress)


def _training_seconds(job: lifecycle.Job) -> float | None:
    from datetime import datetime

    if job.state.ended_at is None:
        return None
    started = datetime.fromisoformat(job.record.created_at)
    return (datetime.fromisoformat(job.state.ended_at) - started).total_seconds()


def _build_prompts(job: LoadedJob, measurement: _Measurement) -> dict[str, list[Prompt]]:
    """Return the prompts of the methods that need no training, by method."""
    held_out = measurement.held_out
    index = Bm25Index([example.input_text for example in held_out.train_examples])
    prompts: dict[str, list[Prompt]] = {
        "zero-shot": [
            prompting.zero_shot_prompt(example, measurement.task) for example in held_out.examples
        ],
        "few-shot": [
            prompting.few_shot_prompt(example, held_out.train_examples, index)
            for example in held_out.examples
        ],
    }
    documents = load_documents(job)
    if documents:
        passages = Bm25Index(split_passages(documents))
        prompts["retrieval"] = [
            prompting.retrieval_prompt(example, passages) for example in held_out.examples
        ]
    return prompts


def _measure(
    name: str,
    models: CachedInference,
    variant: Variant,
    prompts: Sequence[Prompt],
    measurement: _Measurement,
) -> MethodResult:
    started, sent_before = time.monotonic(), models.generated_counts.get(variant, 0)
    answers = models.generate_answers(name, prompts, variant, measurement.config)
    # Cached answers take no time, so only those that were generated count.
    sent = models.generated_counts.get(variant, 0) - sent_before
    seconds = (time.monotonic() - started) / sent if sent else None
    scores = [
        score_record(measurement.task, example.reference, answer.text)[0]
        for example, answer in zip(measurement.held_out.examples, answers, strict=True)
    ]
    count = len(prompts)
    return MethodResult(
        name=name,
        score=sum(scores) / count,
        scores=scores,
        prompt_tokens=sum(map(prompting.count_characters, prompts)) / CHARACTERS_PER_TOKEN / count,
        answer_tokens=sum(answer.tokens for answer in answers) / count,
        seconds=seconds,
    )


def compare_methods(methods: Mapping[str, MethodResult]) -> dict[str, PairedDifference]:
    """Return the differences that the recommendation rests on (see `recommend`)."""
    prompt = max((methods["zero-shot"], methods["few-shot"]), key=lambda method: method.score)
    tuned = methods["fine-tuned"].scores
    differences = {"fine-tuned": compare_paired(prompt.scores, tuned)}
    if "retrieval" in methods:
        retrieval = methods["retrieval"].scores
        differences["retrieval"] = compare_paired(prompt.scores, retrieval)
        differences["fine-tuned/retrieval"] = compare_paired(retrieval, tuned)
    return differences


def measure_data_facts(held_out: HeldOutData, task: Task) -> DataFacts:
    """Return the contradictions within the training data, and with the held-out data.

    Answers contradict each other where their values differ, as scoring compares them.
    """
    answers: dict[str, set[Hashable]] = {}
    for example in held_out.train_examples:
        value = answer_value(task, example.reference)
        answers.setdefault(example.input_text, set()).add(value)
    contradicting = sum(len(answers[x.input_text]) > 1 for x in held_out.train_examples)
    changed = sum(
        x.input_text in answers and answer_value(task, x.reference) not in answers[x.input_text]
        for x in held_out.examples
    )
    return DataFacts(
        train_records=len(held_out.train_examples),
        noise=contradicting / max(1, len(held_out.train_examples)),
        stale=changed / len(held_out.examples),
    )


def load_documents(job: LoadedJob) -> list[str]:
    """Return the texts of `evaluate.documents`. Raises UsageError for other data than text."""
    patterns = job.spec.evaluate.documents
    if not patterns:
        return []
    findings = Findings()
    sources = SourceResolver(job.base_dir, findings).resolve("evaluate.documents", patterns)
    records = list(read_records(sources, findings, {}))
    error = next((f for f in findings.all() if f.severity == "error"), None)
    labeled = next((x for x in records if not isinstance(x.record, Document)), None)
    if error is not None or labeled is not None:
        raise UsageError(
            error.message if error else "evaluate.documents contains labeled records",
            file=error.file if error else labeled.file if labeled else None,
            line=error.line if error else labeled.line if labeled else None,
            field="evaluate.documents",
            fix="give plain text documents.",
        )
    return [x.record.text for x in records if isinstance(x.record, Document)]


def _advise_on_corpus(
    job: lifecycle.Job,
    backend: SupportsInference,
    home: Home,
    held_out: HeldOutData,
    progress: ProgressCallback,
) -> AdviceReport:
    """Measure whether unlabeled text teaches the model a language that it does not know yet."""
    session = backend.open_session(job.record.backend_job_id or job.record.id)
    with open_cached_inference(session, home, progress) as models:
        scores = language_modeling.evaluate_language_modeling(
            models, held_out, general_knowledge.load_default_texts()
        )
    difference = compare_paired(
        [record["base"]["score"] for record in scores["records"]],
        [record["tuned"]["score"] for record in scores["records"]],
        lower_is_better=True,
    )
    base = scores["base"][language_modeling.METRIC]
    tuned = scores["tuned"][language_modeling.METRIC]
    assert base is not None and tuned is not None
    characters = sum(len(example.reference) for example in held_out.train_examples)
    return AdviceReport(
        recommendation=recommend_for_corpus(base, tuned, difference, characters),
        task=scores["task"],
        n=len(held_out.examples),
        methods={},
        facts=None,
        trained=job.record,
        training_seconds=_training_seconds(job),
        training_usd=None,
        corpus={
            "base": scores["base"],
            "tuned": scores["tuned"],
            "delta": scores["delta"],
            "significance": scores["significance"],
        },
    )
