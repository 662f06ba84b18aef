"""Load the general texts and questions that ship with cloudft, to measure forgetting.

They were written for cloudft and have its license: plain English of many kinds, two programming
languages, arithmetic. Each question has one correct ending and three wrong ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import orjson


@dataclass(frozen=True)
class MultipleChoiceQuestion:
    """The start of a sentence, its possible endings, and the index of the correct one."""

    question: str
    options: tuple[str, ...]
    answer: int


def load_default_texts() -> list[str]:
    """Return short passages, one for each subject."""
    return [row["text"] for row in _load_rows("texts.jsonl")]


def load_default_questions() -> list[MultipleChoiceQuestion]:
    """Return the questions in file order."""
    return [
        MultipleChoiceQuestion(row["question"], tuple(row["options"]), row["answer"])
        for row in _load_rows("questions.jsonl")
    ]


def _load_rows(name: str) -> list[dict]:  # type: ignore[type-arg]
    content = files(__package__).joinpath(name).read_bytes()
    return [orjson.loads(line) for line in content.splitlines()]
