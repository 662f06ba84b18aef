"""data stats: count records, tokens, labels, duplicates and contradictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cloudft.cli.command import command
from cloudft.cli.data_inputs import collect_stats, open_inputs, paths_argument
from cloudft.cli.options import Console, console_options, hidden_aws_options
from cloudft.data.token_estimate import TOKEN_ESTIMATE_RULE

CONFLICTS_SHOWN = 5
"""Number of contradictions in the text; JSON has more."""
BAR_WIDTH = 40


@command("stats", epilog="\b\nExamples:\n  cloudft data stats\n  cloudft data stats tickets.jsonl")
@paths_argument
@hidden_aws_options
@console_options
def stats_command(paths: tuple[str, ...], console: Console) -> int:
    """Count records, tokens, labels, duplicates and contradictions.

    Tokens are counted by the local model's tokenizer if a job file is named and the model is on
    this machine; otherwise they are estimated.
    """
    stats = {
        role: stats.to_json() for role, stats in collect_stats(open_inputs(paths), console).items()
    }
    console.print_result(stats, "\n\n".join(stats_tables(stats)))
    return 0


def stats_tables(stats: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the statistics as tables."""
    from cloudft.cli.output import format_table

    rows = [
        (
            role,
            value["records"],
            value["tokens"]["sum"],
            f"{value['tokens'].get('p50', 0):.0f}",
            value["tokens"].get("greatest", 0),
            value["duplicates"],
            value["conflicts"]["count"],
            ", ".join(list(value["languages"])[:3]),
        )
        for role, value in stats.items()
    ]
    names = (
        "SET",
        "RECORDS",
        "TOKENS",
        "MEDIAN",
        "LONGEST",
        "DUPLICATES",
        "CONFLICTS",
        "LANGUAGES",
    )
    yield format_table(names, rows)
    for role, value in stats.items():
        if value["records"]:
            yield format_table((f"TOKENS ({role})", "RECORDS", ""), histogram_rows(value["tokens"]))
            yield format_table(
                (f"CUT AT ({role})", "RECORDS CUT", ""), truncation_rows(value["tokens"])
            )
        if value["labels"]:
            labels = ((label[:40], count) for label, count in value["labels"].items())
            yield format_table((f"LABEL ({role})", "RECORDS"), labels)
        conflicts = [
            f"{conflict['file']}:{conflict['line']} answers the input of"
            f" {conflict['ofFile']}:{conflict['ofLine']} differently"
            for conflict in value["conflicts"]["first"][:CONFLICTS_SHOWN]
        ]
        if conflicts:
            yield "\n".join(conflicts)
    if any(value["tokens"]["estimated"] for value in stats.values()):
        yield TOKEN_ESTIMATE_RULE


def histogram_rows(tokens: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
    """Yield at most ten rows: a range of tokens, its number of records, a bar."""
    edges, numbers = tokens["histogram"]["edges"], tokens["histogram"]["records"]
    step = -(-len(numbers) // 10)
    groups = [numbers[at : at + step] for at in range(0, len(numbers), step)]
    most = max(sum(group) for group in groups)
    for place, group in enumerate(groups):
        low, high = edges[place * step], edges[min(len(numbers), (place + 1) * step)]
        count = sum(group)
        yield f"{low:.0f} to {high:.0f}", count, "#" * -(-BAR_WIDTH * count // most)


def truncation_rows(tokens: Mapping[str, Any]) -> Iterator[tuple[int, int, str]]:
    """Yield for each length how many records would be cut there."""
    for at, count in tokens["cut"].items():
        yield int(at), count, "this job" if int(at) == tokens["limit"] else ""
