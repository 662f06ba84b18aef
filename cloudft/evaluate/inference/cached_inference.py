"""Run the base and the tuned model of a job, through the answer cache."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from cloudft.backends.answer_cache import (
    AnswerCache,
    CachedResult,
    cache_key,
    prompt_to_json,
)
from cloudft.backends.capabilities import ProgressCallback
from cloudft.errors import JobStateConflict
from cloudft.inference import (
    GenerationConfig,
    InferenceSession,
    Likelihood,
    Prompt,
    ScoringRequest,
    SupportsLogLikelihood,
)
from cloudft.storage.home import Home

Variant = Literal["base", "tuned"]
BASE: Final = "base"
TUNED: Final = "tuned"
VARIANTS: Final[tuple[Variant, Variant]] = (BASE, TUNED)

UNKNOWN_FINISH: Final = "unknown"
"""The finish reason of an answer that another tool generated and gave none for."""

IndexedResults = Iterator[tuple[int, CachedResult]]
"""Results with the position of their request among the requests that were sent."""


@dataclass(frozen=True)
class ModelAnswer:
    """One generated answer. `tokens` is 0 where their number is not known."""

    text: str
    tokens: int
    finish_reason: str


@dataclass
class CachedInference:
    """The models of one job with their caches. See `open_cached_inference`."""

    session: InferenceSession
    identities: Mapping[str, str]
    caches: Mapping[str, AnswerCache]
    progress: ProgressCallback
    generated_counts: dict[str, int] = field(default_factory=dict)
    """Number of requests that were sent to each variant; the others were cached."""

    @property
    def has_likelihoods(self) -> bool:
        """Return whether the backend returns log-likelihoods."""
        return isinstance(self.session, SupportsLogLikelihood)

    def count_missing_answers(
        self, prompts: Sequence[Prompt], variant: Variant, config: GenerationConfig
    ) -> int:
        """Return how many of these prompts `generate_answers` would send to the model."""
        keys = set(_answer_keys(prompts, config))
        return sum(self.caches[variant].get(key) is None for key in keys)

    def generate_answers(
        self, label: str, prompts: Sequence[Prompt], variant: Variant, config: GenerationConfig
    ) -> list[ModelAnswer]:
        """Return an answer to each prompt, in their order. `label` is for the progress display."""
        keys = _answer_keys(prompts, config)

        def generate(indices: list[int]) -> IndexedResults:
            missing = [prompts[i] for i in indices]
            for answer in self.session.generate(missing, [variant], config):
                yield (
                    answer.index,
                    CachedResult(
                        answer.tokens, text=answer.text, finish_reason=answer.finish_reason
                    ),
                )

        results = self._resolve_missing(label, variant, keys, generate)
        return [_to_answer(result) for result in results]

    def score_continuations(
        self, label: str, requests: Sequence[ScoringRequest], variant: Variant
    ) -> list[Likelihood]:
        """Return the log-likelihood of each continuation, in their order."""
        keys = [
            cache_key(
                "likelihood", prompt_to_json(x.prompt), x.text, *([x.reply] if x.reply else [])
            )
            for x in requests
        ]

        def score(indices: list[int]) -> IndexedResults:
            assert isinstance(self.session, SupportsLogLikelihood)
            missing = [requests[i] for i in indices]
            return map(_to_result, self.session.loglikelihood(missing, [variant]))

        results = self._resolve_missing(label, variant, keys, score)
        return [_to_likelihood(i, variant, result) for i, result in enumerate(results)]

    def score_texts(self, label: str, texts: Sequence[str], variant: Variant) -> list[Likelihood]:
        """Return the log-likelihood of each whole document, in their order."""
        keys = [cache_key("text", text) for text in texts]

        def score(indices: list[int]) -> IndexedResults:
            assert isinstance(self.session, SupportsLogLikelihood)
            missing = [texts[i] for i in indices]
            return map(_to_result, self.session.loglikelihood_rolling(missing, [variant]))

        results = self._resolve_missing(label, variant, keys, score)
        return [_to_likelihood(i, variant, result) for i, result in enumerate(results)]

    def _resolve_missing(
        self,
        label: str,
        variant: Variant,
        keys: Sequence[str],
        run: Callable[[list[int]], IndexedResults],
    ) -> list[CachedResult]:
        """Return the result for each key; run the requests that are not cached, each key once."""
        cache = self.caches[variant]
        # Equal requests share a key: only the first position of each key is sent to the model.
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        missing = sorted(i for key, i in first.items() if cache.get(key) is None)
        label = f"{label} ({variant})"
        self.progress(label, len(first) - len(missing), len(first))
        for done, (index, result) in enumerate(run(missing) if missing else (), 1):
            cache.put(keys[missing[index]], result)
            self.progress(label, len(first) - len(missing) + done, len(first))
        self.generated_counts[variant] = self.generated_counts.get(variant, 0) + len(missing)
        results = [cache.get(key) for key in keys]
        assert all(result is not None for result in results), "the model left a request unanswered"
        return [result for result in results if result is not None]


def _answer_keys(prompts: Sequence[Prompt], config: GenerationConfig) -> list[str]:
    """Return the key of each prompt's answer in the cache."""
    parameters = dataclasses.asdict(config)
    return [cache_key("answer", prompt_to_json(prompt), parameters) for prompt in prompts]


def _to_answer(result: CachedResult) -> ModelAnswer:
    assert result.text is not None and result.finish_reason is not None
    return ModelAnswer(result.text, result.tokens, result.finish_reason)


def _to_result(likelihood: Likelihood) -> tuple[int, CachedResult]:
    return likelihood.index, CachedResult(
        likelihood.tokens, log_likelihood=likelihood.log_likelihood, greedy=likelihood.greedy
    )


def _to_likelihood(index: int, variant: Variant, result: CachedResult) -> Likelihood:
    assert result.log_likelihood is not None and result.greedy is not None
    return Likelihood(index, variant, result.log_likelihood, result.tokens, result.greedy)


@contextlib.contextmanager
def open_cached_inference(
    session: InferenceSession,
    home: Home,
    progress: ProgressCallback,
    *,
    variants: Sequence[Variant] = VARIANTS,
) -> Iterator[CachedInference]:
    """Yield the session's models with their caches; close the session at the end.

    Raises JobStateConflict when base and tuned are the same model.
    """
    with contextlib.closing(session), contextlib.ExitStack() as stack:
        known = session.model_identities()
        identities: dict[str, str] = {name: known[name] for name in variants}
        if len(variants) > 1 and len(set(identities.values())) == 1:
            raise JobStateConflict(
                f"the tuned model is identical to its base ({identities[BASE][:16]}...), so there"
                " is nothing to compare",
                fix="this happens when a job takes no optimizer step; check its loss curve:"
                " `cloudft metrics JOB`.",
            )
        keys = session.answer_keys()
        caches = {
            name: stack.enter_context(AnswerCache(home.answers, keys[name])) for name in identities
        }
        yield CachedInference(session, identities, caches, progress)
