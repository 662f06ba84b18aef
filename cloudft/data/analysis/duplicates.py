"""Records that stand twice, exactly or nearly: the first one stays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cloudft.data.analysis.near_duplicates import NearDuplicateIndex
from cloudft.data.formats.record import Conversation, Document
from cloudft.data.records import LocatedRecord


@dataclass(frozen=True)
class Duplicate:
    """A record and the earlier one that it is like. `similarity` is 1.0 for the very same texts."""

    file: str
    line: int
    of_file: str
    of_line: int
    similarity: float


def find_duplicates(
    records: Iterable[LocatedRecord], min_similarity: float | None = None
) -> Iterator[tuple[LocatedRecord, Duplicate | None]]:
    """Each record, with its twin among those before that have none themselves.

    `near` is the least similarity (near.py) that counts; None compares exactly, and takes some 150
    bytes a record.
    """
    seen: dict[int, tuple[str, int]] = {}
    like = NearDuplicateIndex(min_similarity) if min_similarity is not None else None
    places: list[tuple[str, int]] = []
    for located in records:
        text = record_text(located.record)
        place = (located.file, located.line)
        first = seen.setdefault(hash_text(text), place)
        if first is not place:
            yield located, Duplicate(*place, *first, 1.0)
            continue
        found = like.query_or_insert(text) if like else None
        if found is None:
            places.append(place)
            yield located, None
        else:
            yield located, Duplicate(*place, *places[found[0]], found[1])


def hash_text(text: str) -> int:
    """A number of 128 bits that stands for the text (XXH3)."""
    from xxhash import xxh3_128_intdigest

    return xxh3_128_intdigest(text.encode("utf-8", "surrogatepass"))


def record_text(record: Conversation | Document) -> str:
    """Everything that a record says, its parts told apart."""
    if isinstance(record, Document):
        return record.text
    return "\x1e".join(["\x1f".join(record.system), *("\x1f".join(t) for _, t in record.turns)])


def prompt_text(record: Conversation | Document) -> str:
    """What a record asks: all but the last answer. Of a document, all of it."""
    if isinstance(record, Document):
        return record.text
    turns = ("\x1f".join(texts) for _, texts in record.turns[:-1])
    return "\x1e".join(["\x1f".join(record.system), *turns])
