"""Find tokens that a model's tokenizer has and its embedding lacks, from the files' headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from cloudft.errors import BadDocument
from cloudft.storage.documents import decode
from cloudft.storage.safetensors_header import read_safetensors_header

EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings", "embeddings")
"""Last names that model families give their token embedding."""


class _AddedToken(msgspec.Struct):
    id: int
    content: str


class _TokenizerModel(msgspec.Struct):
    vocab: dict[str, int] | list[Any] = {}
    """Ids by token; Unigram has a list, in the order of the ids."""


class _Tokenizer(msgspec.Struct):
    model: _TokenizerModel
    added_tokens: list[_AddedToken] = []


def tokens_beyond_embedding(folder: Path) -> tuple[list[str], int]:
    """Return the tokens of tokenizer.json without a row of the embedding, and the number of rows.

    No token if the folder does not show both. Read no weights.
    """
    try:
        path = folder / "tokenizer.json"
        tokenizer = decode(path.read_bytes(), _Tokenizer, file=path)
        rows = _count_rows(folder)
    except (
        OSError,
        ValueError,
        BadDocument,
    ):  # the findings about the model and its tokenizer name it
        return [], 0
    if rows is None:
        return [], 0
    vocabulary = tokenizer.model.vocab
    ids = vocabulary if isinstance(vocabulary, dict) else {}
    ids |= {token.content: token.id for token in tokenizer.added_tokens}
    return sorted((t for t, number in ids.items() if number >= rows), key=ids.__getitem__), rows


def _count_rows(folder: Path) -> int | None:
    """Return the rows of the token embedding; None if no tensor has one of its names."""
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in read_safetensors_header(path).items():
            *_, last, kind = ("", *name.split("."))
            if kind == "weight" and last in EMBEDDINGS and len(tensor.shape) == 2:
                return tensor.shape[0]
    return None
