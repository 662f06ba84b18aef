"""What advise measures: the base model prompted, prompted with examples, with documents, tuned.

Everything is asked of the same held-out records, with the same decoding and the same scorer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudft.backends.base import Backend, StagedJob
from cloudft.backends.capabilities import ProgressCallback, SupportsInference
from cloudft.catalogue import is_text_only
from cloudft.data.findings import Findings
from cloudft.data.formats.record import Document
from cloudft.data.records import read_records
from cloudft.data.sources.source_files import SourceResolver
from cloudft.errors import JobFailed, UsageError
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
from cloudft.evaluate.held_out import HeldOutData, load_held_out_data
from cloudft.evaluate.inference.cached_inference import (
    BASE,
    TUNED,
    CachedInference,
    open_cached_inference,
)
from cloudft.evaluate.metrics.scores import score_record
from cloudft.evaluate.metrics.significance import PairedDifference, compare_paired
from cloudft.evaluate.metrics.tasks import Task, detect_task
from cloudft.evaluate.supervised import default_generation_config
from cloudft.inference import GenerationConfig, Prompt
from cloudft.jobs import lifecycle
from cloudft.spec.load import LoadedJob
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord, Store

CHARACTERS_PER_TOKEN = 4
"""Of English text, about; only for what a request takes."""


@dataclass(frozen=True)
class AdviceReport:
    """What advise found. `methods` is empty for a corpus; `evaluation` holds its numbers then."""

    recommendation: Recommendation
    task: str
    n: int
    methods: Mapping[str, MethodResult]
    facts: DataFacts | None
    trained: JobRecord | None
    training_seconds: float | None
    training_usd: float | None
    corpus: Mapping[str, Any] | None = None


def run_advice(
    staged: StagedJob,
    base_backend: Backend,
    training_backend: Backend,
    home: Home,
    *,
    limit: int,
    progress: ProgressCallback,
    wait: Callable[[lifecycle.Job], lifecycle.Job],
) -> AdviceReport:
    """Measure, then say. `asking` has the base model, `training` tunes it (or its stand-in).

    `follow` waits for the job that is trained. Raises UsageError, JobFailed, TrainerError.
    """
    if not isinstance(base_backend, SupportsInference) or not isinstance(
        training_backend, SupportsInference
    ):
        raise UsageError("this backend's models can't be asked", fix="use --backend local.")
    job = _train(staged, training_backend, home, wait)
    held = load_held_out_data(job.record, home, None, limit)
    seconds = _training_seconds(job)
    if is_text_only(staged.job.spec.customization_type):
        return _advise_on_corpus(job.record, training_backend, home, held, seconds, progress)
    task = detect_task(
        [item.reference for item in held.examples],
        [item.reference for item in held.train_examples],
        requested=staged.job.spec.evaluate.task,
        labels=staged.job.spec.evaluate.labels,
    )
    decoding = default_generation_config(
        [item.reference for item in held.examples], staged.job.spec.evaluate.max_new_tokens
    )
    found = _measure_prompting(staged.job, base_backend, home, held, task, decoding, progress)
    session = training_backend.open_session(job.record.backend_job_id or job.record.id)
    with open_cached_inference(session, home, progress) as tuned:
        prompts = [item.prompt for item in held.examples]
        found["fine-tuned"] = _measure("fine-tuned", tuned, TUNED, prompts, held, task, decoding)
    facts = measure_data_facts(held)
    usd = base_backend.estimate(staged.job, staged.manifest.files).usd["training"]
    word = recommend(found, facts, compare_methods(found))
    return AdviceReport(word, task.name, len(held.examples), found, facts, job.record, seconds, usd)


def _train(
    staged: StagedJob,
    backend: Backend,
    home: Home,
    follow: Callable[[lifecycle.Job], lifecycle.Job],
) -> lifecycle.Job:
    """The job, trained on this machine: the very one that `submit` would start, or has."""
    job = follow(lifecycle.submit(staged, backend, Store(home.jobs)))
    if job.state.status != "Completed":
        raise JobFailed(
            f"{job.record.id} is {job.state.status}: {job.state.failure_message or 'no reason'}",
            fix=f"cloudft logs {job.record.id}",
        )
    return job


def _training_seconds(job: lifecycle.Job) -> float | None:
    from datetime import datetime

    if job.state.ended_at is None:
        return None
    began = datetime.fromisoformat(job.record.created_at)
    return (datetime.fromisoformat(job.state.ended_at) - began).total_seconds()


def _measure_prompting(
    job: LoadedJob,
    backend: SupportsInference,
    home: Home,
    held: HeldOutData,
    task: Task,
    decoding: GenerationConfig,
    progress: ProgressCallback,
) -> dict[str, MethodResult]:
    """The methods that need no training."""
    examples = Bm25Index([item.input_text for item in held.train_examples])
    ways: dict[str, list[Prompt]] = {
        "zero-shot": [prompting.zero_shot_prompt(item, task) for item in held.examples],
        "few-shot": [
            prompting.few_shot_prompt(item, held.train_examples, examples) for item in held.examples
        ],
    }
    documents = load_documents(job)
    if documents:
        index = Bm25Index(split_passages(documents))
        ways["retrieval"] = [prompting.retrieval_prompt(item, index) for item in held.examples]
    with open_cached_inference(
        backend.open_base_session(job), home, progress, variants=(BASE,)
    ) as base:
        return {
            name: _measure(name, base, BASE, prompts, held, task, decoding)
            for name, prompts in ways.items()
        }


def _measure(
    name: str,
    asked: CachedInference,
    variant: str,
    prompts: Sequence[Prompt],
    held: HeldOutData,
    task: Task,
    decoding: GenerationConfig,
) -> MethodResult:
    began, before = time.monotonic(), asked.generated_counts.get(variant, 0)
    said = asked.generate_answers(name, prompts, variant, decoding)
    new = asked.generated_counts.get(variant, 0) - before
    seconds = (time.monotonic() - began) / new if new else None
    scores = [
        score_record(task, item.reference, answer.text)[0]
        for item, answer in zip(held.examples, said, strict=True)
    ]
    count = len(prompts)
    return MethodResult(
        name=name,
        score=sum(scores) / count,
        scores=scores,
        prompt_tokens=sum(map(prompting.count_characters, prompts)) / CHARACTERS_PER_TOKEN / count,
        answer_tokens=sum(answer.tokens for answer in said) / count,
        seconds=seconds,
    )


def compare_methods(found: Mapping[str, MethodResult]) -> dict[str, PairedDifference]:
    """The differences that the advice rests on; see decide."""
    prompt = max((found["zero-shot"], found["few-shot"]), key=lambda m: m.score)
    differences = {"fine-tuned": compare_paired(prompt.scores, found["fine-tuned"].scores)}
    if "retrieval" in found:
        looked_up = found["retrieval"].scores
        differences["retrieval"] = compare_paired(prompt.scores, looked_up)
        differences["fine-tuned/retrieval"] = compare_paired(looked_up, found["fine-tuned"].scores)
    return differences


def measure_data_facts(held: HeldOutData) -> DataFacts:
    """What the data tells by itself: contradictions within it, and with what is held out."""
    answers: dict[str, set[str]] = {}
    for item in held.train_examples:
        answers.setdefault(item.input_text, set()).add(item.reference.strip())
    noisy = sum(len(answers[item.input_text]) > 1 for item in held.train_examples)
    changed = sum(
        item.input_text in answers and item.reference.strip() not in answers[item.input_text]
        for item in held.examples
    )
    return DataFacts(
        train_records=len(held.train_examples),
        noise=noisy / max(1, len(held.train_examples)),
        stale=changed / len(held.examples),
    )


def load_documents(job: LoadedJob) -> list[str]:
    """The user's documents with facts to answer from. Raises UsageError for what is no text."""
    named = job.spec.evaluate.documents
    if not named:
        return []
    findings = Findings()
    sources = SourceResolver(job.base_dir, findings).resolve("evaluate.documents", named)
    found = list(read_records(sources, findings, {}))
    wrong = next((f for f in findings.all() if f.severity == "error"), None)
    labelled = next((f for f in found if not isinstance(f.record, Document)), None)
    if wrong is not None or labelled is not None:
        raise UsageError(
            wrong.message if wrong else "evaluate.documents holds labelled records",
            file=wrong.file if wrong else labelled.file if labelled else None,
            line=wrong.line if wrong else labelled.line if labelled else None,
            field="evaluate.documents",
            fix="give documents of plain text.",
        )
    return [f.record.text for f in found if isinstance(f.record, Document)]


def _advise_on_corpus(
    record: JobRecord,
    backend: Backend,
    home: Home,
    held: HeldOutData,
    seconds: float | None,
    progress: ProgressCallback,
) -> AdviceReport:
    """Unlabelled text: is it language that the model does not know yet?"""
    assert isinstance(backend, SupportsInference)
    session = backend.open_session(record.backend_job_id or record.id)
    with open_cached_inference(session, home, progress) as asked:
        found = language_modeling.evaluate_language_modeling(
            asked, held, general_knowledge.load_default_texts()
        )
    bits = [[r[name]["score"] for r in found["records"]] for name in (BASE, TUNED)]
    difference = compare_paired(bits[0], bits[1], lower_is_better=True)
    size = sum(len(item.reference) for item in held.train_examples)
    base, tuned = found[BASE]["bitsPerByte"], found[TUNED]["bitsPerByte"]
    word = recommend_for_corpus(base, tuned, difference, size)
    numbers = {name: found[name] for name in (BASE, TUNED, "delta", "significance")}
    return AdviceReport(
        word, "language-modelling", len(held.examples), {}, None, record, seconds, None, numbers
    )
