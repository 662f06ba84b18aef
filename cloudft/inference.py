"""Prompts, answers and open models: the values of inference, whatever runs the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """A conversation to answer, or (with `text`) raw text to continue.

    `messages` are dicts of `role` and `content`, in order.
    """

    messages: Sequence[Mapping[str, str]] = ()
    text: str | None = None


@dataclass(frozen=True)
class GenerationConfig:
    """Decoding parameters. `temperature` 0 is greedy decoding."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 7


@dataclass(frozen=True)
class Answer:
    """One generated answer. `index` is the prompt's position; `variant` is `tuned` or `base`."""

    index: int
    variant: str
    text: str
    tokens: int
    finish_reason: str


@dataclass(frozen=True)
class ScoringRequest:
    """A continuation whose log-likelihood is measured, given `prompt`."""

    prompt: Prompt
    text: str


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of a text: the sum over its `tokens` of ln p, in nats.

    `greedy` is True when each token was the most likely one at its position.
    """

    index: int
    variant: str
    log_likelihood: float
    tokens: int
    greedy: bool


@dataclass(frozen=True)
class LmEvalMetric:
    """One metric of an lm-eval task for each record, in the same order for both models."""

    task: str
    figure: str
    base: Sequence[float]
    tuned: Sequence[float]


class InferenceSession(ABC):
    """The models of one job, loaded or reachable, until `close`. Not thread-safe."""

    @abstractmethod
    def model_identities(self) -> Mapping[str, str]:
        """Return each variant's identity: the sha256 of its weights, or the ARN that answers.

        Two variants that can only answer alike (an adapter that was never trained) share one.
        """

    @abstractmethod
    def generate(
        self, prompts: Sequence[Prompt], variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[Answer]:
        """Yield an answer for each prompt and variant, in order of completion."""

    @abstractmethod
    def close(self) -> None:
        """Release the models."""


class SupportsLogLikelihood(ABC):
    """An InferenceSession that can score given text."""

    @abstractmethod
    def loglikelihood(
        self, requests: Sequence[ScoringRequest], variants: Sequence[str]
    ) -> Iterator[Likelihood]:
        """Yield the likelihood of each continuation, without its end token, for each variant."""

    @abstractmethod
    def loglikelihood_rolling(
        self, texts: Sequence[str], variants: Sequence[str], *, window: int | None = None
    ) -> Iterator[Likelihood]:
        """Yield the likelihood of each whole document for each variant.

        Documents are scored in overlapping windows of `window` tokens (the context length at
        most). Every token but the first is predicted once, from at least half a window of the
        tokens before it where there are that many. `greedy` has no meaning here and is False.
        """
