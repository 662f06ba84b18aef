"""submit: start a job, and with --wait follow it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import RenamedOption, command
from cloudft.cli.commands.plan import print_plan
from cloudft.cli.job_file import load_job_file
from cloudft.cli.options import (
    Console,
    aws_options,
    backend_option,
    console_options,
    force_new_option,
    job_file_argument,
    spec_options,
    wait_timeout_option,
)
from cloudft.cli.param_types import USD
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
    "  cloudft submit --backend bedrock --via-state-machine\n"
    "  cloudft submit --backend sagemaker --wait --import",
)
@job_file_argument
@backend_option
@spec_options
@click.option("--dry-run", is_flag=True, help="Print the plan and start nothing.")
@click.option("--wait", is_flag=True, help="Follow the job until it ends.")
@wait_timeout_option
@force_new_option
@click.option(
    "--max-cost",
    type=USD,
    metavar="USD",
    help="Refuse to submit above this cost; overrides budget_usd of the job file.",
)
@click.option(
    "--import",
    "import_after",
    is_flag=True,
    help="With --wait: import the model of the Completed job into Bedrock.",
)
@click.option("--then", type=click.Choice(["import"]), hidden=True)
@click.option("--queue", is_flag=True, help="Wait while the account's quota of jobs is used up.")
@click.option(
    "--via-state-machine",
    "via_state_machine",
    cls=RenamedOption,
    old_names=["--via-stack"],
    is_flag=True,
    help="Have the state machine of the stack create the job (bedrock.via_stack).",
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
    force_new: bool,
    max_cost: float | None,
    import_after: bool,
    then: str | None,
    queue: bool,
    via_state_machine: bool,
    console: Console,
) -> int:
    """Start a job and print it.

    The job runs in a process of its own, or in the cloud: closing the terminal does not end it.
    Submitting the same job again returns that job, unless it Failed or was Stopped, or with
    --force-new.
    """
    from cloudft.backends import make_backend, start_early

    import_after = import_after or then == "import"  # `--then import` is the old spelling
    if not wait and (timeout is not None or import_after):
        raise click.UsageError(f"--{'import' if timeout is None else 'timeout'} needs --wait")
    if via_state_machine and backend_name != "bedrock":
        raise click.UsageError("--via-state-machine needs --backend bedrock")
    more = {} if max_cost is None else {"budget_usd": str(max_cost)}
    if via_state_machine:
        more["bedrock.via_stack"] = "true"
    if dry_run:
        job_file = _load_job(path, flags | more, queue=queue)
        print_plan(job_file, backend_name, console, import_after=import_after)
        return 0
    with start_early(backend_name):
        job_file = _load_job(path, flags | more, queue=queue)
        # Here, because it imports much: the process that was just started runs meanwhile.
        from cloudft.backends.capabilities import warm_start

        backend = make_backend(backend_name, Home.from_environ()).for_job(job_file)
        with warm_start(backend, job_file):
            job = _submit(
                job_file,
                backend,
                console,
                force_new=force_new,
                queue=queue,
                import_after=import_after,
            )
    if wait:
        return _follow_submitted(job, backend, timeout, import_after, console)
    _print_started(job, console)
    return 0


def _load_job(path: Path | None, flags: dict[str, str], *, queue: bool) -> LoadedJob:
    job_file = load_job_file(path, flags)
    if queue and job_file.spec.bedrock.via_stack:
        raise click.UsageError(
            "leave out --queue: the state machine of the stack waits for the quota itself"
        )
    return job_file


def _submit(
    job_file: LoadedJob,
    backend: Backend,
    console: Console,
    *,
    force_new: bool,
    queue: bool,
    import_after: bool,
) -> Job:
    """Stage the data and submit the job. An import after it is checked before anything is sent."""
    from cloudft.cli.commands import import_
    from cloudft.cli.output import print_findings
    from cloudft.cli.progress import run_observer
    from cloudft.jobs import lifecycle, prepare, trackers
    from cloudft.storage.store import Store

    home = Home.from_environ()
    with run_observer(console) as observer:
        staged, warnings = prepare.prepare(job_file, backend, home, observer)
    print_findings(warnings)
    if import_after:
        import_.check_import(job_file, backend, console)
    with run_observer(
        console,
        on_estimate=lambda estimate: _print_cost(estimate, job_file, backend, console),
        queue=queue,
    ) as observer:
        job = lifecycle.submit(
            staged, backend, Store(home.jobs), force_new=force_new, observer=observer
        )
    trackers.begin_tracking(job.record, job_file)
    return job


def _follow_submitted(
    job: Job, backend: Backend, timeout: float | None, import_after: bool, console: Console
) -> int:
    """Follow a job until it ends, then its import. Return the exit code."""
    from cloudft.cli.commands import import_
    from cloudft.cli.jobs import exit_code_of, follow_job, print_job

    job = follow_job(job, backend, timeout, console)
    if import_after and job.state.status == "Completed":
        job = import_.import_completed_job(job.record, backend, timeout, console)
    print_job(job, console)
    if job.state.status == "Completed":
        console.note(f"next: `cloudft evaluate {job.record.id}` shows whether tuning helped.")
    return exit_code_of(job)


def _print_started(job: Job, console: Console) -> None:
    note = f"`cloudft watch {job.record.id}` follows it, `cloudft stop {job.record.id}` stops it."
    if job.state.status == "Completed":
        note = "this job is Completed already; --force-new starts another."
    warn_not_described(job)
    queued = ", queued in the account" if job.state.summary.get("queuedIn") else ""
    console.note(f"{job.state.status}{queued}: {note}")
    console.print_result(job.to_json(), job.record.id)


def warn_not_described(job: Job) -> None:
    """Warn of a job that was created but could not be read since."""
    if job.describe_error is not None:
        what = f"warning: {job.record.id} was created, but {job.describe_error.message}"
        click.echo(f"{what}\n  fix: {job.describe_error.fix}", err=True)


def _print_cost(estimate: Estimate, job: LoadedJob, backend: Backend, console: Console) -> None:
    """Print what the training costs, with what limits that, and the identity that pays.

    Print nothing if it is free.
    """
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
    for note in estimate.notes:  # such as that a bound needs a process that watches
        console.note(f"  note: {note}")
    if usd is None:
        console.note(f"  fix: {prepare.price_remedy(estimate, 'so that a budget can be held')}")
    if isinstance(backend, SupportsIdentity):
        console.note(identity_line(backend.get_identity(job)))
