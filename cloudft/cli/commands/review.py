"""review: have people judge two models' answers blind."""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, aws_options, complete_job, console_options
from cloudft.cli.param_types import PORT, RECORDS, SEED
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.evaluate.human_review.review import Review

LINGER_S = 1.5
"""Seconds that the page is still served after the last judgment."""


@command(
    "review",
    epilog="\b\nExamples:\n  cloudft review base ticket-router\n"
    "  cloudft review router-lora router-full --reviewer ada --sample 50\n"
    "  cloudft review base ticket-router --results --output json\n"
    "  cloudft review base ticket-router --export judgements.csv",
)
@click.argument("references", metavar="A B", nargs=2, shell_complete=complete_job)
@click.option("--reviewer", help="Name of the reviewer; default: your user name.")
@click.option("--sample", type=RECORDS, help="Number of records to draw; default: all.")
@click.option("--seed", type=SEED, default=7, show_default=True, help="Seed that draws the sample.")
@click.option("--port", type=PORT, default=0, help="Port of the page; 0 picks a free one.")
@click.option("--no-browser", is_flag=True, help="Print the URL and open no browser.")
@click.option("--results", is_flag=True, help="Print the results so far, and exit.")
@click.option(
    "--export",
    "out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all judgments to a new file (.csv or .json), and exit.",
)
@aws_options
@console_options
def review_command(
    references: tuple[str, str],
    reviewer: str | None,
    sample: int | None,
    seed: int,
    port: int,
    no_browser: bool,
    results: bool,
    out: Path | None,
    console: Console,
) -> int:
    """Judge two models' answers side by side without knowing which is which; `base` is the base.

    The page is served on this machine and reachable only from it. Every judgment is saved at once:
    stop and continue at any time, with any number of reviewers. The answers are those of `cloudft
    evaluate`.
    """
    from cloudft.cli.commands.compare import model_results
    from cloudft.evaluate.human_review.review import Review

    first, second = model_results(references)
    review = Review(Home.from_environ().reviews, first, second, sample=sample or 0, seed=seed)
    if out is not None:
        export_judgments(review, out)
        console.note(f"wrote {out}")
    elif not results:
        serve_review_page(review, reviewer or _default_reviewer(), port, no_browser, console)
    found = review.summarize()
    console.print_result(found, review_text(found))
    return 0


def _default_reviewer() -> str:
    try:
        return re.sub(r"[^\w.@-]", "-", getpass.getuser())[:40] or "reviewer"
    except (KeyError, OSError):
        return "reviewer"


def serve_review_page(
    review: Review, name: str, port: int, no_browser: bool, console: Console
) -> None:
    """Serve the page until Ctrl-C, or until all answers are judged."""
    import threading
    import time
    import webbrowser

    from cloudft.errors import UsageError
    from cloudft.evaluate.human_review.review import Reviewer
    from cloudft.evaluate.human_review.review_server import ReviewServer

    reviewer = Reviewer(review, name)
    review.save()
    done = threading.Event()

    def judged() -> None:
        if len(reviewer.judgments) == len(reviewer.order):
            done.set()

    try:
        server = ReviewServer(reviewer, port, judged)
    except OSError as error:
        raise UsageError(
            f"the page can't be served on port {port}: {error.strerror}", fix="name another --port."
        ) from error
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        judged()
        click.echo(f"{name}: judge at {server.url} (Ctrl-C stops; nothing is lost)", err=True)
        if not no_browser:
            webbrowser.open(server.url)
        try:
            while not done.wait(0.5):
                pass
            time.sleep(LINGER_S)
        except KeyboardInterrupt:
            console.note("stopped; the judgments are saved")
        finally:
            server.shutdown()


def export_judgments(review: Review, out: Path) -> None:
    """Write the judgments. Raise UsageError for another suffix, or an existing file."""
    from cloudft.cli.output import json_text
    from cloudft.errors import UsageError
    from cloudft.evaluate.human_review.review import format_csv
    from cloudft.evaluate.report.pages import write_page

    rows = review.export_rows()
    if out.suffix not in (".csv", ".json"):
        raise UsageError(f"{out} is neither .csv nor .json", fix="name a .csv or .json file.")
    write_page(out, format_csv(rows) if out.suffix == ".csv" else json_text(rows), force=False)


def review_text(found: Mapping[str, Any]) -> str:
    """Return who won, with its interval, and how well the reviewers agree."""
    counts, rate, agreement = found["counts"], found["winRate"], found["agreement"]["value"]
    lines = [
        f"{found['judgements']} judgments of {found['judgedRecords']} of {found['records']} records"
        f" by {len(found['reviewers'])} reviewer(s)",
        f"judgments: {found['b']} better: {counts['b']}, {found['a']} better: {counts['a']}, equal:"
        f" {counts['tie']}, both bad: {counts['bad']}",
    ]
    if rate["value"] is not None:
        lines.append(
            f"{found['b']} wins {rate['value']:.0%} of {rate['decided']} decided records"
            f" (95 % interval {rate['low']:.0%} to {rate['high']:.0%})"
        )
    if agreement is not None:
        lines.append(f"agreement of the reviewers (Krippendorff's alpha): {agreement:.2f}")
    return "\n".join(lines)
