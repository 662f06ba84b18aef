"""submit: start a job, and with --wait follow it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.commands.plan import print_plan
from cloudft.cli.job_file import load_job_file
from cloudft.cli.options import (
    Console,
    aws_options,
    backend_option,
    console_options,
    job_file_argument,
    spec_options,
)
from cloudft.cli.param_types import SECONDS, USD
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.jobs.lifecycle import Job
    from cloudft.spec.load import LoadedJob
    from cloudft.types import Estimate


@command(
    "submit",
    epilog="\b\nExamples:\n  cloudft submit --wait\n"
    "  cloudft submit router.yaml --set hyperparameters.epochCount=1 --output json\n"
    "  cloudft submit --dry-run\n"
    "  cloudft submit --backend bedrock --wait --max-cost 50\n"
    "  cloudft submit --backend bedrock --via-stack\n"
    "  cloudft submit --backend sagemaker --wait --then import",
)
@job_file_argument
@backend_option
@spec_options
@click.option("--dry-run", is_flag=True, help="Print the plan and start nothing.")
@click.option("--wait", is_flag=True, help="Follow the job until it ends.")
@click.option(
    "--timeout", type=SECONDS, metavar="SECONDS", help="With --wait: exit 124 after this."
)
@click.option("--again", is_flag=True, help="Start another job even if this one runs or is done.")
@click.option("--max-cost", type=USD, metavar="USD", help="Refuse above this; like budget_usd.")
@click.option(
    "--then",
    "then",
    type=click.Choice(["import"]),
    help="With --wait: when it has Completed, import its model into Bedrock (docs/how-to/import-into-bedrock.md).",
)
@click.option("--queue", is_flag=True, help="Wait while the account runs as many jobs as it may.")
@click.option(
    "--via-stack",
    is_flag=True,
    help="Let the account's own state machine create the job; like bedrock.via_stack.",
)
@aws_options
@console_options
def submit_command(
    path: Path | None,
    backend_name: str,
    flags: dict[str, str],
    dry_run: bool,
    wait: bool,
    timeout: float | None,
    again: bool,
    max_cost: float | None,
    then: str | None,
    queue: bool,
    via_stack: bool,
    console: Console,
) -> int:
    """Start a job and print it.

    The job runs in a process of its own, or in the cloud: closing the terminal does not end it.
    The same job submitted twice is one job, unless the first one failed or was stopped, or --again
    is given.
    """
    from cloudft.backends import make_backend

    if not wait and (timeout is not None or then is not None):
        raise click.UsageError(f"--{'then' if timeout is None else 'timeout'} needs --wait")
    if via_stack and backend_name != "bedrock":
        raise click.UsageError("--via-stack needs --backend bedrock")
    more = {} if max_cost is None else {"budget_usd": str(max_cost)}
    if via_stack:
        more["bedrock.via_stack"] = "true"
    job_file = load_job_file(path, flags | more)
    if queue and job_file.spec.bedrock.via_stack:
        raise click.UsageError("--queue has no meaning by the stack: its machine waits by itself")
    if dry_run:
        print_plan(job_file, backend_name, console, then)
        return 0
    backend = make_backend(backend_name, Home.from_environ()).for_job(job_file)
    job = _submit(job_file, backend, console, again=again, queue=queue, then=then)
    if wait:
        return _follow_submitted(job, backend, timeout, then, console)
    _print_started(job, console)
    return 0


def _submit(
    job_file: LoadedJob,
    chosen: Backend,
    console: Console,
    *,
    again: bool,
    queue: bool,
    then: str | None,
) -> Job:
    """Stage and submit; what is to come `then` is checked before anything is sent."""
    from cloudft.cli.commands import import_
    from cloudft.cli.output import print_findings
    from cloudft.cli.progress import run_observer
    from cloudft.jobs import lifecycle, prepare
    from cloudft.storage.store import Store

    home = Home.from_environ()
    with run_observer(console) as observer:
        staged, warnings = prepare.prepare(job_file, chosen, home, observer)
    print_findings(warnings)
    if then:
        import_.check_import(job_file, chosen, console)
    with run_observer(
        console,
        on_estimate=lambda estimate: _print_cost(estimate, job_file, chosen, console),
        queue=queue,
    ) as observer:
        return lifecycle.submit(
            staged, chosen, Store(home.jobs), force_new=again, observer=observer
        )


def _follow_submitted(
    job: Job, backend: Backend, timeout: float | None, then: str | None, console: Console
) -> int:
    """Follow it to its end, and what comes `then`; the exit code."""
    from cloudft.cli.commands import import_
    from cloudft.cli.jobs import exit_code_of, follow_job, print_job

    job = follow_job(job, backend, timeout, console)
    if then and job.state.status == "Completed":
        job = import_.import_completed_job(job.record, backend, timeout, console)
    print_job(job, console)
    return exit_code_of(job)


def _print_started(job: Job, console: Console) -> None:
    note = f"`cloudft watch {job.record.id}` follows it, `cloudft stop {job.record.id}` ends it."
    if job.state.status == "Completed":
        note = "this very job is Completed already; --again starts another."
    warn_not_described(job)
    queued = ", queued in the account" if job.state.summary.get("queuedIn") else ""
    console.note(f"{job.state.status}{queued}: {note}")
    console.print_result(job.to_json(), job.record.id)


def warn_not_described(job: Job) -> None:
    """Warn of a job that was created and could not be looked at since."""
    if job.describe_error is not None:
        what = f"warning: {job.record.id} was created, but {job.describe_error.message}"
        click.echo(f"{what}\n  fix: {job.describe_error.fix}", err=True)


def _print_cost(estimate: Estimate, job: LoadedJob, backend: Backend, console: Console) -> None:
    """What the training will cost, where it costs, and who pays."""
    from cloudft.backends.capabilities import SupportsIdentity
    from cloudft.catalogue import cost
    from cloudft.cli.output import identity_line
    from cloudft.jobs import prepare

    usd = estimate.usd["training"]
    if usd == 0:
        return
    about = "at most" if estimate.at_most else "about"
    amount = "an unknown price" if usd is None else f"{about} {cost.format_usd(usd)}"
    tokens = f": {estimate.train_tokens:,} tokens x {estimate.epochs} epochs"
    basis = "" if estimate.at_most else tokens
    console.note(f"training costs {amount}{basis} ({estimate.price_source})")
    if usd is None:
        console.note(f"  fix: {prepare.price_remedy(estimate, 'so that a budget can be held')}")
    if isinstance(backend, SupportsIdentity):
        console.note(identity_line(backend.get_identity(job)))
