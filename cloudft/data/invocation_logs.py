"""Select from Bedrock's invocation logs what a customization job trains on.

The rules are Bedrock's (user guide, "Customize a model with distillation"; API reference,
InvocationLogsConfig): a filter by request metadata, and with `usePromptResponse` the answers of
calls to the teacher alone. A log file is gzipped, with one record a line.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO

import orjson

from cloudft.data.formats import invocation_log
from cloudft.data.formats.record import BadRecord, Conversation
from cloudft.data.sources.gzip_stream import GzipStream

Filter = Mapping[str, object]
"""`requestMetadataFilters`, by the API's names: equals, notEquals, andAll or orAll."""
LOG_KEY = re.compile(r"(?!(?:.*/)?data/[^/]+_(?:input|output)\.json\.gz$).*\.json(\.gz)?")
"""Key of a log file: not that of a large body, which is under `data/`, nor of the object by which
AWS checks its permission, `amazon-bedrock-logs-permission-check`."""
MAX_LINE = 8 * 1024 * 1024
"""Bytes of a line above which it is no log record: a body in it has 100 KB at most."""
GEOGRAPHY = re.compile(r"^(us-gov|us|eu|apac|jp|au|ca|global)\.")
"""Begins the id of a system-defined inference profile."""


@dataclass(frozen=True)
class Selection:
    """What of the logs is used. `teacher` is the model whose answers are used; None for prompts."""

    filters: Filter | None = None
    use_answers: bool = False
    teacher: str | None = None


@dataclass
class LogCounts:
    """How many records of the logs were read, and why some of them are not used.

    `ignored` counts by reason; `examples` has file, line and detail of the first of each.
    """

    read: int = 0
    used: int = 0
    cut: int = 0
    """Answers among the used that were cut at their token limit."""
    by_profile: int = 0
    """Calls among the used that named the teacher by an inference profile, or the reverse."""
    ignored: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    models: Counter[str] = field(default_factory=Counter)

    def ignore(self, reason: str, file: str, line: int, detail: str = "") -> None:
        """Count a record that is not used."""
        self.ignored[reason] += 1
        self.examples.setdefault(reason, (file, line, detail))

    def describe_ignored(self) -> Iterator[str]:
        """Yield a sentence for each reason, with the first record that it applies to."""
        for reason, count in self.ignored.most_common():
            file, line, detail = self.examples[reason]
            more = f", {detail}" if detail else ""
            yield f"{count} {reason} (the first: {file}:{line}{more})"


OTHER_METADATA = "have other request metadata"
OTHER_MODEL = "are answers of another model than the teacher"
NOT_JSON = "are no JSON (a damaged or cut line)"
NO_LOG = "are no invocation log"
UNUSABLE = "can't be used"
DAMAGED = "files are damaged from there on"


def model_key(identifier: str) -> str:
    """Return the id of a model without ARN, geography of a profile and context length."""
    name = GEOGRAPHY.sub("", identifier.rpartition("/")[2])
    return re.sub(r"(:\d+):[^:]+$", r"\1", name)


def matches(metadata: object, filters: Filter | None) -> bool:
    """Return whether a record's request metadata passes the filter."""
    if not filters:
        return True
    found = metadata if isinstance(metadata, Mapping) else {}
    if "andAll" in filters:
        return all(_matches_base(found, one) for one in _list(filters["andAll"]))
    if "orAll" in filters:
        return any(_matches_base(found, one) for one in _list(filters["orAll"]))
    return _matches_base(found, filters)


def _matches_base(metadata: Mapping[str, object], base: Filter) -> bool:
    equals, differs = base.get("equals"), base.get("notEquals")
    return all(metadata.get(k) == v for k, v in _items(equals)) and all(
        metadata.get(k) != v for k, v in _items(differs)
    )


def _list(value: object) -> list[Filter]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _items(value: object) -> list[tuple[str, object]]:
    return list(value.items()) if isinstance(value, Mapping) else []


def select_records(
    stream: IO[bytes] | io.RawIOBase, file: str, selection: Selection, counts: LogCounts
) -> Iterator[Conversation]:
    """Yield the records of one log file that a job uses, and count all of them.

    `file` is its name in `counts`. A file that is damaged is read as far as it goes.
    """
    number = 0
    try:
        for number, line in enumerate(_lines(stream, file), start=1):
            if not line.strip():
                continue
            counts.read += 1
            record = _select(line, (file, number), selection, counts)
            if record is not None:
                counts.used += 1
                yield record
    except OSError as error:
        counts.ignore(DAMAGED, file, number + 1, error.strerror or str(error))


def _lines(stream: IO[bytes] | io.RawIOBase, file: str) -> Iterator[bytes]:
    """Yield the lines of a file. One that is too long to be a record is yielded in pieces."""
    raw = GzipStream(stream) if file.lower().endswith(".gz") else stream
    with io.BufferedReader(raw) as lines:  # type: ignore[type-var]
        while line := lines.readline(MAX_LINE):
            yield line


def _select(
    line: bytes, at: tuple[str, int], selection: Selection, counts: LogCounts
) -> Conversation | None:
    """Return the record of a line if it is used; count it if it is not."""
    try:
        value = orjson.loads(line)
    except ValueError:
        counts.ignore(NOT_JSON, *at)
        return None
    if not isinstance(value, dict) or not invocation_log.recognizes(value):
        counts.ignore(NO_LOG, *at)
        return None
    model = str(value.get("modelId"))
    counts.models[model] += 1
    if not matches(value.get("requestMetadata"), selection.filters):
        counts.ignore(OTHER_METADATA, *at)
        return None
    teacher = selection.teacher
    if selection.use_answers and teacher and model_key(model) != model_key(teacher):
        counts.ignore(OTHER_MODEL, *at, model)
        return None
    parse = invocation_log.parse if selection.use_answers else invocation_log.parse_prompt
    try:
        record = parse(value)
    except BadRecord as bad:
        counts.ignore(UNUSABLE, *at, bad.message)
        return None
    counts.cut += selection.use_answers and invocation_log.is_cut(value)
    counts.by_profile += bool(
        selection.use_answers and teacher and _short(model) != _short(teacher)
    )
    return record


def _short(identifier: str) -> str:
    return identifier.rpartition("/")[2]
