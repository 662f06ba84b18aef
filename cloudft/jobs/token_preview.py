"""Describe a record as the model sees it: its tokens, which are in the loss, where it is cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from cloudft.catalogue import CUSTOMIZATION_TYPES
from cloudft.data.formats.registry import format_title
from cloudft.data.records import LocatedRecord
from cloudft.jobs.input_files import max_record_length
from cloudft.spec.load import LoadedJob


class Piece(TypedDict):
    """A token as text; `learned` if it is in the loss."""

    id: int
    text: str
    learned: bool


class Preview(TypedDict):
    """A record as tokens, as JSON. `cutAt` is None when all of it fits.

    `isPrompt` is True for a prompt whose answer the model or its teacher gives in training. `rows`
    has the tokens of both answers of a pair, each after its prompt, the chosen one's first;
    `pieces` are then those of the chosen one. Other records have one row.
    """

    file: str
    line: int
    format: str
    readAs: str
    leftOut: list[str]
    pieces: list[Piece]
    rows: list[list[Piece]]
    length: int
    learned: int
    isPrompt: bool
    cutAt: int | None
    template: str | None


def describe_tokens(
    job: LoadedJob, located: LocatedRecord, facts: Mapping[str, Any], reply: Mapping[str, Any]
) -> Preview:
    """Return a record as tokens. `facts` and `reply` are those of SupportsTokenize."""
    rows = reply.get("rows", [reply["pieces"]])
    longest = max(map(len, rows))
    limit = max_record_length(job, facts["context"])
    learned = sum(piece["learned"] for pieces in rows for piece in pieces[:limit])
    kind = CUSTOMIZATION_TYPES[job.spec.customization_type]
    return {
        "file": located.file,
        "line": located.line,
        "format": located.record.format,
        "readAs": format_title(located.record.format),
        "leftOut": list(located.record.left_out),
        "pieces": rows[0],
        "rows": rows,
        "length": sum(map(len, rows)),
        "learned": learned,
        "isPrompt": kind.data == "prompts" and not any(p["learned"] for row in rows for p in row),
        "cutAt": limit if limit is not None and longest > limit else None,
        "template": None if limit is None else facts["chatTemplate"],
    }
