"""Pairs `{"prompt", "completion"}`: Bedrock's format for text models, OpenAI's older one."""

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

NAME = "prompt-completion"


class _BatchRecord(msgspec.Struct, gc=False):
    prompt: str
    completion: str


def parse(value: RawRecord) -> Conversation:
    """Parse a prompt and its completion, both text."""
    return make_pair(NAME, get_text(value, "prompt"), get_text(value, "completion"))


def write(record: Record) -> JsonObject:
    """Return the record as a pair. Raises BadRecord if it has more than two turns."""
    prompt, completion = join_pair(record)
    return {"prompt": prompt, "completion": completion}


FORMAT = RecordFormat(
    name=NAME,
    keys=Keys(("prompt", "completion")),
    parse=parse,
    describe=describe_keys("prompt", "completion"),
    write=write,
    text_keys=("prompt", "completion"),
    batch_record=_BatchRecord,
)
