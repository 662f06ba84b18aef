"""Pairs `{"input", "output"}`."""

from __future__ import annotations

import msgspec

from cloudft.data.formats.record import Conversation, JsonObject, RawRecord, Record
from cloudft.data.formats.record_format import (
    Keys,
    RecordFormat,
    describe_keys,
    get_text,
    join_pair,
    make_pair,
)

NAME = "input-output"


class _BatchRecord(msgspec.Struct, gc=False):
    input: str
    output: str


def parse(value: RawRecord) -> Conversation:
    """Parse an input and its output, both text."""
    return make_pair(NAME, get_text(value, "input"), get_text(value, "output"))


def write(record: Record) -> JsonObject:
    """Return the record as a pair. Raises BadRecord if it has more than two turns."""
    prompt, completion = join_pair(record)
    return {"input": prompt, "output": completion}


FORMAT = RecordFormat(
    name=NAME,
    keys=Keys(("input", "output")),
    parse=parse,
    describe=describe_keys("input", "output"),
    write=write,
    text_keys=("input", "output"),
    batch_record=_BatchRecord,
)
