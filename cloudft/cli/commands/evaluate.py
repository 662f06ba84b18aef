"""evaluate: the tuned model against its base, on records that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import follow_job, open_job
from cloudft.cli.number_format import format_interval, format_number, format_signed
from cloudft.cli.options import Console, aws_options, console_options, job_argument
from cloudft.cli.param_types import RECORDS, TOKENS
from cloudft.cli.progress import task_progress
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.evaluate.held_out import HeldOutData
    from cloudft.evaluate.results import DiagnosticResult
    from cloudft.inference import GenerationConfig
    from cloudft.storage.store import JobRecord

OPTIONAL_METRICS = ("emptyShare", "cutShare", "refusalShare", "noLabelShare")
"""Metrics that the text leaves out while both are nothing."""
LEVEL_LABELS = {"good": "ok", "warning": "look", "bad": "BAD"}


@command(
    "evaluate",
    epilog="\b\nExamples:\n  cloudft evaluate -\n"
    "  cloudft evaluate ticket-router --data held-out.jsonl --consistency\n"
    "  cloudft evaluate ticket-router --batch\n"
    "  cloudft evaluate ticket-router --suite lm-eval:arc_easy --limit 200\n"
    "  cloudft evaluate ticket-router --answers answers.jsonl --output json",
)
@job_argument
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Held-out records; the job's own test (or validation) data if left out.",
)
@click.option(
    "--answers",
    type=click.Path(path_type=Path),
    help='Answers made elsewhere, a line a record: {"base": ..., "tuned": ...}.',
)
@click.option(
    "--batch",
    "batches",
    is_flag=True,
    help="Ask by batch inference: nothing needs to be deployed; it may take hours. (bedrock jobs)",
)
@click.option(
    "--task",
    type=click.Choice(["classification", "json", "text"]),
    help="What the answers are; found from the data if left out.",
)
@click.option("--limit", type=RECORDS, help="So many records at most, evenly spread.")
@click.option("--max-new-tokens", type=TOKENS, help="Of an answer at most.")
@click.option("--quick", is_flag=True, help="The scores alone: no general text, no memorising.")
@click.option("--consistency", is_flag=True, help="Ask again in other words, and by sampling.")
@click.option(
    "--learning-curve",
    "curve",
    is_flag=True,
    help="Train on 1/8, 1/4 and 1/2 of the data too: what would more of it buy? (local jobs)",
)
@click.option(
    "--suite",
    "suites",
    multiple=True,
    metavar="lm-eval:TASK",
    help="Run a task of EleutherAI's lm-eval on both models too (local jobs); may be repeated.",
)
@click.option(
    "--suite-path",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder with the YAML files of lm-eval tasks of your own.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask before answers that cost.")
@aws_options
@console_options
def evaluate_command(
    reference: str,
    data: Path | None,
    answers: Path | None,
    batches: bool,
    task: str | None,
    limit: int | None,
    max_new_tokens: int | None,
    quick: bool,
    consistency: bool,
    curve: bool,
    suites: tuple[str, ...],
    suite_path: Path | None,
    yes: bool,
    console: Console,
) -> int:
    """Ask base and tuned model the same held-out records, and say whether tuning helped.

    Greedy answers, one template, one scorer; each difference with its 95 % interval and a test.
    Answers are kept: a second run, or one after Ctrl-C, asks only what is new.
    """
    from cloudft.evaluate import evaluate_job
    from cloudft.evaluate.diagnostics.run import DiagnosticOptions
    from cloudft.evaluate.held_out import load_held_out_data
    from cloudft.evaluate.lm_eval import parse_suite_names
    from cloudft.evaluate.lm_eval import run_suites as run_suites
    from cloudft.evaluate.results import save_evaluation

    parse_suite_names(suites)
    record, backend, _ = open_job(reference)
    home = Home.from_environ()
    held = load_held_out_data(record, home, data, limit or 0)
    if answers is None and backend.inference_is_billed:
        decoding = evaluate_job.job_generation_config(record, held, max_new_tokens)
        confirm_cost(record, held, decoding, yes, console, batches=batches)
    with task_progress(console) as progress:
        found = evaluate_job.evaluate_job(
            record,
            backend,
            home,
            held,
            evaluate_job.EvaluationOptions(
                task=task,
                max_new_tokens=max_new_tokens,
                answers=answers,
                batches=batches,
                diagnostics=DiagnosticOptions(
                    forgetting=not quick, memorization=not quick, consistency=consistency
                ),
            ),
            progress,
        )
        if suites:
            found["suites"] = run_suites(
                record, backend, suites, include=suite_path, limit=limit, progress=progress
            )
        if curve:
            found["pitfalls"]["data"] = _run_learning_curve(
                record, backend, home, held, progress, console
            )
    path = save_evaluation(record.folder, found)
    shown = {name: value for name, value in found.items() if name != "records"}
    for warning in found["warnings"]:
        console.note(f"warning: {warning['message']} [{warning['code']}]")
    console.print_result({**shown, "file": path}, evaluation_text(found))
    return 0


def _run_learning_curve(
    record: JobRecord,
    backend: Backend,
    home: Home,
    held: HeldOutData,
    progress: Callable[[str, int, int], None],
    console: Console,
) -> DiagnosticResult:
    """The pitfall of too little data, from jobs on parts of it."""
    from cloudft.evaluate.diagnostics.learning_curve import run_learning_curve

    return run_learning_curve(
        record,
        backend,
        home,
        held,
        progress=progress,
        wait=lambda job: follow_job(job, backend, None, console),
    ).to_json()


def confirm_cost(
    record: JobRecord,
    held: HeldOutData,
    decoding: GenerationConfig,
    yes: bool,
    console: Console,
    *,
    batches: bool,
) -> None:
    """Say what the answers take, and ask. Raises click.Abort."""
    from cloudft.data.token_estimate import estimate_tokens

    size = sum(len(str(m["content"])) for item in held.examples for m in item.prompt.messages)
    answers = sum(min(len(item.reference), 4 * decoding.max_new_tokens) for item in held.examples)
    asked, said = estimate_tokens(size), estimate_tokens(answers)
    price = _price_text(record, asked, said)
    console.note(
        f"{len(held.examples)} records to two models on {record.backend}: about {2 * asked:,} input"
        f" tokens, and {2 * said:,} or more output tokens: {price}; answers"
        " that are known already are not asked again."
    )
    if batches:
        console.note(
            "one batch job a model, followed here: it may take hours. Ctrl-C leaves it to go on,"
            " and the same command finds it again. `aws bedrock stop-model-invocation-job"
            " --job-identifier NAME` ends it."
            " The account's quotas name the fewest records that a batch may have."
        )
    if not yes:
        click.confirm("ask them?", abort=True, err=True)


def _price_text(record: JobRecord, asked: int, said: int) -> str:
    """What so many tokens of both models cost on demand, in words."""
    from cloudft import catalogue
    from cloudft.catalogue import cost
    from cloudft.errors import UnknownModel

    try:
        model = catalogue.find_model(record.base_model)
    except UnknownModel:
        return cost.NO_PRICE_KNOWN
    usd = cost.inference_usd(model, asked, said)
    if usd is None or model.prices is None:
        return cost.NO_PRICE_KNOWN
    return f"{usd:.4f} USD or more on demand ({model.prices.source})"


def evaluation_text(found: Mapping[str, Any]) -> str:
    """The evaluation as a person reads it."""
    from cloudft.cli.output import format_table

    title = f"{found['job']}: base against tuned on {found['n']} held-out records ({found['task']})"
    parts = [
        title,
        format_table(
            ("METRIC", "BASE", "TUNED", "DELTA", "95 % INTERVAL"), metric_table_rows(found)
        ),
    ]
    parts.append(found["significance"]["sentence"])
    if found["slices"]:
        names = ("SLICE", "RECORDS", "BASE", "TUNED", "DELTA", "95 % INTERVAL")
        parts.append(format_table(names, _slice_rows(found["slices"])))
    if found.get("suites"):
        head = ("SUITE", "FIGURE", "RECORDS", "BASE", "TUNED", "DELTA", "95 % INTERVAL")
        parts.append(format_table(head, _suite_rows(found["suites"])))
    if found["pitfalls"]:
        parts.append(
            "\n".join(
                f"{LEVEL_LABELS[p['level']]:<5} {name}: {p['sentence']}"
                for name, p in found["pitfalls"].items()
            )
        )
    return "\n\n".join(parts)


def metric_table_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The metrics as a table's rows, the headline first."""
    names = sorted(found["base"], key=lambda name: name != found["metric"])
    for name in names:
        base, tuned = found["base"][name], found["tuned"][name]
        if name in OPTIONAL_METRICS and not base and not tuned:
            continue
        delta = found["delta"][name]
        yield (
            name,
            format_number(base),
            format_number(tuned),
            format_signed(delta["value"]),
            format_interval(delta),
        )


def _suite_rows(suites: list[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for one in suites:
        delta = one["delta"]
        values = (
            format_number(one["base"]),
            format_number(one["tuned"]),
            format_signed(delta["value"]),
        )
        yield (one["suite"], one["figure"], one["n"], *values, format_interval(delta))


def _slice_rows(slices: list[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for part in slices:
        delta = part["delta"]
        name = f"{part['by']}: {part['value'][:40]}"
        values = (
            format_number(part["base"]),
            format_number(part["tuned"]),
            format_signed(delta["value"]),
        )
        yield (name, part["n"], *values, format_interval(delta))
