"""What models make of a record: the suggested label or answer, and how sure they are of it.

Fixed labels: the log-likelihood of each label, normalized over the labels. Text: the mean
log-probability of the answer's tokens. Both without the end token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from cloudft.evaluate.inference.cached_inference import BASE, TUNED, CachedInference, Variant
from cloudft.inference import GenerationConfig, Likelihood, ScoringRequest
from cloudft.labeling.records import LabelRecord
from cloudft.labeling.settings import Kind

MAX_NEW_TOKENS = 256
MEASURES: dict[Kind, str] = {
    "labels": "likelihood of the label among all labels",
    "text": "geometric mean of the probabilities of the answer's tokens",
    "check": "geometric mean of the probabilities of the answer's tokens",
}
"""What `confidence` is, by the kind of project."""


class Suggestion(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """A line of `suggestions.jsonl`. `text` is the tuned model's label or answer.

    `confidence` is 0 to 1, see MEASURES; None where the backend gives no likelihoods. `shares` are
    those of the labels in the project's order. `base` is what the untuned model suggests. `model`
    is the identity of the tuned model.
    """

    key: str
    model: str
    text: str
    confidence: float | None = None
    shares: tuple[float, ...] = ()
    base: str | None = None

    @property
    def margin(self) -> float | None:
        """Return by how much the best label is ahead of the second; None without shares."""
        if len(self.shares) < 2:
            return None
        best, second = sorted(self.shares, reverse=True)[:2]
        return best - second


class Suggester(Protocol):
    """What makes suggestions for records."""

    def suggest(self, records: Sequence[LabelRecord]) -> Iterator[Suggestion]:
        """Yield a suggestion for each record, in their order."""


@dataclass(frozen=True)
class ModelSuggester:
    """Suggests with a job's tuned model, and its base where the two differ."""

    models: CachedInference
    kind: Kind
    labels: tuple[str, ...]

    def suggest(self, records: Sequence[LabelRecord]) -> Iterator[Suggestion]:
        """Yield a suggestion for each record, in their order. Raise what the session raises."""
        if self.kind == "labels":
            yield from self._suggest_labels(records)
        elif self.kind == "text":
            yield from self._suggest_answers(records)
        else:
            yield from self._judge_answers(records)

    def _suggest_labels(self, records: Sequence[LabelRecord]) -> Iterator[Suggestion]:
        tuned = self._label_shares(records, TUNED)
        base = self._label_shares(records, BASE) if BASE in self.models.identities else None
        for number, record in enumerate(records):
            shares = tuned[number]
            yield Suggestion(
                record.key,
                self.models.identities[TUNED],
                self.labels[_argmax(shares)],
                max(shares),
                shares,
                None if base is None else self.labels[_argmax(base[number])],
            )

    def _label_shares(
        self, records: Sequence[LabelRecord], variant: Variant
    ) -> list[tuple[float, ...]]:
        requests = [ScoringRequest(r.prompt, label) for r in records for label in self.labels]
        found = self.models.score_continuations("labels", requests, variant)
        count = len(self.labels)
        rows = (found[n * count : (n + 1) * count] for n in range(len(records)))
        return [normalize_likelihoods([x.log_likelihood for x in row]) for row in rows]

    def _suggest_answers(self, records: Sequence[LabelRecord]) -> Iterator[Suggestion]:
        prompts = [record.prompt for record in records]
        config = GenerationConfig(MAX_NEW_TOKENS)
        answers = [
            answer.text
            for answer in self.models.generate_answers("answers", prompts, TUNED, config)
        ]
        yield from self._with_confidence(records, answers)

    def _judge_answers(self, records: Sequence[LabelRecord]) -> Iterator[Suggestion]:
        """Yield how likely the models find the answers that the records have."""
        answered = [record for record in records if record.given is not None]
        yield from self._with_confidence(answered, [record.given or "" for record in answered])

    def _with_confidence(
        self, records: Sequence[LabelRecord], answers: Sequence[str]
    ) -> Iterator[Suggestion]:
        model = self.models.identities[TUNED]
        likelihoods: list[Likelihood | None] = [None] * len(records)
        if self.models.has_likelihoods:
            requests = [
                ScoringRequest(record.prompt, answer)
                for record, answer in zip(records, answers, strict=True)
                if answer
            ]
            scored = iter(self.models.score_continuations("answers", requests, TUNED))
            likelihoods = [next(scored) if answer else None for answer in answers]
        for record, answer, likelihood in zip(records, answers, likelihoods, strict=True):
            yield Suggestion(record.key, model, answer, mean_probability(likelihood))


def normalize_likelihoods(log_likelihoods: Sequence[float]) -> tuple[float, ...]:
    """Return shares that sum to 1, in proportion to the likelihoods."""
    best = max(log_likelihoods)
    if not math.isfinite(best):  # none is possible, or the model's numbers are broken
        return (1 / len(log_likelihoods),) * len(log_likelihoods)
    weights = [math.exp(x - best) if x == x else 0.0 for x in log_likelihoods]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def mean_probability(likelihood: Likelihood | None) -> float | None:
    """Return the geometric mean of the tokens' probabilities; None for a text without tokens."""
    if likelihood is None or not likelihood.tokens:
        return None
    value = math.exp(min(0.0, likelihood.log_likelihood / likelihood.tokens))
    return value if math.isfinite(value) else None


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
