"""Find duplicate records, exact or near: the first one of them stays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cloudft.data.analysis.near_duplicates import NearDuplicateIndex
from cloudft.data.formats.record import Conversation, Document, Record, Turn
from cloudft.data.records import LocatedRecord


@dataclass(frozen=True)
class Duplicate:
    """A record and the earlier one that it repeats. `similarity` is 1.0 for the very same texts."""

    file: str
    line: int
    of_file: str
    of_line: int
    similarity: float


def find_duplicates(
    records: Iterable[LocatedRecord], min_similarity: float | None = None
) -> Iterator[tuple[LocatedRecord, Duplicate | None]]:
    """Yield each record, with the earlier record that it repeats, or None.

    Earlier records that are duplicates themselves do not count. `min_similarity` is the least
    similarity (near_duplicates.py) of near duplicates; None compares exactly, and takes some 150
    bytes a record.
    """
    seen: dict[int, tuple[str, int]] = {}
    index = NearDuplicateIndex(min_similarity) if min_similarity is not None else None
    indexed: list[tuple[str, int]] = []
    for located in records:
        text = record_text(located.record)
        position = (located.file, located.line)
        first = seen.setdefault(hash_text(text), position)
        if first is not position:
            yield located, Duplicate(*position, *first, 1.0)
            continue
        near = index.query_or_insert(text) if index else None
        if near is None:
            indexed.append(position)
            yield located, None
        else:
            yield located, Duplicate(*position, *indexed[near[0]], near[1])


def hash_text(text: str) -> int:
    """Return a 128-bit hash of the text (XXH3)."""
    from xxhash import xxh3_128_intdigest

    return xxh3_128_intdigest(text.encode("utf-8", "surrogatepass"))


def record_text(record: Record) -> str:
    """Return all texts of a record as one, with separators between them."""
    if isinstance(record, Document):
        return record.text
    return "\x1e".join([_context_text(record), *map(_turn_text, record.all_turns)])


def _context_text(record: Conversation) -> str:
    """Return the system prompt's texts, and the tools as JSON."""
    if not record.tools:
        return "\x1f".join(record.system)
    import orjson

    return "\x1f".join([*record.system, orjson.dumps(record.tools).decode()])


def _turn_text(turn: Turn) -> str:
    text = "\x1f".join(turn.all_texts)
    return text if turn.is_learned else f"{text}\x1d"
