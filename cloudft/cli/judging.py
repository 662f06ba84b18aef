"""`evaluate --bedrock-job`: have a judge model score the answers, by evaluation jobs on Bedrock."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from cloudft.cli.options import Console
from cloudft.cli.param_types import USD
from cloudft.cli.progress import task_progress
from cloudft.errors import UsageError
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.backends.capabilities import SupportsEvaluationJobs
    from cloudft.backends.evaluation_jobs import EvaluationPlan, JudgeSettings
    from cloudft.evaluate.evaluate_job import EvaluationOptions
    from cloudft.evaluate.held_out import HeldOutData
    from cloudft.evaluate.judged import JudgingCost
    from cloudft.evaluate.results import Evaluation
    from cloudft.storage.store import JobRecord

Function = TypeVar("Function", bound=Callable[..., Any])
STOP_COMMAND = "aws bedrock stop-evaluation-job --job-identifier ARN"


@dataclass(frozen=True)
class JudgeOptions:
    """What the options of `evaluate` say about the judge. `max_cost` is in USD."""

    settings: JudgeSettings
    max_cost: float | None
    dry_run: bool


def judge_options(function: Function) -> Function:
    """Add the options of evaluation jobs. The command gets them as `judge`; None without a job."""

    @functools.wraps(function)
    def with_judge(
        *,
        by_job: bool,
        metrics: str | None,
        judge_model: str | None,
        max_cost: float | None,
        dry_run: bool,
        **others: Any,
    ) -> Any:
        options = None
        if by_job:
            options = _parse_options(metrics, judge_model, max_cost, dry_run)
        else:
            _refuse(metrics=metrics, judge=judge_model, max_cost=max_cost, dry_run=dry_run)
        return function(judge=options, **others)

    for option in (
        click.option(
            "--dry-run",
            is_flag=True,
            help="With --bedrock-job: print its requests and their price; start nothing.",
        ),
        click.option(
            "--max-cost",
            type=USD,
            metavar="USD",
            help="Refuse a judge above this cost; default: budget_usd of the job file.",
        ),
        click.option(
            "--judge",
            "judge_model",
            metavar="MODEL",
            help="The judge model; default: amazon.nova-pro-v1:0.",
        ),
        click.option(
            "--metrics",
            metavar="NAME,...",
            help="What the judge scores, such as Correctness,Helpfulness; default: Correctness.",
        ),
        click.option(
            "--bedrock-job",
            "by_job",
            is_flag=True,
            help="Also have a judge model score the answers, by evaluation jobs on Bedrock"
            " (bedrock jobs).",
        ),
    ):
        with_judge = option(with_judge)
    return cast("Function", with_judge)


def _parse_options(
    metrics: str | None, judge: str | None, max_cost: float | None, dry_run: bool
) -> JudgeOptions:
    """Return the options. Raise UsageError for an unknown metric, and for no judge."""
    from cloudft.backends.evaluation_jobs import JudgeSettings
    from cloudft.catalogue.evaluation_metrics import DEFAULT_JUDGE, resolve_judge
    from cloudft.evaluate.judged import parse_metrics

    settings = JudgeSettings(parse_metrics(metrics), judge or DEFAULT_JUDGE)
    resolve_judge(settings.judge, "")
    return JudgeOptions(settings, max_cost, dry_run)


def _refuse(**options: object) -> None:
    """Raise UsageError for an option that has no meaning without `--bedrock-job`."""
    for name, value in options.items():
        if value:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{flag} needs --bedrock-job", field=flag, fix="add --bedrock-job, or omit it."
            )


def check_records(
    record: JobRecord, backend: Backend, held: HeldOutData, options: JudgeOptions | None
) -> None:
    """Raise an error for what can't be judged, or be looked up, before an answer is paid for.

    Without options nothing is judged.
    """
    from cloudft.evaluate import judged

    if options is None:
        return
    judged.require_evaluation_jobs(record, backend)
    judged.expected_answers(held)


def check_jobs(
    record: JobRecord, backend: Backend, held: HeldOutData, options: JudgeOptions | None
) -> None:
    """Check price, role and permissions of the evaluation jobs before answers are paid for.

    The price is that of answers like the references. Raise OverBudget, CheckFailed.
    """
    from cloudft.evaluate import judged

    if options is None:
        return
    server = judged.require_evaluation_jobs(record, backend)
    answers = judged.expected_answers(held)
    plan = server.plan_evaluation(_backend_id(record), answers, options.settings)
    price = judged.estimate_judging(plan, answers)
    judged.check_judging_budget(price, _cost_limit(record, options))
    _check_account(server, _backend_id(record), plan)


def _check_account(server: SupportsEvaluationJobs, job_id: str, plan: EvaluationPlan) -> None:
    """Print what the account says of the jobs. Raise CheckFailed for what it would refuse."""
    from cloudft.cli.output import print_findings
    from cloudft.errors import CheckFailed

    findings = server.check_evaluation(job_id, plan)
    if any(finding.severity == "error" for finding in findings):
        raise CheckFailed("the evaluation jobs would fail; nothing was created", findings)
    print_findings(findings)


def judge_evaluation(
    record: JobRecord,
    backend: Backend,
    held: HeldOutData,
    evaluation: Evaluation,
    options: JudgeOptions | None,
    console: Console,
    *,
    yes: bool,
) -> Evaluation:
    """Return the evaluation with the judgments, by jobs that exist or that are created now.

    Without options it is returned as it is. Whatever happens to the jobs, the evaluation without
    them is saved. Print the price and confirm before a job is created. Raise click.Abort,
    OverBudget, CheckFailed.
    """
    from cloudft.evaluate import judged
    from cloudft.evaluate.results import save_evaluation

    if options is None:
        return evaluation
    save_evaluation(record.folder, evaluation)
    server, job_id = judged.require_evaluation_jobs(record, backend), _backend_id(record)
    answers = judged.answers_to_judge(held, evaluation)
    plan = server.plan_evaluation(job_id, answers, options.settings)
    price = judged.estimate_judging(plan, answers)
    if plan.new_jobs:
        judged.check_judging_budget(price, _cost_limit(record, options))
        _check_account(server, job_id, plan)
        console.note(price_text(plan, price))
        if not yes:
            click.confirm("create them?", abort=True, err=True)
    _note_jobs(plan, console)
    with task_progress(console) as progress:
        results = server.run_evaluation(job_id, plan, progress)
    return judged.with_judgments(evaluation, plan, results)


def _backend_id(record: JobRecord) -> str:
    return record.backend_job_id or record.id


def _cost_limit(record: JobRecord, options: JudgeOptions) -> float | None:
    """Return what the judge may cost: `--max-cost`, else budget_usd of the job file."""
    from cloudft.evaluate.held_out import spec_from_record

    spec = spec_from_record(record)
    budget = spec.budget_usd if spec else None
    return budget if options.max_cost is None else options.max_cost


def price_text(plan: EvaluationPlan, price: JudgingCost) -> str:
    """Return what will be created, and what the judge costs."""
    from cloudft.catalogue.cost import NO_PRICE_KNOWN, format_usd

    amount = NO_PRICE_KNOWN
    if price.usd is not None:
        amount = f"about {format_usd(price.usd, 4)} on demand ({price.source})"
    return (
        f"{len(plan.new_jobs)} evaluation jobs, {price.judgments:,} judgments"
        f" ({', '.join(plan.settings.metrics)}) by {plan.settings.judge}: about"
        f" {price.input_tokens:,} input tokens and {price.output_tokens:,} output tokens (how long"
        f" its explanations are is not documented): {amount}"
    )


def _note_jobs(plan: EvaluationPlan, console: Console) -> None:
    for job in plan.jobs:
        if job.existing:
            console.note(f"{job.variant}: the evaluation job exists already ({job.existing})")
    if plan.new_jobs:
        console.note(
            "an evaluation job takes minutes. After Ctrl-C it continues, and the same command"
            f" follows it again. `{STOP_COMMAND}` stops one; `cloudft ps` lists those that run."
        )


def show_plan(
    record: JobRecord,
    backend: Backend,
    held: HeldOutData,
    options: EvaluationOptions,
    judge: JudgeOptions,
    console: Console,
) -> None:
    """Print the requests of the evaluation jobs and their price; create and generate nothing.

    The requests follow from the answers: where some are not cached, only the price is shown, for
    answers like the references.
    """
    from cloudft.cli.output import json_text
    from cloudft.evaluate import evaluate_job, judged
    from cloudft.evaluate.diagnostics.run import DiagnosticOptions

    server, home = judged.require_evaluation_jobs(record, backend), Home.from_environ()
    missing = evaluate_job.count_missing_answers(record, backend, home, held, options)
    answers = judged.expected_answers(held)
    if not missing:
        quick = replace(options, diagnostics=DiagnosticOptions(False, False, False))
        evaluation = evaluate_job.evaluate_job(record, backend, home, held, quick)
        answers = judged.answers_to_judge(held, evaluation)
    plan = server.plan_evaluation(_backend_id(record), answers, judge.settings)
    price = judged.estimate_judging(plan, answers)
    calls: list[Mapping[str, Any]] = [] if missing else [job_to_json(plan, n) for n in (0, 1)]
    content = {
        "missingAnswers": missing,
        "jobs": calls,
        "judge": plan.settings.judge,
        "metrics": plan.settings.metrics,
        "judgments": price.judgments,
        "inputTokens": price.input_tokens,
        "outputTokens": price.output_tokens,
        "usd": price.usd,
        "priceSource": price.source,
    }
    text = price_text(plan, price)
    if missing:
        plural = "" if missing == 1 else "s"
        text = f"{missing} answer{plural} would be generated first.\n{text}"
    console.print_result(content, "\n".join([*map(json_text, calls), text]))


def job_to_json(plan: EvaluationPlan, index: int) -> dict[str, Any]:
    """Return one job of a plan as JSON: the call, its dataset, and the job that exists already."""
    job = plan.jobs[index]
    return {
        "variant": job.variant,
        "exists": job.existing,
        "dataset": {"uri": job.dataset_uri, "bytes": len(job.dataset)},
        "call": {
            "service": "bedrock",
            "operation": "create_evaluation_job",
            "parameters": job.parameters,
        },
    }
