"""Write the staged records in the form that SageMaker's serverless customization reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import orjson

from cloudft.data.formats.record import BadRecord
from cloudft.data.formats.registry import encode_record, get_format
from cloudft.errors import CheckFailed
from cloudft.types import Finding

TARGET = "messages"


def write_messages(source: Path, format: str, target: Path) -> str:
    """Write the canonical records of a file as `messages`; return the sha256 of what is written.

    Raise CheckFailed for a record that has more than texts, with its line.
    """
    digest = hashlib.sha256()
    with source.open("rb") as lines, target.open("wb") as out:
        for line in _converted(lines, source, format):
            digest.update(line)
            out.write(line)
    return digest.hexdigest()


def _converted(lines: Iterator[bytes], source: Path, format: str) -> Iterator[bytes]:
    parse = get_format(format).parse
    assert parse is not None, "records are staged in a format that is read"
    for number, line in enumerate(lines, 1):
        try:
            record = parse(orjson.loads(line))
            content = encode_record(record, TARGET)[0]
        except BadRecord as error:
            raise _refused(source, number, str(error)) from error
        if not has_texts_alone(content):
            raise _refused(source, number, "it has tools, reasoning or weights")
        yield content.rstrip(b"\n") + b"\n"


def has_texts_alone(line: bytes) -> bool:
    """Return whether a line of `messages` has roles with texts and nothing else.

    SageMaker's guide names `role` and `content` (developer guide, "SFT", format 1).
    """
    value = orjson.loads(line)
    return set(value) == {"messages"} and all(
        set(message) == {"role", "content"} and isinstance(message["content"], str)
        for message in value["messages"]
    )


def _refused(source: Path, line: int, why: str) -> CheckFailed:
    message = f"record {line} of {source.name} can't be tuned serverless: {why}"
    fix = "remove it from the data, or train without sagemaker.serverless."
    finding = Finding("error", "ServerlessContent", message, fix, str(source), line)
    return CheckFailed(message, [finding])
