"""data scan: find secrets and personal data by line, and write a redacted copy."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, console_options, hidden_aws_options

MAX_MATCHES = 1000


@command(
    "scan",
    epilog="\b\nExamples:\n  cloudft data scan tickets.jsonl\n"
    "  cloudft data scan tickets.jsonl --redact tickets-clean.jsonl",
)
@click.argument("inputs", metavar="IN...", nargs=-1, required=True)
@click.option(
    "--redact",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="Write a JSONL copy with <EMAIL>, <CARD> and so on in their places.",
)
@hidden_aws_options
@console_options
def scan_command(inputs: tuple[str, ...], redact: Path | None, console: Console) -> int:
    """Find keys, tokens, passwords, e-mail and IP addresses, phone, card and account numbers.

    Each match is listed by file, line and kind; its text is never printed. Exit code 3 when there
    are matches and no redacted copy is written.
    """
    hits, counts, written = _scan_files(inputs, redact, console)
    lines = [f"{hit['file']}:{hit['line']} {hit['field']}: {hit['kind']}" for hit in hits[:20]]
    total = sum(counts.values())
    if total > len(lines):
        lines.append(f"... and {total - len(lines)} more")
    lines += [f"{count} {kind}" for kind, count in counts.most_common()]
    if redact:
        lines.append(f"{redact}: {written} records")
    value = {"hits": hits, "counts": dict(counts), "redacted": redact}
    console.print_result(value, "\n".join(lines) or "nothing found")
    return 3 if total and redact is None else 0


def _scan_files(
    inputs: tuple[str, ...], out: Path | None, console: Console
) -> tuple[list[dict[str, object]], Counter[str], int]:
    """Return the first matches, the number of each kind, and the number of records."""
    import orjson

    from cloudft.cli.progress import record_counter
    from cloudft.data.analysis.pii_rows import scan_rows
    from cloudft.data.analysis.pii_scan import redact_json
    from cloudft.data.analysis.pii_workers import open_scan_pool
    from cloudft.data.findings import Findings
    from cloudft.data.sources.line_blocks import ByteCounter
    from cloudft.data.sources.row_reader import ReadContext, read_rows
    from cloudft.data.sources.source_files import SourceResolver
    from cloudft.data.staging.dataset_transform import new_output_file
    from cloudft.errors import CheckFailed

    hits: list[dict[str, object]] = []
    findings, counts, seen = Findings(), Counter[str](), 0
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(record_counter(console, "scanning"))
        file = (
            stack.enter_context(stack.enter_context(new_output_file(out)).open("wb"))
            if out
            else None
        )
        sources = SourceResolver(Path.cwd(), findings).resolve("IN", inputs)
        pool = stack.enter_context(open_scan_pool(sources))
        for source in sources:
            rows = read_rows(ReadContext(source, findings, ByteCounter()))
            for row, matches in scan_rows(rows, pool):
                seen += 1
                progress(seen)
                for field, match in matches:
                    counts[match.kind] += 1
                    if len(hits) < MAX_MATCHES:
                        location = {"file": source.display_name, "line": row.line, "field": field}
                        hits.append(location | {"kind": match.kind})
                if file:
                    value = redact_json(row.value) if matches else row.value
                    file.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
        if findings.count_errors():
            listed = findings.all()
            raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)
    return hits, counts, seen
