"""Questions to the base and the tuned model, through the cache."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudft.backends.capabilities import ProgressCallback
from cloudft.errors import JobStateConflict
from cloudft.evaluate.inference.answer_cache import AnswerCache, cache_key
from cloudft.inference import (
    GenerationConfig,
    InferenceSession,
    Likelihood,
    Prompt,
    ScoringRequest,
    SupportsLogLikelihood,
)
from cloudft.storage.home import Home

BASE, TUNED = "base", "tuned"
VARIANTS = (BASE, TUNED)


@dataclass(frozen=True)
class ModelAnswer:
    """One answer."""

    text: str
    tokens: int
    finish_reason: str


@dataclass
class CachedInference:
    """The models of one job with what they have said before. See `models`."""

    session: InferenceSession
    identities: Mapping[str, str]
    caches: Mapping[str, AnswerCache]
    progress: ProgressCallback
    generated_counts: dict[str, int] = field(default_factory=dict)
    """How many answers were really asked for, by variant; the others were known."""

    @property
    def has_likelihoods(self) -> bool:
        """True when the models tell likelihoods."""
        return isinstance(self.session, SupportsLogLikelihood)

    def generate_answers(
        self, what: str, prompts: Sequence[Prompt], variant: str, config: GenerationConfig
    ) -> list[ModelAnswer]:
        """An answer for each prompt, in their order."""
        how = dataclasses.asdict(config)
        keys = [cache_key("answer", _prompt_to_json(prompt), how) for prompt in prompts]

        def ask(places: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
            asked = [prompts[i] for i in places]
            for a in self.session.generate(asked, [variant], config):
                yield (
                    a.index,
                    {"text": a.text, "tokens": a.tokens, "finishReason": a.finish_reason},
                )

        found = self._resolve_missing(what, variant, keys, ask)
        return [ModelAnswer(v["text"], v["tokens"], v["finishReason"]) for v in found]

    def score_continuations(
        self, what: str, requests: Sequence[ScoringRequest], variant: str
    ) -> list[Likelihood]:
        """Of each continuation, in their order."""
        keys = [cache_key("likelihood", _prompt_to_json(w.prompt), w.text) for w in requests]

        def ask(places: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
            assert isinstance(self.session, SupportsLogLikelihood)
            asked = [requests[i] for i in places]
            yield from map(_likelihood_to_json, self.session.loglikelihood(asked, [variant]))

        return _likelihoods_from_json(variant, self._resolve_missing(what, variant, keys, ask))

    def score_texts(self, what: str, texts: Sequence[str], variant: str) -> list[Likelihood]:
        """Of each whole document, in their order."""
        keys = [cache_key("text", text) for text in texts]

        def ask(places: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
            assert isinstance(self.session, SupportsLogLikelihood)
            asked = [texts[i] for i in places]
            yield from map(
                _likelihood_to_json, self.session.loglikelihood_rolling(asked, [variant])
            )

        return _likelihoods_from_json(variant, self._resolve_missing(what, variant, keys, ask))

    def _resolve_missing(
        self,
        what: str,
        variant: str,
        keys: Sequence[str],
        ask: Callable[[list[int]], Iterator[tuple[int, dict[str, Any]]]],
    ) -> list[Mapping[str, Any]]:
        """What came back for each key: what is not known is asked, each question once."""
        cache = self.caches[variant]
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        places = sorted(place for key, place in first.items() if cache.get(key) is None)
        what = f"{what} ({variant})"
        self.progress(what, len(first) - len(places), len(first))
        for done, (index, value) in enumerate(ask(places) if places else (), 1):
            cache.put(keys[places[index]], value)
            self.progress(what, len(first) - len(places) + done, len(first))
        self.generated_counts[variant] = self.generated_counts.get(variant, 0) + len(places)
        found = [cache.get(key) for key in keys]
        assert all(value is not None for value in found), "a model left a question unanswered"
        return [value for value in found if value is not None]


def _prompt_to_json(prompt: Prompt) -> Any:
    return prompt.text if prompt.text is not None else [dict(m) for m in prompt.messages]


def _likelihood_to_json(found: Likelihood) -> tuple[int, dict[str, Any]]:
    return (
        found.index,
        {
            "logLikelihood": found.log_likelihood,
            "tokens": found.tokens,
            "greedy": found.greedy,
        },
    )


def _likelihoods_from_json(variant: str, values: Sequence[Mapping[str, Any]]) -> list[Likelihood]:
    return [
        Likelihood(i, variant, v["logLikelihood"], v["tokens"], v["greedy"])
        for i, v in enumerate(values)
    ]


@contextlib.contextmanager
def open_cached_inference(
    session: InferenceSession,
    home: Home,
    progress: ProgressCallback,
    *,
    variants: Sequence[str] = VARIANTS,
) -> Iterator[CachedInference]:
    """The session's models with their caches; the session is closed at the end.

    Raises JobStateConflict when base and tuned are one and the same model.
    """
    with contextlib.closing(session), contextlib.ExitStack() as stack:
        known = session.model_identities()
        identities = {name: known[name] for name in variants}
        if len(variants) > 1 and len(set(identities.values())) == 1:
            raise JobStateConflict(
                f"the tuned model is its base: both are {identities[BASE][:16]}..., so there is"
                " nothing to compare",
                fix="a job that has taken no step leaves such a model; look at its curve:"
                " `cloudft metrics JOB`.",
            )
        caches = {
            name: stack.enter_context(AnswerCache(home.answers, identity))
            for name, identity in identities.items()
        }
        yield CachedInference(session, identities, caches, progress)
