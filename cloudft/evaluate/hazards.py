"""The pitfalls of one job: what must be asked for each, and what came of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudft.backends.base import Backend, Continuation, Decoding, Prompt
from cloudft.data.findings import Findings
from cloudft.data.record import Document
from cloudft.data.records import located
from cloudft.data.sources import Sources
from cloudft.errors import CheckFailed
from cloudft.evaluate import general
from cloudft.evaluate.ask import BASE, TUNED, VARIANTS, Models
from cloudft.evaluate.held_out import HeldOut, Item
from cloudft.evaluate.pitfalls import Pitfall
from cloudft.evaluate.pitfalls.consistency import DEFAULT_TEMPLATES, consistency, option_orders
from cloudft.evaluate.pitfalls.forgetting import forgetting
from cloudft.evaluate.pitfalls.form import choices, form
from cloudft.evaluate.pitfalls.memorised import memorised
from cloudft.evaluate.pitfalls.overfitting import overfitting
from cloudft.evaluate.scores import label_of
from cloudft.evaluate.tasks import Task
from cloudft.spec import JobSpec
from cloudft.store import Record

ASKED_AGAIN = 64
"""Training records that are asked for memorised completions, against as many held-out ones."""
FEWEST, CHOICES = 30, 1500
"""Records at least, and labels held against records at most, to see what the base model knows."""
ASKED_OTHERWISE, SAMPLES, TEMPERATURE = 40, 5, 0.7
"""Held-out records asked in other ways; samples of each, and how freely they are drawn."""


@dataclass(frozen=True)
class Wanted:
    """What is measured beside the scores."""

    general: bool = True
    memory: bool = True
    consistency: bool = False


def from_curves(record: Record, backend: Backend) -> dict[str, Pitfall]:
    """What the loss curves tell; costs nothing."""
    points = list(backend.metrics(record.backend_job_id or record.id))
    found = overfitting(points)
    return {"overfitting": found} if found else {}


def general_texts(spec: JobSpec | None) -> list[str]:
    """General text to measure forgetting on: the user's, or cloudft's own. Raises CheckFailed."""
    if spec is None or not spec.evaluate.general:
        return general.texts()
    findings = Findings()
    sources = Sources(Path("/"), findings).files("evaluate.general", spec.evaluate.general)
    texts = [
        found.record.text
        for found in located(sources, findings, {})
        if isinstance(found.record, Document)
    ]
    if findings.errors():
        listed = findings.all()
        raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)
    return texts


def from_questions(
    models: Models,
    held: HeldOut,
    task: Task | None,
    spec: JobSpec | None,
    wanted: Wanted,
    decoding: Decoding | None,
) -> Iterator[tuple[str, Pitfall]]:
    """What the models' own answers tell; each may take a while."""
    seed = spec.seed if spec else 7
    if decoding and task and len(task.labels) > 1 and models.scores:
        yield "form", _form(models, held, task, decoding, seed)
    if wanted.general and models.scores:
        yield "forgetting", _forgetting(models, spec)
    if task is None or task.name == "classification":
        found = None
    else:
        found = _memorised(models, held, seed) if wanted.memory and held.train else None
    if found is not None:
        yield "memorised", found
    if wanted.consistency and task is not None:
        yield "consistency", _consistency(models, held, task, spec, seed)


def _forgetting(models: Models, spec: JobSpec | None) -> Pitfall:
    texts, questions = general_texts(spec), general.questions()
    likely = {name: models.texts("general text", texts, name) for name in VARIANTS}
    share = sum(part.share for part in spec.data.mix) if spec else 0.0
    return forgetting(
        likely[BASE],
        likely[TUNED],
        [len(text.encode()) for text in texts],
        questions_right(models, questions, BASE),
        questions_right(models, questions, TUNED),
        mixed_share=share,
    )


def _form(models: Models, held: HeldOut, task: Task, decoding: Decoding, seed: int) -> Pitfall:
    """The label that the base model would choose against what the tuned one answers."""
    chosen = _some(held.items, max(FEWEST, CHOICES // len(task.labels)), seed)
    wanted = [Continuation(item.prompt, label) for item in chosen for label in task.labels]
    likely = models.likelihoods("labels", wanted, BASE)
    said = models.answers("answers", [item.prompt for item in chosen], TUNED, decoding)
    each = iter(likely)
    told = [[next(each).log_likelihood for _ in task.labels] for _ in chosen]
    right = [item.reference.strip() for item in chosen]
    held_to = [
        [task.labels[n] == label for n, label in zip(choice, right, strict=True)]
        for choice in choices(told)
    ]
    tuned = [
        label_of(answer.text, task.labels) == label
        for answer, label in zip(said, right, strict=True)
    ]
    return form(max(held_to, key=sum), tuned, len(task.labels))


def questions_right(
    models: Models, questions: Sequence[general.Question], variant: str
) -> list[bool]:
    """Whether the right option is the likeliest, by its mean log-likelihood a token."""
    wanted = [
        Continuation(Prompt(text=question.question), f" {option}")
        for question in questions
        for option in question.options
    ]
    found = iter(models.likelihoods("general questions", wanted, variant))
    right = []
    for question in questions:
        means = [
            one.log_likelihood / max(1, one.tokens)
            for _, one in zip(question.options, found, strict=False)
        ]
        right.append(max(range(len(means)), key=means.__getitem__) == question.answer)
    return right


def _memorised(models: Models, held: HeldOut, seed: int) -> Pitfall | None:
    longest = max(len(item.reference) for item in (*held.items, *held.train))
    decoding = Decoding(max_new_tokens=min(256, 16 + longest // 2))
    pairs = []
    for items in (held.train, held.items):
        chosen = _some(items, ASKED_AGAIN, seed)
        said = models.answers("training records", [i.prompt for i in chosen], TUNED, decoding)
        pairs.append([(i.reference, s.text) for i, s in zip(chosen, said, strict=True)])
    return memorised(*pairs)


def _consistency(
    models: Models, held: HeldOut, task: Task, spec: JobSpec | None, seed: int
) -> Pitfall:
    templates = (spec.evaluate.templates if spec else ()) or DEFAULT_TEMPLATES
    chosen = _some(held.items, ASKED_OTHERWISE, seed)
    longest = max(len(item.reference) for item in chosen)
    decoding = Decoding(max_new_tokens=min(256, 16 + longest // 2))
    ways = {
        "paraphrased": [
            [_with(i, t.replace("{prompt}", i.shown)) for t in templates] for i in chosen
        ],
        "options": [
            [_with(i, text) for text in option_orders(i.shown, task.labels, seed, SAMPLES)]
            for i in chosen
        ],
    }
    groups: dict[str, list[list[str]]] = {}
    for kind, asked in ways.items():
        flat = [prompt for prompts in asked for prompt in prompts]
        said = iter(models.answers(f"{kind} questions", flat, TUNED, decoding))
        found = [[next(said).text for _ in prompts] for prompts in asked if prompts]
        if found:
            groups[kind] = found
    drawn = []
    for draw in range(SAMPLES):
        how = Decoding(decoding.max_new_tokens, TEMPERATURE, 1.0, seed + draw)
        drawn.append(models.answers("samples", [i.prompt for i in chosen], TUNED, how))
    groups["sampled"] = [[said.text for said in row] for row in zip(*drawn, strict=True)]
    return consistency(groups, lambda text: _normal(text, task))


def _with(item: Item, text: str) -> Prompt:
    """The item's conversation with another last question."""
    return Prompt([*item.prompt.messages[:-1], {"role": "user", "content": text}])


def _normal(text: str, task: Task) -> str:
    return (label_of(text, task.labels) if task.labels else None) or " ".join(text.lower().split())


def _some(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    return random.Random(seed).sample(list(items), min(count, len(items)))


def as_json(found: Mapping[str, Pitfall]) -> dict[str, Any]:
    """The pitfalls as the evaluation keeps them."""
    return {name: pitfall.to_json() for name, pitfall in found.items()}
