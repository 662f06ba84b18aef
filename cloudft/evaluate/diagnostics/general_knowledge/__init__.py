"""General text and questions that ship with cloudft, to see what tuning has made a model forget.

Written for cloudft, in no one else's words; under the same licence. Plain English of many kinds,
two languages of code, sums. The questions have one ending that is right, among three that are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import orjson


@dataclass(frozen=True)
class MultipleChoiceQuestion:
    """The start of a sentence, endings to choose from, and the number of the right one."""

    question: str
    options: tuple[str, ...]
    answer: int


def load_default_texts() -> list[str]:
    """Short passages, one for each subject."""
    return [row["text"] for row in _load_rows("texts.jsonl")]


def load_default_questions() -> list[MultipleChoiceQuestion]:
    """Sentences to be ended."""
    return [
        MultipleChoiceQuestion(row["question"], tuple(row["options"]), row["answer"])
        for row in _load_rows("questions.jsonl")
    ]


def _load_rows(name: str) -> list[dict]:  # type: ignore[type-arg]
    content = files(__package__).joinpath(name).read_bytes()
    return [orjson.loads(line) for line in content.splitlines()]
