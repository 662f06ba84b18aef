"""evaluate: compare the tuned model with its base on held-out records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli import judging
from cloudft.cli.command import command
from cloudft.cli.engine_options import engine_options
from cloudft.cli.jobs import follow_job, open_job, use_inference_profile
from cloudft.cli.judging import JudgeOptions, judge_options
from cloudft.cli.number_format import format_interval, format_number, format_signed
from cloudft.cli.options import (
    Console,
    aws_options,
    console_options,
    inference_profile_option,
    job_argument,
)
from cloudft.cli.param_types import RECORDS, TOKENS
from cloudft.cli.progress import task_progress
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.evaluate.evaluate_job import EvaluationOptions
    from cloudft.evaluate.held_out import HeldOutData
    from cloudft.evaluate.results import DiagnosticResult, Evaluation, EvaluationWarning
    from cloudft.inference import GenerationConfig
    from cloudft.runtimes.engines import EngineChoice
    from cloudft.storage.store import JobRecord

OPTIONAL_METRICS = ("emptyShare", "cutShare", "refusalShare", "noLabelShare")
"""Metrics that the text omits while they are zero for both models."""
LEVEL_LABELS = {"good": "ok", "warning": "warn", "bad": "BAD"}


@command(
    "evaluate",
    epilog="\b\nExamples:\n  cloudft evaluate -\n"
    "  cloudft evaluate ticket-router --data held-out.jsonl --consistency\n"
    "  cloudft evaluate ticket-router --batch --inference-profile us\n"
    "  cloudft evaluate ticket-router --suite lm-eval:arc_easy --limit 200\n"
    "  cloudft evaluate ticket-router --answers answers.jsonl --output json\n"
    "  cloudft evaluate ticket-router --engine llama.cpp\n"
    "  cloudft evaluate ticket-router --engine openai:http://127.0.0.1:8000/v1\n"
    "  cloudft evaluate ticket-router --bedrock-job --metrics Correctness,Helpfulness",
)
@job_argument
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Held-out records; default: the job's test (or validation) data.",
)
@click.option(
    "--answers",
    type=click.Path(path_type=Path),
    help='Answers from elsewhere, one line per record: {"base": ..., "tuned": ...}.',
)
@click.option(
    "--batch",
    "batches",
    is_flag=True,
    help="Use batch inference: needs no deployment, may take hours (bedrock jobs).",
)
@click.option(
    "--task",
    type=click.Choice(["classification", "json", "text"]),
    help="Kind of the answers; default: detected from the data.",
)
@click.option(
    "--limit", type=RECORDS, help="Maximum number of records, spread evenly over the data."
)
@click.option("--max-new-tokens", type=TOKENS, help="Maximum tokens of an answer.")
@click.option(
    "--quick", is_flag=True, help="Leave out the diagnostics of forgetting and memorization."
)
@click.option("--consistency", is_flag=True, help="Repeat the prompts reworded, and with sampling.")
@click.option(
    "--learning-curve",
    "curve",
    is_flag=True,
    help="Train on 1/8, 1/4 and 1/2 of the data too: does more data help? (local jobs)",
)
@click.option(
    "--suite",
    "suites",
    multiple=True,
    metavar="lm-eval:TASK",
    help="Run an lm-eval task on both models too (local jobs); can be repeated.",
)
@click.option(
    "--suite-path",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with YAML files of your own lm-eval tasks.",
)
@engine_options
@judge_options
@click.option(
    "-y", "--yes", is_flag=True, help="Do not ask for confirmation before billed answers."
)
@inference_profile_option
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
    engine: EngineChoice | None,
    judge: JudgeOptions | None,
    yes: bool,
    inference_profile: str | None,
    console: Console,
) -> int:
    """Compare base and tuned model on the same held-out records: did tuning help?

    Both answer with greedy decoding and the same template. Each difference has a 95 % interval and
    a significance test. Answers are cached: a second run, also after Ctrl-C, adds new ones only.
    With --engine another runtime answers (API key: CLOUDFT_ENGINE_API_KEY or OPENAI_API_KEY).
    """
    from cloudft.evaluate import evaluate_job
    from cloudft.evaluate.diagnostics.run import DiagnosticOptions
    from cloudft.evaluate.evaluate_job import EvaluationOptions
    from cloudft.evaluate.held_out import load_held_out_data
    from cloudft.evaluate.lm_eval import parse_suite_names, run_suites

    parse_suite_names(suites)
    record, backend, _ = open_job(reference)
    use_inference_profile(backend, inference_profile, console)
    held = load_held_out_data(record, home := Home.from_environ(), data, limit or 0)
    judging.check_records(record, backend, held, judge)
    # Before anything is paid for; check and submit have warned of it too.
    _print_warnings(early := list(evaluate_job.find_data_warnings(held)), console)
    diagnostics = DiagnosticOptions(not quick, not quick, consistency)
    options = EvaluationOptions(task, max_new_tokens, answers, batches, diagnostics, engine)
    if judge is not None and judge.dry_run:
        judging.show_plan(record, backend, held, options, judge, console)
        return 0
    if _is_billed(record, backend, home, held, options, judge):
        judging.check_jobs(record, backend, held, judge)
        _confirm_answers(record, held, options, inference_profile, yes, console)
    with task_progress(console) as bars:
        evaluation = evaluate_job.evaluate_job(record, backend, home, held, options, bars)
        if suites:
            evaluation["suites"] = run_suites(
                record, backend, suites, include=suite_path, limit=limit, progress=bars
            )
        if curve:
            found = _run_learning_curve(record, backend, home, held, bars, console)
            evaluation["pitfalls"]["data"] = found
    evaluation = judging.judge_evaluation(
        record, backend, held, evaluation, judge, console, yes=yes
    )
    _save_and_print(record, evaluation, console, early)
    return 0


def _confirm_answers(
    record: JobRecord,
    held: HeldOutData,
    options: EvaluationOptions,
    profile: str | None,
    yes: bool,
    console: Console,
) -> None:
    """Print the price of the answers, and confirm. Raise click.Abort."""
    from cloudft.evaluate.evaluate_job import job_generation_config

    config = job_generation_config(record, held, options.max_new_tokens)
    confirm_cost(record, held, config, yes, console, batches=options.batches, profile=profile)


def _is_billed(
    record: JobRecord,
    backend: Backend,
    home: Home,
    held: HeldOutData,
    options: EvaluationOptions,
    judge: JudgeOptions | None,
) -> bool:
    """Return whether answers may be generated and paid for.

    With a judge, the second run of many finds every answer: then there is nothing to confirm.
    """
    from cloudft.evaluate.evaluate_job import count_missing_answers

    if options.answers is not None or not backend.inference_is_billed:
        return False
    return judge is None or count_missing_answers(record, backend, home, held, options) > 0


def _print_warnings(warnings: Iterable[EvaluationWarning], console: Console) -> None:
    for warning in warnings:
        console.note(f"warning: {warning['message']} [{warning['code']}]")


def _save_and_print(
    record: JobRecord,
    evaluation: Evaluation,
    console: Console,
    early: Sequence[EvaluationWarning],
) -> None:
    """Save the evaluation in the job's folder; print it with what earlier ones found.

    Its records are not printed, nor are the warnings that were printed `early`.
    """
    from cloudft.evaluate.history import load_combined_evaluation
    from cloudft.evaluate.results import save_evaluation
    from cloudft.jobs.trackers import start_feeding

    path = save_evaluation(record.folder, evaluation)
    start_feeding(record)  # the trackers get the figures, in the background
    evaluation = load_combined_evaluation(record.folder)
    shown = {name: value for name, value in evaluation.items() if name != "records"}
    _print_warnings((each for each in evaluation["warnings"] if each not in early), console)
    console.print_result({**shown, "file": path}, evaluation_text(evaluation))


def _run_learning_curve(
    record: JobRecord,
    backend: Backend,
    home: Home,
    held: HeldOutData,
    progress: Callable[[str, int, int], None],
    console: Console,
) -> DiagnosticResult:
    """Train jobs on parts of the data, and return whether more data helps."""
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
    profile: str | None = None,
) -> None:
    """Print the tokens and the price of the answers, and confirm. Raise click.Abort."""
    from cloudft.data.token_estimate import estimate_tokens
    from cloudft.inference import message_text

    size = sum(len(message_text(m)) for item in held.examples for m in item.prompt.messages)
    answers = sum(min(len(item.reference), 4 * decoding.max_new_tokens) for item in held.examples)
    input_tokens, output_tokens = estimate_tokens(size), estimate_tokens(answers)
    price = _price_text(record, input_tokens, output_tokens, profile)
    console.note(
        f"{len(held.examples)} records for two models on {record.backend}: about"
        f" {2 * input_tokens:,} input tokens, and {2 * output_tokens:,} or more output tokens:"
        f" {price}; cached answers are not generated again."
    )
    if batches:
        console.note(
            "one batch job per model; it may take hours. After Ctrl-C the job continues, and the"
            " same command follows it again. `aws bedrock stop-model-invocation-job"
            " --job-identifier NAME` stops it."
            " The account's quotas set the minimum number of records of a batch."
        )
    if not yes:
        click.confirm("generate them?", abort=True, err=True)


def _price_text(
    record: JobRecord, input_tokens: int, output_tokens: int, profile: str | None
) -> str:
    """Return as text what so many tokens of both models cost on demand.

    `profile` is the inference profile that the command requests for the base model.
    """
    from cloudft import catalogue
    from cloudft.backends.bedrock.inference_profiles import expected_model_id, requested_profile
    from cloudft.catalogue import cost
    from cloudft.errors import UnknownModel

    try:
        model = catalogue.find_model(record.base_model)
    except UnknownModel:
        return cost.NO_PRICE_KNOWN
    place: Mapping[str, str | None] = record.request.get("place", {})
    region = place.get("region")
    prices = model.prices_in(region)
    base_id = expected_model_id(model, region, profile or requested_profile(record.spec))
    usd = cost.inference_usd(prices, input_tokens, output_tokens, base_id=base_id)
    if usd is None or prices is None:
        return cost.NO_PRICE_KNOWN
    called = f", the base model by {base_id}" if catalogue.parse_profile(base_id) else ""
    source = prices.source_of("tuned_per_1k_tokens")
    return f"{usd:.4f} USD or more on demand{called} ({source})"


def evaluation_text(evaluation: Mapping[str, Any]) -> str:
    """Return the evaluation as text."""
    from cloudft.cli.output import format_table
    from cloudft.evaluate.results import describe_engine

    title = (
        f"{evaluation['job']}: base and tuned model on {evaluation['n']} held-out records"
        f" ({evaluation['task']})"
    )
    engine = describe_engine(evaluation)  # type: ignore[arg-type]
    if engine is not None:
        title += f"\nThe tuned model was answered for by {engine}."
    parts = [
        title,
        format_table(_metric_header(evaluation), metric_table_rows(evaluation)),
    ]
    omitted = evaluation.get("omitted") or ()
    parts += ["\n".join(_omitted_lines(omitted))] if omitted else []
    parts.append(evaluation["significance"]["sentence"])
    if evaluation["slices"]:
        names = ("SLICE", "RECORDS", "BASE", "TUNED", "DELTA", "95 % INTERVAL")
        parts.append(format_table(names, _slice_rows(evaluation["slices"])))
    if evaluation.get("suites"):
        head = ("SUITE", "METRIC", "RECORDS", "BASE", "TUNED", "DELTA", "95 % INTERVAL")
        parts.append(format_table(head, _suite_rows(evaluation["suites"])))
    if evaluation["pitfalls"]:
        parts.append("\n".join(_diagnostic_lines(evaluation["pitfalls"])))
    if evaluation.get("earlier"):
        head = ("EARLIER", "DATA", "RECORDS", "METRIC", "BASE", "TUNED", "95 % INTERVAL")
        parts.append(format_table(head, _earlier_rows(evaluation["earlier"])))
    return "\n\n".join(parts)


def _omitted_lines(omitted: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yield a line for each reason why metrics are left out, with their names."""
    from cloudft.evaluate.metrics.metric_labels import metric_label

    names: dict[str, list[str]] = {}
    for one in omitted:
        names.setdefault(one["reason"], []).append(metric_label(one["metric"]))
    for reason, metrics in names.items():
        yield f"{', '.join(metrics)} left out: {reason}."


def _metric_header(evaluation: Mapping[str, Any]) -> tuple[str, ...]:
    teacher = ("TEACHER",) if "teacher" in evaluation else ()
    return ("METRIC", "BASE", "TUNED", "DELTA", "95 % INTERVAL", *teacher)


def metric_table_rows(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the metrics as table rows, the headline metric first."""
    from cloudft.evaluate.metrics.metric_labels import metric_label

    teacher = evaluation.get("teacher")
    names = sorted(evaluation["base"], key=lambda name: name != evaluation["metric"])
    for name in names:
        base, tuned = evaluation["base"][name], evaluation["tuned"][name]
        if name in OPTIONAL_METRICS and not base and not tuned:
            continue
        delta = evaluation["delta"][name]
        yield (
            metric_label(name),
            format_number(base),
            format_number(tuned),
            format_signed(delta["value"]),
            format_interval(delta),
            *((format_number(teacher.get(name)),) if teacher is not None else ()),
        )


def _diagnostic_lines(diagnostics: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    from cloudft.evaluate.metrics.metric_labels import diagnostic_label

    for name, one in diagnostics.items():
        title = f"{diagnostic_label(name)}{_source_text(one)}"
        yield f"{LEVEL_LABELS[one['level']]:<5} {title}: {one['sentence']}"


def _source_text(finding: Mapping[str, Any]) -> str:
    """Return when and of what an earlier evaluation found something; nothing for this one."""
    if not finding.get("evaluatedAt"):
        return ""
    other = ", other records" if finding.get("otherRecords") else ""
    return f" ({finding['evaluatedAt'][:10]}{other})"


def _earlier_rows(earlier: list[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
    from cloudft.evaluate.metrics.metric_labels import metric_label

    for one in earlier:
        files = ", ".join(Path(file).name for file in one["data"].get("files", ()))
        by = f" by {one['engine']}" if one.get("engine") else ""
        yield (
            (one["evaluatedAt"] or "")[:10],
            (files or one["data"]["role"]) + by,
            one["n"],
            metric_label(one["metric"]),
            format_number(one["base"]),
            format_number(one["tuned"]),
            format_interval(one["delta"]),
        )


def _suite_rows(suites: list[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for one in suites:
        delta = one["delta"]
        values = (
            format_number(one["base"]),
            format_number(one["tuned"]),
            format_signed(delta["value"]),
        )
        order = " (lower is better)" if one.get("higherIsBetter") is False else ""
        yield (
            one["suite"] + _source_text(one),
            one["figure"] + order,
            one["n"],
            *values,
            format_interval(delta),
        )


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
