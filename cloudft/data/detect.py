"""Detect what a data file holds, by its first records: for `cloudft init --data`.

Records are recognized as `check` recognizes them. Where their own keys match no format and the
recognizer proposes one way to name the columns, that is taken; where it proposes two, a person
chooses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from cloudft.data.findings import Findings
from cloudft.data.formats import converse, plain_text, preference_pairs, reinforcement
from cloudft.data.formats.key_roles import is_descriptive
from cloudft.data.formats.proposals import explain_missing_column, propose_columns
from cloudft.data.formats.recognizer import Detection, detect_format, is_annotated, parse_record
from cloudft.data.formats.record import BadRecord, RawRecord
from cloudft.data.formats.record_format import RecordFormat
from cloudft.data.formats.registry import encode_record, get_format
from cloudft.data.sources.row_reader import ReadContext, read_rows
from cloudft.data.sources.source_files import SourceFile

MAX_ROWS = 200
"""Records that are read."""
MAX_TRIED_ROWS = 20
TARGETS = (converse.NAME, preference_pairs.NAME, plain_text.INPUT_FORMAT.name, reinforcement.NAME)
"""Formats that models are trained on: answers, pairs of answers, texts, prompts for a grader."""
TEXT_TARGET = "input"
"""The format that unlabeled texts are staged in: records are read as texts for it."""


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


def detect_file(
    source: SourceFile,
    findings: Findings,
    columns: Mapping[str, str] | None = None,
    *,
    is_labeled: bool = True,
) -> FileDetection | BadRecord | None:
    """Return what the file holds, or why its records can't be used, with the ways out.

    None for a file without records: what can't be read is added to `findings`. `columns` are those
    that the user named. `is_labeled` is False where texts without answers are wanted.
    """
    context = ReadContext(source, findings, columns=columns or {})
    rows = list(islice(read_rows(context), MAX_ROWS))
    if rows and rows[0].format == "document":
        evidence = f"a {source.path.suffix} file, read as one text"
        return FileDetection(
            source.file_type, get_format("text"), {}, evidence, len(rows), len(rows)
        )
    values = [row.value for row in rows]
    if not values:
        return None
    target = "" if is_labeled else TEXT_TARGET
    chosen = dict(columns or {})
    named = set(chosen.values())
    if named and not is_annotated(values[0]) and not any(named & set(v) for v in values):
        return explain_missing_column(min(named), chosen, values[0])
    found = detect_format(values, chosen, target)
    # The fullest first: an answer that is empty in the first record has a column all the same.
    values.sort(key=_count_empty)
    error = _first_error(values, chosen, target)
    if found is None or (is_labeled and _is_unlabeled_rest(found, error, values[0])):
        proposals = propose_columns(values[0], is_labeled=is_labeled)
        # Another error than unknown names says what such columns would lose.
        if columns or error is None or error.code != "WrongKeys" or len(proposals) != 1:
            return error
        if any(is_descriptive(proposals[0].get(name, "text")) for name in ("prompt", "text")):
            return error  # an id is a prompt only where a person says so
        [chosen] = proposals
        found = detect_format(values, chosen, target)
        if found is None:
            return error
    evidence = found.evidence
    if chosen:
        names = " and ".join(f"{theirs!r} ({ours})" for ours, theirs in chosen.items())
        evidence = f"the {'columns' if len(chosen) > 1 else 'column'} {names}"
    return FileDetection(
        source.file_type, found.format, chosen, evidence, found.matched, found.seen
    )


def guess_target(source: SourceFile, columns: Mapping[str, str]) -> str:
    """Return the format that a file's records would be trained on in; "" if none takes them.

    The first record that any format takes decides.
    """
    context = ReadContext(source, Findings(), columns=columns)
    for row in islice(read_rows(context), MAX_TRIED_ROWS):
        for target in TARGETS:
            try:
                encode_record(parse_record(row.value, columns, target), target)
            except BadRecord:
                continue
            return target
    return ""


def _count_empty(value: RawRecord) -> int:
    return sum(item in (None, "", [], {}) for item in value.values())


def _is_unlabeled_rest(found: Detection, error: BadRecord | None, fullest: RawRecord) -> bool:
    """Return whether texts are read without answers only because some records lack theirs."""
    has_text = all(fullest.get(key) for key in found.format.keys.required)
    is_rest = not found.format.is_labeled and found.matched < found.seen and has_text
    return is_rest and error is not None and error.code == "WrongKeys"


def _first_error(
    values: Sequence[RawRecord], columns: Mapping[str, str], target: str
) -> BadRecord | None:
    """Return the error of the first record."""
    for value in values:
        try:
            parse_record(value, columns, target)
        except BadRecord as bad:
            return bad
    return None
