"""compare: compare tuned models, or a model and its base, on the same records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.number_format import format_interval, format_number, format_signed
from cloudft.cli.options import Console, aws_options, complete_job, console_options

if TYPE_CHECKING:
    from cloudft.evaluate.compare import ModelResult

RECORDS_SHOWN = 5
"""Changed records of each kind in the text; the page shows more, JSON all."""
BASE = "base"


@command(
    "compare",
    epilog="\b\nExamples:\n  cloudft compare router-lora router-full\n"
    "  cloudft compare base router-lora router-full --page compared.html",
)
@click.argument(
    "references", metavar="A B...", nargs=-1, required=True, shell_complete=complete_job
)
@click.option(
    "--page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write one HTML page, with the records that changed.",
)
@click.option("--force", is_flag=True, help="Replace an existing page.")
@aws_options
@console_options
def compare_command(
    references: tuple[str, ...], page: Path | None, force: bool, console: Console
) -> int:
    """Compare jobs with the first one, record by record; `base` names their base model.

    The newest evaluations on the same held-out records are compared, else the records that all of
    them have: run `cloudft evaluate` on the same data first.
    """
    from cloudft.evaluate.compare import compare_models
    from cloudft.evaluate.report.compare_page import render_compare_page
    from cloudft.evaluate.report.pages import write_page

    found = compare_models(model_results(references))
    if page is not None:
        write_page(page, render_compare_page(found), force=force)
        console.note(f"wrote {page}")
    for warning in found["warnings"]:
        console.note(f"warning: {warning['message']} [{warning['code']}]")
    console.print_result(found, "\n\n".join(comparison_lines(found)))
    return 0


def model_results(references: tuple[str, ...]) -> list[ModelResult]:
    """Return the evaluation of each named model. Raise UsageError for fewer than two of them."""
    from cloudft.errors import UsageError
    from cloudft.evaluate.compare import ModelResult
    from cloudft.evaluate.history import choose_evaluations, load_evaluations
    from cloudft.jobs import lifecycle

    named = [name for name in references if name != BASE]
    if len(references) < 2 or not named:
        raise UsageError(
            "compare needs two models",
            fix="name two jobs, or `base` and a job: cloudft compare base JOB",
        )
    jobs = [open_job(named[0] if name == BASE else name) for name in references]
    candidates = [load_evaluations(record.folder)[0] for record, _, _ in jobs]
    chosen = choose_evaluations(candidates)
    found = []
    for name, (record, backend, _), evaluation, every in zip(
        references, jobs, chosen, candidates, strict=True
    ):
        is_newest = evaluation is every[0]
        if name == BASE:
            title = f"{record.base_model} (base)"
            found.append(ModelResult(title, evaluation, "base", 0.0, is_newest=is_newest))
            continue
        job = lifecycle.refresh(record, backend)
        ended = job.state.ended_at
        seconds = None
        if ended:
            took = datetime.fromisoformat(ended) - datetime.fromisoformat(record.created_at)
            seconds = took.total_seconds()
        usd = record.estimate["usd"]["training"]
        found.append(ModelResult(record.id, evaluation, "tuned", usd, seconds, is_newest=is_newest))
    if len({side.name for side in found}) < len(found):
        raise UsageError("one model is named twice", fix="name each model once.")
    return found


def comparison_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the leaderboard, then each comparison in a few lines."""
    from cloudft.cli.output import format_table
    from cloudft.evaluate.metrics.metric_labels import metric_label

    order = "lower is better" if found["lowerIsBetter"] else "higher is better"
    metric = metric_label(found["metric"])
    yield f"{found['n']} records, mean {metric} of a record ({order})"
    names = ("MODEL", "SCORE", "95 % INTERVAL", "USD", "MINUTES")
    yield format_table(names, (_row(row) for row in found["leaderboard"]))
    for one in found["comparisons"]:
        yield one["sentence"]
        rows = [
            (
                mark,
                _short(flip["prompt"]),
                _short(flip["reference"]),
                _short(flip["before"]),
                _short(flip["after"]),
            )
            for mark, flips in (("fixed", one["fixed"]), ("broken", one["broken"]))
            for flip in flips[:RECORDS_SHOWN]
        ]
        if rows:
            yield format_table(("", "PROMPT", "REFERENCE", "BEFORE", "AFTER"), rows)
        if one["slices"]:
            slices = (
                (
                    f"{s['by']}: {s['value'][:40]}",
                    s["n"],
                    format_number(s["base"]),
                    format_number(s["tuned"]),
                    format_signed(s["delta"]["value"]),
                    format_interval(s["delta"]),
                )
                for s in one["slices"]
            )
            yield format_table(
                ("SLICE", "RECORDS", "FIRST", "THIS", "DELTA", "95 % INTERVAL"), slices
            )
        yield from _judged_lines(one["judged"])
    if len(found["comparisons"]) > 1:
        yield f"p-values are adjusted for {len(found['comparisons'])} comparisons (Holm)"


def _judged_lines(judged: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a table of what a judge says of both models; nothing where it judged neither."""
    from cloudft.cli.output import format_table

    rows = (
        (
            f"{one['suite']} {one['figure']}",
            one["n"],
            format_number(one["base"]),
            format_number(one["tuned"]),
            format_signed(one["delta"]["value"]),
            format_interval(one["delta"]),
        )
        for one in judged
    )
    if judged:
        yield format_table(("JUDGED", "RECORDS", "FIRST", "THIS", "DELTA", "95 % INTERVAL"), rows)


def _row(row: Mapping[str, Any]) -> tuple[Any, ...]:
    usd = "no price known" if row["usd"] is None else f"{row['usd']:.2f}"
    minutes = f"{row['seconds'] / 60:.1f}" if row["seconds"] else ""
    low, high = row["low"], row["high"]
    return (
        f"{row['name']} by {row['engine']}" if row["engine"] else row["name"],
        format_number(row["score"]),
        "" if low is None else f"{format_number(low)} to {format_number(high)}",
        usd,
        minutes,
    )


def _short(text: str | None) -> str:
    line = " ".join((text or "").split())
    return line if len(line) <= 32 else f"{line[:29]}..."
