"""Search texts by their words with BM25, as implemented by the bm25s package.

Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cloudft.errors import UsageError

PASSAGE_LENGTH = 600
"""Characters of a passage, approximately: a size that a small model handles well."""
WORD = re.compile(r"\w+")


class Bm25Index:
    """An index of texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        try:
            import bm25s
        except ImportError as error:
            raise UsageError(
                "searching texts needs bm25s, which is not installed",
                fix="pip install 'cloudft[evaluate]'",
            ) from error
        self.texts = list(texts)
        self._vocabulary = {word for text in self.texts for word in _words(text)}
        self._index = bm25s.BM25()
        # bm25s can't index a text without words.
        self._index.index([_words(text) or ["-"] for text in self.texts], show_progress=False)

    def search(self, query: str, count: int) -> list[int]:
        """Return the indices of the best `count` texts, best first.

        Texts that share no word with the query are left out.
        """
        words = [word for word in _words(query) if word in self._vocabulary]
        if not words:
            return []
        indices, scores = self._index.retrieve(
            [words], k=min(count, len(self.texts)), show_progress=False
        )
        return [int(i) for i, score in zip(indices[0], scores[0], strict=True) if score > 0]


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def split_passages(documents: Sequence[str]) -> list[str]:
    """Split documents into paragraphs, and long paragraphs into groups of whole sentences."""
    passages: list[str] = []
    for paragraph in (p for text in documents for p in re.split(r"\n\s*\n", text)):
        passage = ""
        for sentence in re.split(r"(?<=[.!?])\s+", paragraph.strip()):
            if passage and len(passage) + len(sentence) > PASSAGE_LENGTH:
                passages.append(passage)
                passage = ""
            passage = f"{passage} {sentence}".strip()
        if passage:
            passages.append(passage)
    return passages
