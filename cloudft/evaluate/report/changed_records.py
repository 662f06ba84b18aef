"""Prepare the records that changed for a page: the first of each kind, shared texts apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cloudft.evaluate.compare import ChangedRecord
from cloudft.evaluate.report.shared_text import SharedText, TextParts, find_shared_text


class ShownRecord(NamedTuple):
    """A record with its prompt split into what is its own and what it shares."""

    record: ChangedRecord
    prompt: TextParts


class ChangedGroup(NamedTuple):
    """Records that changed in one direction: the first of them, and the number of all.

    `before` and `after` name the models.
    """

    caption: str
    total: int
    before: str
    after: str
    shown: list[ShownRecord]


def share_prompts(records: Sequence[ChangedRecord]) -> SharedText:
    """Return what most of the records' prompts have in common."""
    return find_shared_text([record["prompt"] for record in records])


def make_groups(
    records: Sequence[ChangedRecord],
    shared: SharedText,
    limit: int,
    *,
    before: str,
    after: str,
) -> list[ChangedGroup]:
    """Return the records that got worse and those that improved, in their order."""
    kinds = (
        ("got worse", [record for record in records if record["gain"] < 0]),
        ("improved", [record for record in records if record["gain"] > 0]),
    )
    return [
        ChangedGroup(
            f"{len(changed):,} {'record' if len(changed) == 1 else 'records'} {caption}",
            len(changed),
            before,
            after,
            [ShownRecord(record, shared.split(record["prompt"])) for record in changed[:limit]],
        )
        for caption, changed in kinds
        if changed
    ]


def judged_group(
    records: Sequence[ChangedRecord], shared: SharedText, limit: int
) -> list[ChangedGroup]:
    """Return the judged records in their order as one group; none without records."""
    if not records:
        return []
    shown = [ShownRecord(record, shared.split(record["prompt"])) for record in records[:limit]]
    caption = "Records by what the judge gains or loses, the largest losses first"
    return [ChangedGroup(caption, len(records), "Base", "Tuned", shown)]
