"""Detect what a data file holds, by its first records: for `cloudft init --data`.

Records are recognized by parsing them. Where their own keys match no format, columns are chosen by
their exact conventional names (`question`, `answer`), never by similarity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from cloudft.data.findings import Findings
from cloudft.data.formats.recognizer import detect_format
from cloudft.data.formats.record import RawRecord
from cloudft.data.formats.record_format import RecordFormat
from cloudft.data.formats.registry import get_format
from cloudft.data.sources.row_reader import ReadContext, read_rows
from cloudft.data.sources.source_files import SourceFile

MAX_ROWS = 200
"""Records that are read."""
PROMPT_COLUMNS = ("prompt", "question", "query", "instruction", "input", "text", "message")
COMPLETION_COLUMNS = ("completion", "answer", "response", "output", "label", "category", "intent")


@dataclass(frozen=True)
class FileDetection:
    """What a file holds. `columns` is what `data.columns` must say; empty if nothing.

    `matched` of the first `seen` records are in that format.
    """

    file_type: str
    format: RecordFormat
    columns: Mapping[str, str]
    evidence: str
    matched: int
    seen: int


def detect_file(source: SourceFile, findings: Findings) -> FileDetection | None:
    """Return what the file holds, None if no format fits its records.

    What can't be read is added to `findings`.
    """
    rows = list(islice(read_rows(ReadContext(source, findings)), MAX_ROWS))
    values = [row.value for row in rows if isinstance(row.value, dict)]
    if rows and rows[0].format == "document":
        evidence = f"a {source.path.suffix} file, read as one text"
        return FileDetection(
            source.file_type, get_format("text"), {}, evidence, len(rows), len(rows)
        )
    found = detect_format(values)
    columns: Mapping[str, str] = {}
    if found is None and values:
        columns = choose_columns(values)
        found = detect_format(values, columns) if columns else None
    if found is None:
        return None
    evidence = found.evidence
    if columns:
        names = " and ".join(repr(name) for name in columns.values())
        evidence = f"the {'columns' if len(columns) > 1 else 'column'} {names}"
    return FileDetection(
        source.file_type, found.format, columns, evidence, found.matched, found.seen
    )


def choose_columns(values: Sequence[RawRecord]) -> dict[str, str]:
    """Return the columns to read, by canonical name; empty unless there is exactly one choice."""
    common = set(values[0]).intersection(*values)
    texts = [k for k in values[0] if k in common and all(isinstance(v[k], str) for v in values)]
    if "messages" in common and isinstance(values[0]["messages"], list):
        return {"messages": "messages"}
    prompts = _named(texts, PROMPT_COLUMNS)
    completions = _named(texts, COMPLETION_COLUMNS)
    if len(prompts) == len(completions) == 1:
        return {"prompt": prompts[0], "completion": completions[0]}
    if prompts and not completions and [name.lower() for name in prompts] == ["text"]:
        return {"text": prompts[0]}
    return {}


def _named(columns: Iterable[str], names: Sequence[str]) -> list[str]:
    return [column for column in columns if column.strip().lower() in names]
