"""What the page of one job shows of it, as plain values for the templates."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudft.backends import backend_class
from cloudft.backends.capabilities import SupportsExport, SupportsResume
from cloudft.backends.local import job_folder as names
from cloudft.backends.trainer_documents import TrainerEnding
from cloudft.errors import CloudftError, DamagedJob
from cloudft.evaluate.report.source_summary import summarize_sources
from cloudft.storage.store import JobRecord, read_job_document
from cloudft.types import to_camel_case
from cloudft.workbench.job_states import KnownJob
from cloudft.workbench.job_table import STATUS_CLASSES
from cloudft.workbench.text_format import (
    format_bytes,
    format_known_cost,
    format_seconds,
    format_time,
)

if TYPE_CHECKING:
    from cloudft.evaluate.results import Evaluation

MAX_FILES = 200
SHOWN_CHARACTERS = 600
"""Of a long text, before `show all`."""
RESUMABLE = ("Failed", "Stopped")


class NamedText(NamedTuple):
    """A fact of the job. A long text is shown in part, and whole on demand."""

    name: str
    text: str

    @property
    def start(self) -> str:
        """Return the beginning of the text, which is all of a short one."""
        return self.text[:SHOWN_CHARACTERS]

    @property
    def is_cut(self) -> bool:
        """Return whether there is more text."""
        return len(self.text) > SHOWN_CHARACTERS


class SpecValue(NamedTuple):
    """A value of the resolved job file, and where it came from."""

    field: str
    value: str
    origin: str
    where: str


class StoredFile(NamedTuple):
    """A file or a folder that the job has left."""

    name: str
    size: str
    changed: str


def view_head(known: KnownJob, *, read_only: bool) -> dict[str, Any]:
    """Return the values of the page's head, which is sent again whenever the state changes."""
    state = known.state
    progress = state.progress if state else None
    is_running = state is not None and not state.has_ended
    total = progress.total_steps if progress else 0
    return {
        "record": known.record,
        "status": known.status,
        "status_class": STATUS_CLASSES.get(known.status, ""),
        "share": progress.step / total if progress and total and is_running else None,
        "facts": [one for one in _facts(known) if one.text],
        "actions": [] if read_only else list(_actions(known)),
    }


def view_body(known: KnownJob) -> dict[str, Any]:
    """Return the values of the parts that stay as they are while the page is open."""
    record = known.record
    return {
        "record": record,
        "spec": resolve_spec(record),
        "request": json.dumps(record.request, indent=1, ensure_ascii=False),
        "manifest": record.manifest,
        "sources": summarize_sources(record.manifest.get("sources", [])),
        "checkpoints": list_checkpoints(record.folder),
        "artifacts": list_artifacts(Path(known.state.artifacts))
        if known.state and known.state.artifacts
        else [],
        "artifacts_folder": known.state.artifacts if known.state else None,
        "events": list(_events(known)),
        "cost": [one for one in _cost(known) if one.text],
        **view_evaluation(record),
    }


def view_evaluation(record: JobRecord) -> dict[str, Any]:
    """Return the newest evaluation with what older ones add, or why there is none."""
    from cloudft.evaluate.history import load_combined_evaluation

    try:
        evaluation: Evaluation | None = load_combined_evaluation(record.folder)
    except DamagedJob as error:
        return {"evaluation": None, "no_evaluation": error.message}
    except CloudftError as error:
        return {"evaluation": None, "no_evaluation": f"Not evaluated yet: {error.fix}"}
    return {"evaluation": evaluation, "no_evaluation": ""}


def resolve_spec(record: JobRecord) -> list[SpecValue]:
    """Return every value of the job with its origin, or the values that were given.

    The record holds what was given by file, flags and environment together.
    """
    from cloudft.spec.load import load_spec
    from cloudft.spec.resolve import resolve_values

    try:
        values = resolve_values(load_spec(dict(record.spec)))
    except CloudftError:  # of a model or a field that this version does not know
        return [SpecValue(n, _text(v), "given", "") for n, v in _leaves(record.spec, "")]
    return [
        SpecValue(
            one.field,
            _text(one.value),
            "given" if one.origin.kind == "file" else one.origin.kind,
            "" if one.origin.kind in ("file", "default") else one.origin.where,
        )
        for one in values
    ]


def list_checkpoints(folder: Path) -> list[StoredFile]:
    """Return the checkpoints of a job on this machine, the newest first."""
    found = sorted((folder / names.CHECKPOINTS).glob("step-*"), reverse=True)
    return [_stored(path, path.name) for path in found[:MAX_FILES]]


def list_artifacts(folder: Path) -> list[StoredFile]:
    """Return the files of a completed job."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [_stored(path, str(path.relative_to(folder))) for path in found[:MAX_FILES]]


def _stored(path: Path, name: str) -> StoredFile:
    try:
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        size = sum(one.stat().st_size for one in files)
        changed = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
    except OSError:  # removed since the folder was listed
        return StoredFile(name, "", "")
    return StoredFile(name, format_bytes(size), changed)


def _actions(known: KnownJob) -> Iterator[str]:
    """Yield what can be done with the job now."""
    backend = backend_class(known.record.backend)
    if known.status == "InProgress":
        yield "stop"
    if known.status in RESUMABLE and issubclass(backend, SupportsResume):
        yield "resume"
    if known.status == "Completed" and issubclass(backend, SupportsExport):
        yield "export"


def _facts(known: KnownJob) -> Iterator[NamedText]:
    record, state = known.record, known.state
    if known.reason:
        yield NamedText("could not look", known.reason)
    if known.seen_at:
        yield NamedText("seen", time.strftime("%H:%M:%S", time.localtime(known.seen_at)))
    yield NamedText("failure", (state.failure_message or "") if state else "")
    progress = state.progress if state else None
    if state and progress and progress.total_steps:
        if not state.has_ended:
            yield NamedText("activity", progress.activity)
        yield NamedText("step", f"{progress.step:,} of {progress.total_steps:,}")
        if not state.has_ended:
            yield NamedText("time left", format_seconds(progress.seconds_left))
            speed = progress.tokens_per_second
            yield NamedText("speed", f"{speed:,.0f} tokens/s" if speed else "")
    if state:
        phases = {
            to_camel_case(k).removesuffix("Details"): v
            for k, v in vars(state.status_details).items()
        }
        yield NamedText("phases", ", ".join(f"{name} {value}" for name, value in phases.items()))
        yield NamedText("validation", _validation(state.summary))
    yield NamedText("cost", format_known_cost(known))
    yield NamedText("base model", record.base_model)
    yield NamedText("type", record.customization_type)
    yield NamedText("backend", _place(record))
    yield NamedText("created", format_time(record.created_at))
    yield NamedText("ended", format_time(state.ended_at) if state else "")
    yield NamedText("tags", ", ".join(f"{key}={value}" for key, value in record.tags.items()))


def _place(record: JobRecord) -> str:
    region = record.request.get("place", {}).get("region")
    return f"{record.backend} in {region}" if region else record.backend


def _validation(summary: Mapping[str, Any]) -> str:
    """Return the loss or the reward on the validation data before and after training."""
    parts = []
    for name, when in (("base", "before"), ("tuned", "after")):
        found = summary.get(name) or {}
        measure = "reward" if "reward" in found else "validationLoss"
        if found.get(measure) is not None:
            label = "reward" if measure == "reward" else "loss"
            parts.append(f"{label} {found[measure]:.4f} {when}")
    return ", ".join(parts)


def _cost(known: KnownJob) -> Iterator[NamedText]:
    estimate, summary = known.record.estimate, known.state.summary if known.state else {}
    yield NamedText("training", format_known_cost(known))
    for part in estimate.get("parts", []):
        usd = part.get("usd")
        amount = f"{usd:,.4f} USD" if usd is not None else "unknown"
        quantity = part.get("quantity")
        counted = "" if quantity is None else f"{quantity:,.6g} {part.get('unit')}s: "
        yield NamedText(str(part.get("what")), counted + amount)
    for key, label in (
        ("storagePerMonth", "storage a month"),
        ("servingPerHour", "serving an hour"),
    ):
        usd = estimate["usd"].get(key)
        yield NamedText(label, f"{usd:,.2f} USD" if usd else "")
    seconds, tokens = summary.get("billableSeconds"), summary.get("billableTokens")
    yield NamedText("billed time", format_seconds(seconds) if seconds is not None else "")
    yield NamedText("billed tokens", f"{tokens:,}" if tokens is not None else "")
    yield NamedText(
        "prices", f"{estimate.get('priceSource', '')} {estimate.get('priceDate', '')}".strip()
    )


def _events(known: KnownJob) -> Iterator[NamedText]:
    """Yield what has happened to the job, the oldest first."""
    folder = known.record.folder
    yield NamedText(format_time(known.record.created_at), "created")
    for path in sorted((folder / names.EARLIER).glob(f"*{names.ENDED}")):
        try:
            ending = read_job_document(path, TrainerEnding)
        except DamagedJob as error:
            yield NamedText("", error.message)
            continue
        if ending is not None:
            yield NamedText(format_time(ending.ended_at), f"{ending.status}, then resumed")
    if known.state and known.state.has_ended:
        yield NamedText(format_time(known.state.ended_at), known.state.status)


def _leaves(value: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return ", ".join(map(_text, value))
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)
