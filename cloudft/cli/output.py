"""Format values as text: JSON, tables, findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import click
import orjson

from cloudft.types import CallerIdentity, Finding, UnavailablePart, to_json


def json_text(value: object) -> str:
    """Return indented JSON. A number that JSON lacks (infinity) becomes null."""
    return _dumps(to_json(value), orjson.OPT_INDENT_2)


def json_line(value: object) -> str:
    """Return JSON on one line."""
    return _dumps(to_json(value))


def _dumps(plain: object, option: int = 0) -> str:
    """Return JSON of plain data. Unpaired surrogates (bytes of file names) become U+FFFD."""
    try:
        return orjson.dumps(plain, option=option).decode()
    except TypeError:
        return orjson.dumps(_replace_surrogates(plain), option=option).decode()


def _replace_surrogates(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {_replace_surrogates(key): _replace_surrogates(item) for key, item in value.items()}
    return [_replace_surrogates(item) for item in value] if isinstance(value, list) else value


def format_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return columns of text, each as wide as its widest cell."""
    cells = [list(columns), *[["" if c is None else str(c) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def finding_lines(finding: Finding) -> list[str]:
    """Return a finding as an error or a warning, with its remedy on a second line."""
    from cloudft.cli.errors import location_suffix

    lines = [f"{finding.severity}: {finding.message}{location_suffix(finding)} [{finding.code}]"]
    return [*lines, f"  fix: {finding.fix}"] if finding.fix else lines


def findings_text(findings: Iterable[Finding]) -> str:
    """Return all findings as text: errors, then warnings, then notes."""
    order = ("error", "warning", "note")
    ordered = sorted(findings, key=lambda finding: order.index(finding.severity))
    return "\n".join(line for finding in ordered for line in finding_lines(finding))


def print_findings(findings: Iterable[Finding]) -> None:
    """Print findings on stderr."""
    for finding in findings:
        for line in finding_lines(finding):
            click.echo(line, err=True)


def print_unavailable(parts: Sequence[UnavailablePart]) -> None:
    """Print on stderr what could not be read, grouped by the reason."""
    from cloudft.backends.partial_listing import group_unavailable

    for names, reason, fix in group_unavailable(parts):
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        click.echo(f"warning: can't read {', '.join(names[:8])}{more} ({reason})", err=True)
        if fix:
            click.echo(f"  fix: {fix}", err=True)


def identity_line(identity: CallerIdentity) -> str:
    """Return `as ARN in account A (credentials from ...), Region R (from ...)`."""
    if identity.unavailable is not None:
        who = f"as an identity that can't be read ({identity.unavailable.reason})"
    else:
        profile = f"profile {identity.profile}, from {identity.profile_from}"
        source = f"credentials from {identity.credentials_from}, {profile}"
        who = f"as {identity.arn} in account {identity.account} ({source})"
    region = f"Region {identity.region or 'unknown'} (from {identity.region_from})"
    where = f", at {identity.endpoint_url}" if identity.endpoint_url else ""
    unused = "".join(f"; {name} is set and not used" for name in identity.unused)
    return f"{who}, {region}{where}{unused}"
