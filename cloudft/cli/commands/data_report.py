"""data report: write one self-contained HTML page about the data, with charts."""

from __future__ import annotations

import io
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import click

from cloudft.cli.command import command
from cloudft.cli.data_inputs import InputFiles, collect_stats, open_inputs, paths_argument
from cloudft.cli.options import Console, console_options, hidden_aws_options
from cloudft.errors import UsageError

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.5em} h2{margin-top:2em;border-bottom:1px solid #ccc} svg{max-width:100%;height:auto}
table{border-collapse:collapse;margin:1em 0} td,th{padding:.2em 1em .2em 0;text-align:left}
td.n{text-align:right} tr{border-bottom:1px solid #eee} .bad{color:#b00020}
.b{width:100%} .w{width:60%} .w div{background:#35618f;height:1em}
"""
LABELS_SHOWN = 30


@command(
    "report",
    epilog="\b\nExamples:\n  cloudft data report --out data.html\n"
    "  cloudft data report tickets.jsonl --out tickets.html --output json",
)
@paths_argument
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="New file for the page (.html)."
)
@hidden_aws_options
@console_options
def report_command(paths: tuple[str, ...], out: Path, console: Console) -> int:
    """Write one HTML page with lengths, labels, duplicates, contradictions and private data.

    It needs no network, and contains no training text but labels. --output json prints the values.
    """
    from cloudft.data.staging.dataset_transform import new_output_file

    with new_output_file(out) as temporary:  # refuses an existing file before the work
        inputs = open_inputs(paths)
        stats = {role: found.to_json() for role, found in collect_stats(inputs, console).items()}
        private = count_private_data(inputs, console)
        temporary.write_text(render_page(page_title(inputs), stats, private), encoding="utf-8")
    console.print_result({"sets": stats, "private": private, "page": out}, str(out))
    return 0


def page_title(inputs: InputFiles) -> str:
    """Return the job's name, or the names of the files."""
    if inputs.job is not None:
        name: str = inputs.job.spec.name
        return name
    return ", ".join(source.display_name for files in inputs.files.values() for source in files)


def count_private_data(inputs: InputFiles, console: Console) -> dict[str, dict[str, int]]:
    """Count the private data of each role by kind."""
    from collections import Counter

    from cloudft.cli.progress import record_counter
    from cloudft.data.analysis.duplicates import record_text
    from cloudft.data.analysis.pii_scan import find_pii
    from cloudft.data.findings import Findings

    with record_counter(console, "scanning") as progress:
        return {
            role: dict(
                Counter(
                    hit.kind
                    for located in inputs.records(role, progress, Findings())
                    for hit in find_pii(record_text(located.record))
                )
            )
            for role in inputs.files
        }


def render_page(
    heading: str, stats: Mapping[str, Mapping[str, Any]], private: Mapping[str, Mapping[str, int]]
) -> str:
    """Return the HTML page."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(heading)}</title>",
        f"<style>{STYLE}</style><h1>Data of {escape(heading)}</h1>",
        overview_table(stats, private),
    ]
    for role, value in stats.items():
        parts.append(f"<h2>{escape(role)}</h2>")
        parts += section_html(value, private[role])
    return "\n".join([*parts, "</html>", ""])


def overview_table(
    stats: Mapping[str, Mapping[str, Any]], private: Mapping[str, Mapping[str, int]]
) -> str:
    """Return a table with one row for each set; suspicious numbers are red."""
    rows = [
        (
            role,
            value["records"],
            value["tokens"]["sum"],
            value["duplicates"],
            value["conflicts"]["count"],
            sum(private[role].values()),
        )
        for role, value in stats.items()
    ]
    head = ("set", "records", "tokens", "duplicates", "contradictions", "private data")
    return html_table(head, rows, alarming={3, 4, 5})


def section_html(value: Mapping[str, Any], private: Mapping[str, int]) -> Iterable[str]:
    """Yield the HTML of everything about one set."""
    tokens = value["tokens"]
    rule = "estimated from characters" if tokens["estimated"] else "by the model's own tokenizer"
    if value["records"]:
        yield f"<p>Tokens {rule}: median {tokens['p50']:.0f}, 99 % up to {tokens['p99']:.0f},"
        yield f"longest {tokens['greatest']}; {tokens['longTail']} records are longer than four"
        yield "times the median.</p>"
        edges, numbers = tokens["histogram"]["edges"], tokens["histogram"]["records"]
        yield token_histogram_svg(edges[:-1], numbers, edges[1] - edges[0], tokens["limit"])
        cut = (
            (f"{at} (this job)" if int(at) == tokens["limit"] else at, count)
            for at, count in tokens["cut"].items()
        )
        yield html_table(("cut at", "records cut"), cut, alarming={1})
    if value["labels"]:
        shown = dict(list(value["labels"].items())[:LABELS_SHOWN])
        yield f"<p>{len(value['labels'])} labels; the most common has a share of"
        yield f"{value['commonestShare']:.0%}.</p>"
        yield label_bars_html([label[:40] for label in shown], list(shown.values()))
    for name, rows in (
        ("language", value["languages"].items()),
        ("private data", private.items()),
        ("turns", value["turns"].items()),
    ):
        if rows:
            yield html_table((name, "records" if name != "private data" else "times"), rows)
    conflicts = value["conflicts"]["first"]
    if conflicts:
        yield "<p class=bad>One input, two answers:</p>"
        yield html_table(
            ("record", "contradicts"),
            ((f"{c['file']}:{c['line']}", f"{c['ofFile']}:{c['ofLine']}") for c in conflicts),
        )


def html_table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], alarming: Container[int] = ()
) -> str:
    """Return an HTML table; numbers above 0 in `alarming` columns are red."""
    lines = ["".join(f"<th>{escape(name)}</th>" for name in head)]
    for row in rows:
        cells = []
        for index, cell in enumerate(row):
            red = " bad" if index in alarming and cell else ""
            kind = f' class="n{red}"' if isinstance(cell, (int, float)) else ""
            cells.append(f"<td{kind}>{escape(str(cell))}</td>")
        lines.append("".join(cells))
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _new_figure(height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "charts need matplotlib, which is not installed", fix="pip install 'cloudft[plot]'"
        ) from error
    return Figure(figsize=(8, height), layout="constrained")


def _figure_svg(figure: Any) -> str:
    """Return the figure as an `<svg>` element without comments, the same bytes every time."""
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.hashsalt": "cloudft"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    whole = stream.getvalue()
    return re.sub(r"<!--.*?-->", "", whole[whole.index("<svg") :], flags=re.DOTALL)


def token_histogram_svg(
    left: Sequence[float], heights: Sequence[int], width: float, limit: int | None
) -> str:
    """Return a histogram of tokens as SVG, with a line where the job cuts records."""
    figure = _new_figure(3)
    axes = figure.add_subplot()
    axes.bar(left, heights, width=width, align="edge", color="#35618f", edgecolor="white")
    if limit is not None and limit < left[-1] + width:
        axes.axvline(limit, color="#b00020")
        axes.annotate(f" cut at {limit}", (limit, max(heights)), color="#b00020", va="top")
    axes.set(xlabel="tokens", ylabel="records")
    axes.yaxis.get_major_locator().set_params(integer=True)
    return _figure_svg(figure)


def label_bars_html(names: Sequence[str], counts: Sequence[int]) -> str:
    """Return a table with a bar for each name, as long as its count."""
    rows = (
        f"<tr><td>{escape(name)}</td><td class=n>{count}</td>"
        f"<td class=w><div style='width:{100 * count / max(counts):.1f}%'></div></td></tr>"
        for name, count in zip(names, counts, strict=True)
    )
    return "<table class=b>" + "".join(rows) + "</table>"
