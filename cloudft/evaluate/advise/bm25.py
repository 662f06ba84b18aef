"""Looking texts up by their words: BM25, as the bm25s package has it.

Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from cloudft.errors import UsageError

PASSAGE_LENGTH = 600
"""Characters of a passage, about: what a small model reads well."""
WORD = re.compile(r"\w+")


class Bm25Index:
    """Texts, found by the words of a question."""

    def __init__(self, texts: Sequence[str]) -> None:
        try:
            import bm25s
        except ImportError as error:
            raise UsageError(
                "looking texts up needs bm25s, which is not installed",
                fix="pip install 'cloudft[evaluate]'",
            ) from error
        self.texts = list(texts)
        self._known = {word for text in self.texts for word in _words(text)}
        self._index: Any = bm25s.BM25()
        self._index.index([_words(text) or ["-"] for text in self.texts], show_progress=False)

    def search(self, question: str, count: int) -> list[int]:
        """The numbers of the best texts, best first; those that share no word are left out."""
        words = [word for word in _words(question) if word in self._known]
        if not words:
            return []
        places, scores = self._index.retrieve(
            [words], k=min(count, len(self.texts)), show_progress=False
        )
        return [int(p) for p, score in zip(places[0], scores[0], strict=True) if score > 0]


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def split_passages(documents: Sequence[str]) -> list[str]:
    """Documents by paragraphs; a long one in parts of whole sentences."""
    found: list[str] = []
    for paragraph in (p for text in documents for p in re.split(r"\n\s*\n", text)):
        room = ""
        for sentence in re.split(r"(?<=[.!?])\s+", paragraph.strip()):
            if room and len(room) + len(sentence) > PASSAGE_LENGTH:
                found.append(room)
                room = ""
            room = f"{room} {sentence}".strip()
        if room:
            found.append(room)
    return found
