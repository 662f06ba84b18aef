"""Text without labels, one key a record: `{"input"}` is Bedrock's format, `{"text"}` the usual one.

Bedrock user guide, "Prepare datasets for continued pre-training".
"""

from __future__ import annotations

import msgspec

from cloudft.data.formats.record import Document, JsonObject, RawRecord, Record
from cloudft.data.formats.record_format import Keys, RecordFormat, describe_keys, get_text


class _InputRecord(msgspec.Struct, gc=False):
    input: str


class _TextRecord(msgspec.Struct, gc=False):
    text: str


def _make_format(key: str, batch_record: type[msgspec.Struct]) -> RecordFormat:
    def parse(value: RawRecord) -> Document:
        return Document(key, get_text(value, key))

    def write(record: Record) -> JsonObject:
        assert isinstance(record, Document)
        return {key: record.text}

    return RecordFormat(
        name=key,
        title=f"texts under {key!r}",
        keys=Keys((key,)),
        canonical_columns={key: "text"},
        parse=parse,
        describe=describe_keys(key),
        write=write,
        is_labeled=False,
        text_keys=(key,),
        batch_record=batch_record,
    )


INPUT_FORMAT = _make_format("input", _InputRecord)
TEXT_FORMAT = _make_format("text", _TextRecord)
