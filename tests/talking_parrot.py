"""A model that says what it is sent, for tests of what is around a model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

from cloudft.errors import TrainerError
from cloudft.inference import (
    CANCELED,
    Answer,
    AnswerDelta,
    AnswerEnd,
    GenerationConfig,
    InferenceSession,
    Prompt,
    StreamEvent,
    SupportsStreaming,
)
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord


class Parrot(InferenceSession, SupportsStreaming):
    """Says the prompt word by word, each when `may_speak` lets it; never ends by itself."""

    def __init__(self, name: str) -> None:
        self.name, self.is_closed, self.is_alive = name, False, True
        self.may_speak = threading.Semaphore(0)
        self.canceled = threading.Event()

    def model_identities(self) -> Mapping[str, str]:
        return {}

    def answer_keys(self) -> Mapping[str, str]:
        return {}

    def generate(
        self, prompts: Sequence[Prompt], variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[Answer]:
        raise NotImplementedError

    def stream(
        self, prompt: Prompt, variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[StreamEvent]:
        self.canceled.clear()
        words = [*str(prompt.messages[-1]["content"]).split(), "[end]"]
        if "fail" in words:
            raise TrainerError("it failed", fix="do not.")
        said = ""
        for count, word in enumerate(words, 1):
            while not self.may_speak.acquire(timeout=0.01):
                if self.canceled.is_set():
                    yield AnswerEnd(Answer(0, variants[0], said, count - 1, CANCELED))
                    return
            if word != "[end]":
                said += f"{word} "
                yield AnswerDelta(variants[0], f"{word} ", "", count)
        yield AnswerEnd(Answer(0, variants[0], said, len(words) - 1, "stop"), (1, 2))

    def cancel(self) -> None:
        self.canceled.set()

    def close(self) -> None:
        self.is_closed = True


def open_parrot(record: JobRecord, _home: Home) -> Parrot:
    """Open a parrot that speaks at once."""
    parrot = Parrot(record.id)
    parrot.may_speak.release(10_000)
    return parrot
