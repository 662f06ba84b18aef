"""Values as text: JSON, tables, a job's page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import click
import orjson

from cloudft.types import CallerIdentity, Finding, Metric, UnavailablePart, to_json


def json_text(value: Any) -> str:
    """Indented JSON. A number that JSON lacks (infinity) becomes null."""
    return _dumps(to_json(value), orjson.OPT_INDENT_2)


def json_line(value: Any) -> str:
    """JSON on one line."""
    return _dumps(to_json(value))


def _dumps(plain: Any, option: int = 0) -> str:
    """JSON of plain data. Halves of surrogate pairs (bytes of file names) become U+FFFD."""
    try:
        return orjson.dumps(plain, option=option).decode()
    except TypeError:
        return orjson.dumps(_replace_surrogates(plain), option=option).decode()


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {_replace_surrogates(key): _replace_surrogates(item) for key, item in value.items()}
    return [_replace_surrogates(item) for item in value] if isinstance(value, list) else value


def format_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns of text, as wide as they must be."""
    cells = [list(columns), *[["" if c is None else str(c) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def finding_lines(finding: Finding) -> list[str]:
    """A finding as an error or a warning with its remedy."""
    from cloudft.cli.errors import location_suffix

    lines = [f"{finding.severity}: {finding.message}{location_suffix(finding)} [{finding.code}]"]
    return [*lines, f"  fix: {finding.fix}"] if finding.fix else lines


def findings_text(findings: Iterable[Finding]) -> str:
    """All findings, errors first."""
    ordered = sorted(findings, key=lambda finding: finding.severity != "error")
    return "\n".join(line for finding in ordered for line in finding_lines(finding))


def print_findings(findings: Iterable[Finding]) -> None:
    """Say the warnings on stderr."""
    for finding in findings:
        for line in finding_lines(finding):
            click.echo(line, err=True)


def print_unavailable(parts: Sequence[UnavailablePart]) -> None:
    """Say on stderr what could not be read: parts with one reason together."""
    groups: dict[tuple[str, str | None], list[UnavailablePart]] = {}
    for part in parts:
        why = part.reason.partition(": ")[2] or part.reason  # behind the name of what was tried
        groups.setdefault((why, part.fix), []).append(part)
    for (reason, fix), same in groups.items():
        names = ", ".join(part.what for part in same[:8])
        more = f" and {len(same) - 8} more" if len(same) > 8 else ""
        told = same[0].reason if len({part.reason for part in same}) == 1 else reason
        click.echo(f"warning: could not be read: {names}{more} ({told})", err=True)
        if fix:
            click.echo(f"  fix: {fix}", err=True)


def identity_line(identity: CallerIdentity) -> str:
    """Return `as ARN in account A (credentials from ...), Region R (from ...)`."""
    if identity.unavailable is not None:
        who = f"as an identity that can't be read ({identity.unavailable.reason})"
    else:
        profile = f"profile {identity.profile}, from {identity.profile_from}"
        told = f"credentials from {identity.credentials_from}, {profile}"
        who = f"as {identity.arn} in account {identity.account} ({told})"
    region = f"Region {identity.region or 'unknown'} (from {identity.region_from})"
    where = f", at {identity.endpoint_url}" if identity.endpoint_url else ""
    unused = "".join(f"; {name} is set and not used" for name in identity.unused)
    return f"{who}, {region}{where}{unused}"


def job_page(job: Mapping[str, Any]) -> str:
    """One job's page, from the JSON that `status` gives."""
    progress = job["progress"] or {}
    summary = job["summary"]
    details = ", ".join(
        f"{name.removesuffix('Details')} {value}" for name, value in job["statusDetails"].items()
    )
    rows: list[tuple[str, Any]] = [
        ("job", job["id"]),
        ("status", f"{job['status']} ({details})"),
        ("backend", job["backend"]),
        ("type", job["customizationType"]),
        ("base model", _base_model_text(job)),
        ("settings", ", ".join(f"{k} {v:g}" for k, v in job["hyperParameters"].items())),
        ("data", _data_text(job["manifest"])),
        ("queued", summary.get("queuedIn")),
        ("model", _imported_model_text(summary)),
        ("activity", summary.get("activity") if job["endedAt"] is None else None),
        ("step", f"{progress['step']} of {progress['totalSteps']}" if progress else None),
        ("loss", f"{progress['loss']:.4f}" if progress.get("loss") is not None else None),
        ("validation", _validation_text(summary)),
        ("cost", _cost_text(job)),
        ("created", format_local_time(job["createdAt"])),
        ("ended", format_local_time(job["endedAt"])),
        ("artifacts", job["artifacts"]),
        ("failure", job["failureMessage"]),
    ]
    return "\n".join(f"{name + ':':<12}{value}" for name, value in rows if value is not None)


def _cost_text(job: Mapping[str, Any]) -> str | None:
    from cloudft.catalogue.cost import format_usd

    usd, seconds = job["cost"]["usd"], job["summary"].get("billableSeconds")
    billed = f", {seconds} s billed" if seconds is not None else ""
    if usd is None:
        return f"no price is known{billed}"
    if not job["cost"]["estimated"]:
        return f"{format_usd(usd)} of training{billed}"
    bound = "at most " if job["cost"].get("atMost") else ""
    return f"{bound}{format_usd(usd)} of training, estimated{billed}" if usd else None


def _imported_model_text(summary: Mapping[str, Any]) -> str | None:
    model, units = summary.get("importedModel"), summary.get("unitsPerCopy")
    if model is None or units is None:
        return model
    return f"{model} ({units} x custom model unit {summary.get('unitsVersion')} a copy)"


def _base_model_text(job: Mapping[str, Any]) -> str:
    trained = job["summary"].get("model")
    base: str = job["baseModel"]
    return base if trained in (None, base) else f"{base} (here: {trained})"


def _data_text(manifest: Mapping[str, Any]) -> str:
    parts = [f"{file['records']} {role}" for role, file in manifest["files"].items()]
    return f"{', '.join(parts)} (sha256 {manifest['sha256'][:12]})"


def _validation_text(summary: Mapping[str, Any]) -> str | None:
    base, tuned = summary.get("base"), summary.get("tuned")
    if not base:
        return None
    text = f"loss {base['validationLoss']:.4f} (perplexity {base['perplexity']:.2f}) before"
    if tuned:
        text += f", {tuned['validationLoss']:.4f} ({tuned['perplexity']:.2f}) after"
    return text


def format_local_time(iso: str | None) -> str | None:
    """An ISO time as this machine's clock shows it."""
    if not iso:
        return None
    moment = datetime.fromisoformat(iso)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def metric_rows(metrics: Iterable[Metric]) -> Iterable[tuple[Any, ...]]:
    """The curve as a table's rows."""
    for point in metrics:
        yield (
            point.step,
            point.epoch,
            point.split,
            f"{point.loss:.4f}",
            f"{point.perplexity:.2f}" if math.isfinite(point.perplexity) else "inf",
            f"{point.learning_rate:.3g}" if point.learning_rate is not None else "",
            f"{point.tokens_per_second:.0f}" if point.tokens_per_second else "",
        )


def format_gibibytes(count: int) -> str:
    """`2147483648` -> `2.0 GiB`."""
    return f"{count / 2**30:.1f} GiB"


def format_duration(seconds: float | None) -> str:
    """`75.2` -> `1:15`."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
