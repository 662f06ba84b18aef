"""Sample a step's answers, and have them graded while the next ones are sampled."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from local_backend.grading.grader import Grade, Grader, Sample
from local_backend.inference.answers import parse_answer
from local_backend.inference.sampler import Sampler
from local_backend.models.load_model import LoadedModel
from local_backend.models.sampling import Sampled, Sampling
from local_backend.training.reinforcement.prompts import PromptExample

CHUNK_ROWS = 64
"""Answers sampled at once: while they are graded, the next ones are sampled. With fewer at once,
products of a CPU are slower: two halves of 64 take a fifth longer than the whole."""


@dataclass(frozen=True)
class Group:
    """A prompt with the answers that were sampled to it, and their grades."""

    prompt: PromptExample
    answers: list[Sampled]
    grades: list[Grade]

    @property
    def lengths(self) -> list[int]:
        """Return the number of tokens of each answer."""
        return [len(answer.ids) for answer in self.answers]


@dataclass(frozen=True)
class RolloutOptions:
    """How many answers each prompt gets, and how they are sampled; 0 is greedy."""

    samples: int
    max_new_tokens: int
    temperature: float


def seed_of(*parts: object) -> int:
    """Return a seed that follows from these values alone: on any machine, in any process."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:7], "big")


@dataclass
class Rollouts:
    """Samples and grades answers of one model."""

    loaded: LoadedModel
    sampler: Sampler
    grader: Grader

    def run(
        self,
        prompts: Sequence[PromptExample],
        options: RolloutOptions,
        seeds: Sequence[int],
        between: Callable[[], None],
    ) -> list[Group]:
        """Return the prompts with their graded answers, in order; a seed for each prompt.

        `between` is called before each chunk, and may raise. Raise GraderError.
        """
        sampled: list[list[Sampled]] = []
        pending: list[Future[list[Grade]]] = []
        # One thread: the grader's process takes one event at a time.
        with ThreadPoolExecutor(1) as pool:
            try:
                for part in split_into_chunks(len(prompts), options.samples):
                    between()
                    chunk = prompts[part]
                    answers = self.sampler(
                        [prompt.ids.tolist() for prompt in chunk],
                        options.samples,
                        Sampling(options.max_new_tokens, seeds[part], options.temperature),
                    )
                    sampled += answers
                    pending.append(pool.submit(self.grade, chunk, answers))
                grades = [grade for future in pending for grade in future.result()]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        each = iter(grades)
        return [
            Group(prompt, answers, [next(each) for _ in answers])
            for prompt, answers in zip(prompts, sampled, strict=True)
        ]

    def grade(
        self, prompts: Sequence[PromptExample], answers: Sequence[Sequence[Sampled]]
    ) -> list[Grade]:
        """Return the grade of each answer to each prompt, in order. Raise GraderError."""
        return self.grader.grade(list(self._samples(prompts, answers)))

    def _samples(
        self, prompts: Sequence[PromptExample], answers: Sequence[Sequence[Sampled]]
    ) -> Iterator[Sample]:
        for prompt, group in zip(prompts, answers, strict=True):
            for number, answer in enumerate(group, start=1):
                reply = {"role": "assistant", "content": self.text_of(answer)}
                yield {
                    "id": f"{prompt.name}#{number}",
                    "messages": [*prompt.messages, reply],
                    "metadata": dict(prompt.metadata),
                }

    def text_of(self, answer: Sampled) -> str:
        """Return an answer as text, as every other command reads it: without its reasoning."""
        ids = answer.ids[:-1] if answer.ended else answer.ids
        parsed = parse_answer(self.loaded.tokenizer, ids, self.loaded.stop_texts, with_tools=False)
        return parsed.text


def split_into_chunks(prompts: int, samples: int) -> list[slice]:
    """Return slices of prompts, of about CHUNK_ROWS answers each."""
    count = min(prompts, -(-prompts * samples // CHUNK_ROWS))
    cuts = np.linspace(0, prompts, count + 1).round().astype(int).tolist()
    return [slice(a, b) for a, b in itertools.pairwise(cuts)]
