"""Run the diagnostics of one job: send the requests that each needs, and measure the answers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

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
from cloudft.evaluate.diagnostics.forgetting import GeneralResults, diagnose_forgetting
from cloudft.evaluate.diagnostics.memorization import diagnose_memorization
from cloudft.evaluate.diagnostics.overfitting import diagnose_overfitting
from cloudft.evaluate.held_out import EvalExample, HeldOutData
from cloudft.evaluate.inference.cached_inference import (
    BASE,
    TUNED,
    VARIANTS,
    CachedInference,
    Variant,
)
from cloudft.evaluate.metrics.labels import extract_label, match_label
from cloudft.evaluate.metrics.scores import answer_value
from cloudft.evaluate.metrics.tasks import Task
from cloudft.evaluate.results import DiagnosticResult
from cloudft.inference import GenerationConfig, Prompt, ScoringRequest
from cloudft.spec import JobSpec
from cloudft.storage.store import JobRecord

DEFAULT_SEED = 7
MEMORIZATION_SAMPLE = 64
"""Training records whose completions are generated, and as many held-out ones."""
MAX_COMPLETION_TOKENS = 256
MIN_FORMAT_RECORDS, MAX_FORMAT_CHOICES = 30, 1500
"""Records at least, and pairs of record and label at most, to score the base model's choices."""
CONSISTENCY_SAMPLE, SAMPLES_PER_RECORD, SAMPLING_TEMPERATURE = 40, 5, 0.7
"""Held-out records that are rephrased and sampled; samples of each, and their temperature."""

T = TypeVar("T")


@dataclass(frozen=True)
class DiagnosticOptions:
    """Which diagnostics run in addition to the scores."""

    forgetting: bool = True
    memorization: bool = True
    consistency: bool = False


def run_curve_diagnostics(record: JobRecord, backend: Backend) -> dict[str, Diagnostic]:
    """Return the diagnostics of the loss curves, which need no inference."""
    points = list(backend.metrics(record.backend_job_id or record.id))
    overfitting = diagnose_overfitting(points)
    return {"overfitting": overfitting} if overfitting else {}


def load_general_texts(spec: JobSpec | None) -> list[str]:
    """Return the general texts to measure forgetting: the user's, or cloudft's own.

    Raises CheckFailed.
    """
    if spec is None or not spec.evaluate.general:
        return general_knowledge.load_default_texts()
    findings = Findings()
    sources = SourceResolver(Path("/"), findings).resolve("evaluate.general", spec.evaluate.general)
    texts = [
        located.record.text
        for located in read_records(sources, findings, {})
        if isinstance(located.record, Document)
    ]
    if findings.count_errors():
        listed = findings.all()
        raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)
    return texts


def run_answer_diagnostics(
    models: CachedInference,
    held_out: HeldOutData,
    task: Task | None,
    spec: JobSpec | None,
    options: DiagnosticOptions,
    config: GenerationConfig | None,
) -> Iterator[tuple[str, Diagnostic]]:
    """Yield the diagnostics of the models' answers, by name. Each may take a while.

    `task` and `config` are None for continued pre-training.
    """
    seed = spec.seed if spec else DEFAULT_SEED
    if config and task and len(task.labels) > 1 and models.has_likelihoods:
        yield "form", _diagnose_answer_format(models, held_out, task, config, seed)
    if options.forgetting and models.has_likelihoods:
        yield "forgetting", _diagnose_forgetting(models, spec)
    # Labels are repeated by every good model, so only longer answers can be memorized.
    has_long_answers = task is not None and task.name != "classification"
    if options.memorization and has_long_answers and held_out.train_examples:
        memorization = _diagnose_memorization(models, held_out, seed)
        if memorization is not None:
            yield "memorised", memorization
    if options.consistency and task is not None:
        yield "consistency", _diagnose_consistency(models, held_out, task, spec, seed)


def _diagnose_forgetting(models: CachedInference, spec: JobSpec | None) -> Diagnostic:
    texts, questions = load_general_texts(spec), general_knowledge.load_default_questions()
    likelihoods = {name: models.score_texts("general text", texts, name) for name in VARIANTS}
    base, tuned = (
        GeneralResults(likelihoods[name], score_multiple_choice(models, questions, name))
        for name in VARIANTS
    )
    return diagnose_forgetting(
        base,
        tuned,
        [len(text.encode()) for text in texts],
        mixed_share=sum(part.share for part in spec.data.mix) if spec else 0.0,
    )


def _diagnose_answer_format(
    models: CachedInference, held_out: HeldOutData, task: Task, config: GenerationConfig, seed: int
) -> Diagnostic:
    """Compare the labels that the base model would choose with the tuned model's answers."""
    count = max(MIN_FORMAT_RECORDS, MAX_FORMAT_CHOICES // len(task.labels))
    sample = _sample(held_out.examples, count, seed)
    requests = [ScoringRequest(x.prompt, label) for x in sample for label in task.labels]
    likelihoods = iter(models.score_continuations("labels", requests, BASE))
    answers = models.generate_answers("answers", [x.prompt for x in sample], TUNED, config)
    table = [[next(likelihoods).log_likelihood for _ in task.labels] for _ in sample]
    truth = [match_label(example.reference, task.labels) for example in sample]
    base_correct = [
        [task.labels[n] == label for n, label in zip(choices, truth, strict=True)]
        for choices in choose_labels(table)
    ]
    tuned_correct = [
        extract_label(answer.text, task.labels) == label
        for answer, label in zip(answers, truth, strict=True)
    ]
    return diagnose_answer_format(max(base_correct, key=sum), tuned_correct, len(task.labels))


def score_multiple_choice(
    models: CachedInference,
    questions: Sequence[general_knowledge.MultipleChoiceQuestion],
    variant: Variant,
) -> list[bool]:
    """Return for each question whether the model finds the correct ending most likely.

    Endings are compared by their mean log-likelihood per token.
    """
    requests = [
        ScoringRequest(Prompt(text=question.question), f" {option}")
        for question in questions
        for option in question.options
    ]
    likelihoods = iter(models.score_continuations("general questions", requests, variant))
    correct = []
    for question in questions:
        means = [
            likelihood.log_likelihood / max(1, likelihood.tokens)
            for likelihood in (next(likelihoods) for _ in question.options)
        ]
        correct.append(max(range(len(means)), key=means.__getitem__) == question.answer)
    return correct


def _completion_config(examples: Sequence[EvalExample]) -> GenerationConfig:
    """Return greedy decoding with enough tokens to recognize the longest reference."""
    longest = max(example.reply_length for example in examples)
    return GenerationConfig(max_new_tokens=min(MAX_COMPLETION_TOKENS, 16 + longest // 2))


def _diagnose_memorization(
    models: CachedInference, held_out: HeldOutData, seed: int
) -> Diagnostic | None:
    config = _completion_config([*held_out.examples, *held_out.train_examples])
    pairs = []
    for examples in (held_out.train_examples, held_out.examples):
        sample = _sample(examples, MEMORIZATION_SAMPLE, seed)
        prompts = [example.prompt for example in sample]
        answers = models.generate_answers("training records", prompts, TUNED, config)
        pairs.append([(x.reference, a.text) for x, a in zip(sample, answers, strict=True)])
    return diagnose_memorization(*pairs)


def _diagnose_consistency(
    models: CachedInference, held_out: HeldOutData, task: Task, spec: JobSpec | None, seed: int
) -> Diagnostic:
    sample = _sample(held_out.examples, CONSISTENCY_SAMPLE, seed)
    config = _completion_config(sample)
    groups: dict[str, list[list[str]]] = {}
    for kind, prompts_by_record in _rephrase(sample, task, spec, seed).items():
        flat = [prompt for prompts in prompts_by_record for prompt in prompts]
        answers = iter(models.generate_answers(f"{kind} questions", flat, TUNED, config))
        texts = [[next(answers).text for _ in prompts] for prompts in prompts_by_record if prompts]
        if texts:
            groups[kind] = texts
    prompts = [example.prompt for example in sample]
    draws = []
    for draw in range(SAMPLES_PER_RECORD):
        # A seed of its own for each draw, so that the cache tells them apart.
        sampling = GenerationConfig(config.max_new_tokens, SAMPLING_TEMPERATURE, 1.0, seed + draw)
        draws.append(models.generate_answers("samples", prompts, TUNED, sampling))
    groups["sampled"] = [[answer.text for answer in row] for row in zip(*draws, strict=True)]
    return diagnose_consistency(groups, lambda text: answer_value(task, text))


def _rephrase(
    sample: Sequence[EvalExample], task: Task, spec: JobSpec | None, seed: int
) -> dict[str, list[list[Prompt]]]:
    """Return the prompts of each record in other words, and with its options in other orders.

    Records whose last message is a tool's result have no question to phrase otherwise.
    """
    templates = (spec.evaluate.templates if spec else ()) or DEFAULT_TEMPLATES
    return {
        "paraphrased": [
            [x.with_question(t.replace("{prompt}", x.input_text)) for t in templates]
            for x in sample
            if x.has_plain_question
        ],
        "options": [
            [
                x.with_question(text)
                for text in shuffle_options(x.input_text, task.labels, seed, SAMPLES_PER_RECORD)
            ]
            for x in sample
            if x.has_plain_question
        ],
    }


def _sample(items: Sequence[T], count: int, seed: int) -> list[T]:
    return random.Random(seed).sample(list(items), min(count, len(items)))


def diagnostics_to_json(diagnostics: Mapping[str, Diagnostic]) -> dict[str, DiagnosticResult]:
    """Return the diagnostics as the evaluation saves them."""
    return {name: diagnostic.to_json() for name, diagnostic in diagnostics.items()}
