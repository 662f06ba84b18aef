"""Write the labeled records as a job's data, and beside them who said what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson

from cloudft.data.formats.record import BadRecord
from cloudft.data.formats.registry import convert_targets, encode_record, find_format
from cloudft.data.staging.dataset_transform import new_output_file
from cloudft.errors import CloudftError, UsageError
from cloudft.labeling.decided import DecidedRecord, decide_records
from cloudft.labeling.events import LabelEvent
from cloudft.labeling.project import LabelProject
from cloudft.storage.home import Home
from cloudft.storage.store import Store

PROVENANCE_SUFFIX = ".provenance.jsonl"
PROVENANCE_KEY = "label_provenance"
FALLBACK_FORMAT = "messages"


@dataclass(frozen=True)
class LabelExport:
    """What was written. `rejected` and `open` records are in neither file."""

    out: Path
    provenance: Path | None
    format: str
    records: int
    rejected: int
    open: int


def choose_format(project: LabelProject, home: Home, requested: str | None = None) -> str:
    """Return the format to write: the requested one, the job's, or else that of the source.

    Raise UsageError for a format that labeled records can't be written in.
    """
    if requested is not None:
        if requested not in convert_targets():
            raise UsageError(
                f"{requested!r} is no format to write", fix=f"use {', '.join(convert_targets())}."
            )
        return requested
    if project.settings.job is not None:
        try:
            record = Store(home.jobs).find_by_reference(project.settings.job)
        except CloudftError:
            record = None  # deleted since; the source's format is as good
        name = str(record.manifest.get("format", "")) if record else ""
        if _is_writable(name):
            return name
    for key in project.records.keys[:1]:
        name = project.records.get(key).conversation.format
        known = find_format(name)
        if _is_writable(name):
            return name
        if known is not None and known.rewrite_as and _is_writable(known.rewrite_as):
            turns = project.records.get(key).conversation.turns
            return known.rewrite_as if len(turns) == 1 else FALLBACK_FORMAT
    return FALLBACK_FORMAT


def _is_writable(name: str) -> bool:
    format = find_format(name)
    return name in convert_targets() and format is not None and format.is_labeled


def provenance_path(out: Path) -> Path:
    """Return the file beside `out` that says who labeled what: `tickets.provenance.jsonl`."""
    return out.with_name(out.stem + PROVENANCE_SUFFIX)


def export_labels(
    project: LabelProject, out: Path, target: str, *, inside: bool = False
) -> LabelExport:
    """Write every record with a label into the new file `out`, one JSON object a line.

    Beside it is PROVENANCE_SUFFIX: for each line of `out` who labeled it, when, and what was
    suggested with which confidence. With `inside` it is the key PROVENANCE_KEY of each record
    instead; the file is then no job's data until that key is left out. Raise UsageError when a file
    exists or nothing is labeled, StoreError.
    """
    decided, still_open = decide_records(project)
    labeled = [one for one in decided if one.label is not None]
    if not labeled:
        raise UsageError("no record has a label yet", fix="label some in `cloudft ui`.")
    position = {key: number for number, key in enumerate(project.records.keys)}
    labeled.sort(key=lambda one: position[one.key])
    lines, sources = [], []
    for one in labeled:
        source = _provenance(project, one)
        line = _encode(project, one, target)
        if inside:
            line = orjson.dumps({**orjson.loads(line), PROVENANCE_KEY: source}) + b"\n"
        lines.append(line)
        sources.append(orjson.dumps(source) + b"\n")
    if inside:
        beside = None
        with new_output_file(out) as temporary:
            temporary.write_bytes(b"".join(lines))
    else:
        beside = provenance_path(out)
        with new_output_file(out) as temporary, new_output_file(beside) as second:
            temporary.write_bytes(b"".join(lines))
            second.write_bytes(b"".join(sources))
    rejected = len(decided) - len(labeled)
    return LabelExport(out, beside, target, len(labeled), rejected, len(still_open))


def _encode(project: LabelProject, one: DecidedRecord, target: str) -> bytes:
    record = project.records.get(one.key)
    try:
        return encode_record(record.answered_by(one.label or ""), target)[0]
    except BadRecord as bad:
        raise UsageError(
            f"a record can't be written as {target}: {bad}",
            file=record.file,
            line=record.line,
            fix=f"{bad.fix}; or choose another format: {', '.join(convert_targets())}.",
        ) from bad


def _provenance(project: LabelProject, one: DecidedRecord) -> dict[str, object]:
    """Return who said what of a record, and where it comes from."""
    record = project.records.get(one.key)
    return {
        "key": one.key,
        "file": record.file,
        "line": record.line,
        "given": record.given,
        "label": one.label,
        "decided": one.how,
        "labels": [
            {"person": person, **_said(event)} for person, event in sorted(one.votes.items())
        ],
        "settledBy": None
        if one.settled_by is None
        else {"person": one.settled_by.person, "at": one.settled_by.at},
    }


def _said(event: LabelEvent) -> dict[str, object]:
    return {
        "label": None if event.action == "reject" else event.label,
        "at": event.at,
        "seconds": round(event.seconds, 2),
        "suggestion": event.suggestion,
        "confidence": event.confidence,
        "model": event.model,
        "suggestionSeen": event.suggestion is not None and not event.is_blind,
        "why": event.reason,
    }
