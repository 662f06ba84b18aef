"""The pitfalls of one job: what must be asked for each, and what came of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudft.backends.base import Backend
from cloudft.data.findings import Findings
from cloudft.data.formats.record import Document
from cloudft.data.records import read_records
from cloudft.data.sources.source_files import SourceResolver
from cloudft.errors import CheckFailed
from cloudft.evaluate.diagnostics import general_knowledge
from cloudft.evaluate.diagnostics.answer_format import choose_labels, diagnose_answer_format
from cloudft.evaluate.diagnostics.consistency import (
    DEFAULT_TEMPLATES,
    diagnose_consistency,
    shuffle_options,
)
from cloudft.evaluate.diagnostics.diagnostic import Diagnostic
from cloudft.evaluate.diagnostics.forgetting import diagnose_forgetting
from cloudft.evaluate.diagnostics.memorization import diagnose_memorization
from cloudft.evaluate.diagnostics.overfitting import diagnose_overfitting
from cloudft.evaluate.held_out import EvalExample, HeldOutData
from cloudft.evaluate.inference.cached_inference import BASE, TUNED, VARIANTS, CachedInference
from cloudft.evaluate.metrics.scores import extract_label
from cloudft.evaluate.metrics.tasks import Task
from cloudft.inference import GenerationConfig, Prompt, ScoringRequest
from cloudft.spec import JobSpec
from cloudft.storage.store import JobRecord

MEMORIZATION_SAMPLE = 64
"""Training records that are asked for memorised completions, against as many held-out ones."""
MIN_FORMAT_RECORDS, MAX_FORMAT_CHOICES = 30, 1500
"""Records at least, and labels held against records at most, to see what the base model knows."""
CONSISTENCY_SAMPLE, SAMPLES_PER_RECORD, SAMPLING_TEMPERATURE = 40, 5, 0.7
"""Held-out records asked in other ways; samples of each, and how freely they are drawn."""


@dataclass(frozen=True)
class DiagnosticOptions:
    """What is measured beside the scores."""

    forgetting: bool = True
    memorization: bool = True
    consistency: bool = False


def run_curve_diagnostics(record: JobRecord, backend: Backend) -> dict[str, Diagnostic]:
    """What the loss curves tell; costs nothing."""
    points = list(backend.metrics(record.backend_job_id or record.id))
    found = diagnose_overfitting(points)
    return {"overfitting": found} if found else {}


def load_general_texts(spec: JobSpec | None) -> list[str]:
    """General text to measure forgetting on: the user's, or cloudft's own. Raises CheckFailed."""
    if spec is None or not spec.evaluate.general:
        return general_knowledge.load_default_texts()
    findings = Findings()
    sources = SourceResolver(Path("/"), findings).resolve("evaluate.general", spec.evaluate.general)
    texts = [
        found.record.text
        for found in read_records(sources, findings, {})
        if isinstance(found.record, Document)
    ]
    if findings.count_errors():
        listed = findings.all()
        raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)
    return texts


def run_answer_diagnostics(
    models: CachedInference,
    held: HeldOutData,
    task: Task | None,
    spec: JobSpec | None,
    options: DiagnosticOptions,
    decoding: GenerationConfig | None,
) -> Iterator[tuple[str, Diagnostic]]:
    """What the models' own answers tell; each may take a while."""
    seed = spec.seed if spec else 7
    if decoding and task and len(task.labels) > 1 and models.has_likelihoods:
        yield "form", _diagnose_answer_format(models, held, task, decoding, seed)
    if options.forgetting and models.has_likelihoods:
        yield "forgetting", _diagnose_forgetting(models, spec)
    if task is None or task.name == "classification":
        found = None
    else:
        found = (
            _diagnose_memorization(models, held, seed)
            if options.memorization and held.train_examples
            else None
        )
    if found is not None:
        yield "memorised", found
    if options.consistency and task is not None:
        yield "consistency", _diagnose_consistency(models, held, task, spec, seed)


def _diagnose_forgetting(models: CachedInference, spec: JobSpec | None) -> Diagnostic:
    texts, questions = load_general_texts(spec), general_knowledge.load_default_questions()
    likely = {name: models.score_texts("general text", texts, name) for name in VARIANTS}
    share = sum(part.share for part in spec.data.mix) if spec else 0.0
    return diagnose_forgetting(
        likely[BASE],
        likely[TUNED],
        [len(text.encode()) for text in texts],
        score_multiple_choice(models, questions, BASE),
        score_multiple_choice(models, questions, TUNED),
        mixed_share=share,
    )


def _diagnose_answer_format(
    models: CachedInference, held: HeldOutData, task: Task, decoding: GenerationConfig, seed: int
) -> Diagnostic:
    """The label that the base model would choose against what the tuned one answers."""
    chosen = _sample(
        held.examples, max(MIN_FORMAT_RECORDS, MAX_FORMAT_CHOICES // len(task.labels)), seed
    )
    wanted = [ScoringRequest(item.prompt, label) for item in chosen for label in task.labels]
    likely = models.score_continuations("labels", wanted, BASE)
    said = models.generate_answers("answers", [item.prompt for item in chosen], TUNED, decoding)
    each = iter(likely)
    told = [[next(each).log_likelihood for _ in task.labels] for _ in chosen]
    right = [item.reference.strip() for item in chosen]
    held_to = [
        [task.labels[n] == label for n, label in zip(choice, right, strict=True)]
        for choice in choose_labels(told)
    ]
    tuned = [
        extract_label(answer.text, task.labels) == label
        for answer, label in zip(said, right, strict=True)
    ]
    return diagnose_answer_format(max(held_to, key=sum), tuned, len(task.labels))


def score_multiple_choice(
    models: CachedInference,
    questions: Sequence[general_knowledge.MultipleChoiceQuestion],
    variant: str,
) -> list[bool]:
    """Whether the right option is the likeliest, by its mean log-likelihood a token."""
    wanted = [
        ScoringRequest(Prompt(text=question.question), f" {option}")
        for question in questions
        for option in question.options
    ]
    found = iter(models.score_continuations("general questions", wanted, variant))
    right = []
    for question in questions:
        means = [
            one.log_likelihood / max(1, one.tokens)
            for _, one in zip(question.options, found, strict=False)
        ]
        right.append(max(range(len(means)), key=means.__getitem__) == question.answer)
    return right


def _diagnose_memorization(
    models: CachedInference, held: HeldOutData, seed: int
) -> Diagnostic | None:
    longest = max(len(item.reference) for item in (*held.examples, *held.train_examples))
    decoding = GenerationConfig(max_new_tokens=min(256, 16 + longest // 2))
    pairs = []
    for items in (held.train_examples, held.examples):
        chosen = _sample(items, MEMORIZATION_SAMPLE, seed)
        said = models.generate_answers(
            "training records", [i.prompt for i in chosen], TUNED, decoding
        )
        pairs.append([(i.reference, s.text) for i, s in zip(chosen, said, strict=True)])
    return diagnose_memorization(*pairs)


def _diagnose_consistency(
    models: CachedInference, held: HeldOutData, task: Task, spec: JobSpec | None, seed: int
) -> Diagnostic:
    templates = (spec.evaluate.templates if spec else ()) or DEFAULT_TEMPLATES
    chosen = _sample(held.examples, CONSISTENCY_SAMPLE, seed)
    longest = max(len(item.reference) for item in chosen)
    decoding = GenerationConfig(max_new_tokens=min(256, 16 + longest // 2))
    ways = {
        "paraphrased": [
            [_with_question(i, t.replace("{prompt}", i.input_text)) for t in templates]
            for i in chosen
        ],
        "options": [
            [
                _with_question(i, text)
                for text in shuffle_options(i.input_text, task.labels, seed, SAMPLES_PER_RECORD)
            ]
            for i in chosen
        ],
    }
    groups: dict[str, list[list[str]]] = {}
    for kind, asked in ways.items():
        flat = [prompt for prompts in asked for prompt in prompts]
        said = iter(models.generate_answers(f"{kind} questions", flat, TUNED, decoding))
        found = [[next(said).text for _ in prompts] for prompts in asked if prompts]
        if found:
            groups[kind] = found
    drawn = []
    for draw in range(SAMPLES_PER_RECORD):
        how = GenerationConfig(decoding.max_new_tokens, SAMPLING_TEMPERATURE, 1.0, seed + draw)
        drawn.append(models.generate_answers("samples", [i.prompt for i in chosen], TUNED, how))
    groups["sampled"] = [[said.text for said in row] for row in zip(*drawn, strict=True)]
    return diagnose_consistency(groups, lambda text: _normalize(text, task))


def _with_question(item: EvalExample, text: str) -> Prompt:
    """The item's conversation with another last question."""
    return Prompt([*item.prompt.messages[:-1], {"role": "user", "content": text}])


def _normalize(text: str, task: Task) -> str:
    return (extract_label(text, task.labels) if task.labels else None) or " ".join(
        text.lower().split()
    )


def _sample(items: Sequence[EvalExample], count: int, seed: int) -> list[EvalExample]:
    return random.Random(seed).sample(list(items), min(count, len(items)))


def diagnostics_to_json(found: Mapping[str, Diagnostic]) -> dict[str, Any]:
    """The pitfalls as the evaluation keeps them."""
    return {name: pitfall.to_json() for name, pitfall in found.items()}
