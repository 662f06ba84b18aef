"""review: have people judge two models' answers blind."""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.options import Console, aws_options, complete_job, console_options
from cloudft.cli.param_types import PORT, RECORDS, SEED
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.evaluate.compare import ModelResult
    from cloudft.evaluate.human_review.review import Review, Side

BASE = "base"
SIDES: tuple[Side, Side] = ("a", "b")
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
    evaluate`; those that its token limit has cut are continued first (jobs of this machine).
    """
    from cloudft.cli.commands.compare import model_results
    from cloudft.evaluate.human_review.review import Review

    first, second = model_results(references)
    review = Review(Home.from_environ().reviews, first, second, sample=sample or 0, seed=seed)
    if out is not None:
        export_judgments(review, out)
        console.note(f"wrote {out}")
    elif not results:
        continue_cut_answers(review, references, (first, second), console)
        serve_review_page(review, reviewer or _default_reviewer(), port, no_browser, console)
    found = review.summarize()
    console.print_result(found, review_text(found))
    return 0


def continue_cut_answers(
    review: Review,
    references: tuple[str, str],
    results: tuple[ModelResult, ModelResult],
    console: Console,
) -> None:
    """Replace answers that a token limit has cut, before the first judgment.

    The messages count the answers of both sides together: the reviewer reads them.
    """
    from cloudft.errors import CloudftError

    limit = review.token_limit
    if limit is not None and review.whole is None and not review.load_judgments():
        named = next(name for name in references if name != BASE)
        whole: dict[Side, dict[str, str]] = {}
        try:
            for side, name, result in zip(SIDES, references, results, strict=True):
                job = named if name == BASE else name
                whole[side] = _whole_answers(job, result, review.cut_keys(side), limit, console)
        except CloudftError as error:
            console.note(f"answers that were cut can't be continued: {error.message}")
        if any(whole.values()):
            review.save_whole(whole)
    count = sum(len(review.cut_keys(side)) for side in SIDES)
    if count:
        longer = f"--max-new-tokens {limit}" if limit else "a higher token limit"
        console.note(
            f"{count} of {2 * len(review.pairs)} answers were cut at the token limit of their"
            " evaluation and are shown up to their last sentence; for whole answers evaluate both"
            f" with {longer} first"
        )


def _whole_answers(
    job: str, result: ModelResult, keys: list[str], limit: int, console: Console
) -> dict[str, str]:
    """Return answers of a model on this machine, by record key; none where inference is billed."""
    from cloudft.cli.progress import task_progress
    from cloudft.evaluate.evaluate_job import open_session
    from cloudft.evaluate.human_review.whole_answers import generate_whole_answers, load_prompts

    record, backend, _ = open_job(job)
    if not keys or backend.inference_is_billed:
        return {}
    home = Home.from_environ()
    prompts = load_prompts(record, home, result.evaluation, keys)
    console.note("generating whole answers where they were cut ...")
    with task_progress(console) as progress:
        return generate_whole_answers(
            open_session(record, backend),
            home,
            result.variant,
            prompts,
            limit,
            lambda label, done, total: progress("answers", done, total),
        )


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
