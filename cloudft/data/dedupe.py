"""Records that stand twice, exactly or nearly: the first one stays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cloudft.data.near import Near
from cloudft.data.record import Document, Turns
from cloudft.data.records import Located


@dataclass(frozen=True)
class Twin:
    """A record and the earlier one that it is like. `similarity` is 1.0 for the very same texts."""

    file: str
    line: int
    of_file: str
    of_line: int
    similarity: float


def twins(
    records: Iterable[Located], near: float | None = None
) -> Iterator[tuple[Located, Twin | None]]:
    """Each record, with its twin among those before that have none themselves.

    `near` is the least similarity (near.py) that counts; None compares exactly, and takes some 150
    bytes a record.
    """
    seen: dict[int, tuple[str, int]] = {}
    like = Near(near) if near is not None else None
    places: list[tuple[str, int]] = []
    for located in records:
        text = whole_text(located.record)
        place = (located.file, located.line)
        first = seen.setdefault(digest(text), place)
        if first is not place:
            yield located, Twin(*place, *first, 1.0)
            continue
        found = like.find_or_add(text) if like else None
        if found is None:
            places.append(place)
            yield located, None
        else:
            yield located, Twin(*place, *places[found[0]], found[1])


def digest(text: str) -> int:
    """A number of 128 bits that stands for the text (XXH3)."""
    from xxhash import xxh3_128_intdigest

    return xxh3_128_intdigest(text.encode("utf-8", "surrogatepass"))


def whole_text(record: Turns | Document) -> str:
    """Everything that a record says, its parts told apart."""
    if isinstance(record, Document):
        return record.text
    return "\x1e".join(["\x1f".join(record.system), *("\x1f".join(t) for _, t in record.turns)])


def asked_text(record: Turns | Document) -> str:
    """What a record asks: all but the last answer. Of a document, all of it."""
    if isinstance(record, Document):
        return record.text
    turns = ("\x1f".join(texts) for _, texts in record.turns[:-1])
    return "\x1e".join(["\x1f".join(record.system), *turns])
