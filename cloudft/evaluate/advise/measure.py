"""What advise measures: the base model prompted, prompted with examples, with documents, tuned.

Everything is asked of the same held-out records, with the same decoding and the same scorer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudft import jobs
from cloudft.backends.base import Backend, Decoding, Opens, Progress, Prompt, StagedJob
from cloudft.data.findings import Findings
from cloudft.data.record import Document
from cloudft.data.records import located
from cloudft.data.sources import Sources
from cloudft.errors import JobFailed, UsageError
from cloudft.evaluate import general, language
from cloudft.evaluate.advise import methods
from cloudft.evaluate.advise.decide import Facts, Measured, Word, decide, decide_corpus
from cloudft.evaluate.advise.retrieve import Index, passages
from cloudft.evaluate.ask import BASE, TUNED, Models, models
from cloudft.evaluate.held_out import HeldOut, held_out
from cloudft.evaluate.scores import score_record
from cloudft.evaluate.statistics import Paired, paired
from cloudft.evaluate.supervised import decoding_for
from cloudft.evaluate.tasks import Task, task_of
from cloudft.home import Home
from cloudft.spec.load import LoadedJob
from cloudft.store import Record, Store

CHARACTERS_PER_TOKEN = 4
"""Of English text, about; only for what a request takes."""


@dataclass(frozen=True)
class Study:
    """What advise found. `methods` is empty for a corpus; `evaluation` holds its numbers then."""

    word: Word
    task: str
    n: int
    methods: Mapping[str, Measured]
    facts: Facts | None
    trained: Record | None
    training_seconds: float | None
    training_usd: float | None
    corpus: Mapping[str, Any] | None = None


def advise(
    staged: StagedJob,
    asking: Backend,
    training: Backend,
    home: Home,
    *,
    limit: int,
    progress: Progress,
    follow: Callable[[jobs.Job], jobs.Job],
) -> Study:
    """Measure, then say. `asking` has the base model, `training` tunes it (or its stand-in).

    `follow` waits for the job that is trained. Raises UsageError, JobFailed, TrainerError.
    """
    if not isinstance(asking, Opens) or not isinstance(training, Opens):
        raise UsageError("this backend's models can't be asked", fix="use --backend local.")
    job = _trained(staged, training, home, follow)
    held = held_out(job.record, home, None, limit)
    seconds = _training_seconds(job)
    if staged.job.spec.customization_type == "CONTINUED_PRE_TRAINING":
        return _corpus(job.record, training, home, held, seconds, progress)
    task = task_of(
        [item.reference for item in held.items],
        [item.reference for item in held.train],
        wanted=staged.job.spec.evaluate.task,
        labels=staged.job.spec.evaluate.labels,
    )
    decoding = decoding_for(
        [item.reference for item in held.items], staged.job.spec.evaluate.max_new_tokens
    )
    found = _prompted(staged.job, asking, home, held, task, decoding, progress)
    session = training.open(job.record.backend_job_id or job.record.id)
    with models(session, home, progress) as tuned:
        prompts = [item.prompt for item in held.items]
        found["fine-tuned"] = _measured("fine-tuned", tuned, TUNED, prompts, held, task, decoding)
    facts = facts_of(held)
    usd = asking.estimate(staged.job, staged.manifest.files).usd["training"]
    word = decide(found, facts, compared(found))
    return Study(word, task.name, len(held.items), found, facts, job.record, seconds, usd)


def _trained(
    staged: StagedJob, backend: Backend, home: Home, follow: Callable[[jobs.Job], jobs.Job]
) -> jobs.Job:
    """The job, trained on this machine: the very one that `submit` would start, or has."""
    job = follow(jobs.submit(staged, backend, Store(home.jobs)))
    if job.state.status != "Completed":
        raise JobFailed(
            f"{job.record.id} is {job.state.status}: {job.state.failure_message or 'no reason'}",
            fix=f"cloudft logs {job.record.id}",
        )
    return job


def _training_seconds(job: jobs.Job) -> float | None:
    from datetime import datetime

    if job.state.ended_at is None:
        return None
    began = datetime.fromisoformat(job.record.created_at)
    return (datetime.fromisoformat(job.state.ended_at) - began).total_seconds()


def _prompted(
    job: LoadedJob,
    backend: Opens,
    home: Home,
    held: HeldOut,
    task: Task,
    decoding: Decoding,
    progress: Progress,
) -> dict[str, Measured]:
    """The methods that need no training."""
    examples = Index([item.shown for item in held.train])
    ways: dict[str, list[Prompt]] = {
        "zero-shot": [methods.zero_shot(item, task) for item in held.items],
        "few-shot": [methods.few_shot(item, held.train, examples) for item in held.items],
    }
    documents = documents_of(job)
    if documents:
        index = Index(passages(documents))
        ways["retrieval"] = [methods.retrieval(item, index) for item in held.items]
    with models(backend.open_base(job), home, progress, variants=(BASE,)) as base:
        return {
            name: _measured(name, base, BASE, prompts, held, task, decoding)
            for name, prompts in ways.items()
        }


def _measured(
    name: str,
    asked: Models,
    variant: str,
    prompts: Sequence[Prompt],
    held: HeldOut,
    task: Task,
    decoding: Decoding,
) -> Measured:
    began, before = time.monotonic(), asked.asked.get(variant, 0)
    said = asked.answers(name, prompts, variant, decoding)
    new = asked.asked.get(variant, 0) - before
    seconds = (time.monotonic() - began) / new if new else None
    scores = [
        score_record(task, item.reference, answer.text)[0]
        for item, answer in zip(held.items, said, strict=True)
    ]
    count = len(prompts)
    return Measured(
        name=name,
        score=sum(scores) / count,
        scores=scores,
        prompt_tokens=sum(map(methods.characters, prompts)) / CHARACTERS_PER_TOKEN / count,
        answer_tokens=sum(answer.tokens for answer in said) / count,
        seconds=seconds,
    )


def compared(found: Mapping[str, Measured]) -> dict[str, Paired]:
    """The differences that the advice rests on; see decide."""
    prompt = max((found["zero-shot"], found["few-shot"]), key=lambda m: m.score)
    differences = {"fine-tuned": paired(prompt.scores, found["fine-tuned"].scores)}
    if "retrieval" in found:
        looked_up = found["retrieval"].scores
        differences["retrieval"] = paired(prompt.scores, looked_up)
        differences["fine-tuned/retrieval"] = paired(looked_up, found["fine-tuned"].scores)
    return differences


def facts_of(held: HeldOut) -> Facts:
    """What the data tells by itself: contradictions within it, and with what is held out."""
    answers: dict[str, set[str]] = {}
    for item in held.train:
        answers.setdefault(item.shown, set()).add(item.reference.strip())
    noisy = sum(len(answers[item.shown]) > 1 for item in held.train)
    changed = sum(
        item.shown in answers and item.reference.strip() not in answers[item.shown]
        for item in held.items
    )
    return Facts(
        train_records=len(held.train),
        noise=noisy / max(1, len(held.train)),
        stale=changed / len(held.items),
    )


def documents_of(job: LoadedJob) -> list[str]:
    """The user's documents with facts to answer from. Raises UsageError for what is no text."""
    named = job.spec.evaluate.documents
    if not named:
        return []
    findings = Findings()
    sources = Sources(job.base_dir, findings).files("evaluate.documents", named)
    found = list(located(sources, findings, {}))
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


def _corpus(
    record: Record,
    backend: Backend,
    home: Home,
    held: HeldOut,
    seconds: float | None,
    progress: Progress,
) -> Study:
    """Unlabelled text: is it language that the model does not know yet?"""
    assert isinstance(backend, Opens)
    session = backend.open(record.backend_job_id or record.id)
    with models(session, home, progress) as asked:
        found = language.judged(asked, held, general.texts())
    bits = [[r[name]["score"] for r in found["records"]] for name in (BASE, TUNED)]
    difference = paired(bits[0], bits[1], lower_is_better=True)
    size = sum(len(item.reference) for item in held.train)
    base, tuned = found[BASE]["bitsPerByte"], found[TUNED]["bitsPerByte"]
    word = decide_corpus(base, tuned, difference, size)
    numbers = {name: found[name] for name in (BASE, TUNED, "delta", "significance")}
    return Study(
        word, "language-modelling", len(held.items), {}, None, record, seconds, None, numbers
    )
