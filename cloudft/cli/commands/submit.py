"""check, plan, submit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.cli.options import (
    Console,
    backend_option,
    console_options,
    job_file_argument,
    spec_options,
    use_aws_profile,
)
from cloudft.cli.param_types import SECONDS, USD
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.errors import CloudftError
    from cloudft.jobs.lifecycle import Job
    from cloudft.spec.load import LoadedJob
    from cloudft.types import Estimate


def load_job_file(path: Path | None, flags: dict[str, str]) -> LoadedJob:
    """The job file with flags and environment laid over it.

    A profile that it names is this process's from then on, so that data in S3 is read by the same
    identity.
    """
    from cloudft.spec.load import load_job

    job = load_job(path, flags=flags, environ=os.environ)
    profiles = {job.spec.bedrock.profile, job.spec.sagemaker.profile} - {None}
    if len(profiles) == 1:
        use_aws_profile(str(profiles.pop()))
    return job


@click.command(
    "check",
    epilog="\b\nExamples:\n  cloudft check\n  cloudft check jobs/router.yaml --output json\n"
    "  cloudft check --fix mended",
)
@job_file_argument
@backend_option
@spec_options
@click.option(
    "--fix",
    "fix_into",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write mended copies of broken JSONL files into DIR; the originals stay as they are.",
)
@console_options
def check_command(
    path: Path | None,
    backend_name: str,
    flags: dict[str, str],
    fix_into: Path | None,
    console: Console,
) -> int:
    """Find every problem of a job before anything is sent.

    Checks the job file, the data and this machine; each finding names file, line, field and remedy.
    Exit code 3 when there are errors, 5 when the account could not be reached.
    """
    from cloudft.backends import make_backend
    from cloudft.cli.output import findings_text
    from cloudft.cli.progress import record_counter
    from cloudft.cli.repair_files import write_repaired_files
    from cloudft.data.token_estimate import TOKEN_ESTIMATE_RULE
    from cloudft.jobs import prepare

    local = make_backend(backend_name, Home.from_environ())
    job = load_job_file(path, flags)
    with record_counter(console) as progress:
        checked = prepare.check(job, local, progress)
    fixed = write_repaired_files(job, checked.findings, fix_into, console) if fix_into else []
    volumes = checked.volumes or {}
    counts = {role: volume.records for role, volume in volumes.items()}
    tokens = sum(volume.tokens for volume in volumes.values())
    text = findings_text(checked.findings)
    if checked.ok:
        summary = ", ".join(f"{count} {role}" for role, count in counts.items())
        text = f"{text}\nok: {summary} records, about {tokens} tokens".lstrip()
    console.print_result(
        {
            "ok": checked.ok,
            "findings": list(checked.findings),
            "records": counts,
            "tokens": tokens,
            "tokenRule": TOKEN_ESTIMATE_RULE if volumes else None,
            "fixed": fixed,
        },
        text,
    )
    return checked.exit_code


@click.command("plan", epilog="\b\nExample:\n  cloudft plan --output json > plan.json")
@job_file_argument
@backend_option
@spec_options
@console_options
def plan_command(
    path: Path | None, backend_name: str, flags: dict[str, str], console: Console
) -> int:
    """Print the exact request that submit would send, with its token, cost and files."""
    print_plan(load_job_file(path, flags), backend_name, console)
    return 0


def print_plan(
    job: LoadedJob, backend_name: str, console: Console, then: str | None = None
) -> None:
    """Stage the data and print the plan; nothing is started. What comes `then` is checked too."""
    from cloudft.backends import make_backend
    from cloudft.backends.capabilities import SupportsIdentity
    from cloudft.cli.commands import import_
    from cloudft.cli.output import identity_line, json_text, print_findings
    from cloudft.cli.progress import record_counter
    from cloudft.jobs import prepare
    from cloudft.types import to_json

    home = Home.from_environ()
    chosen = make_backend(backend_name, home)
    with record_counter(console) as progress:
        staged, warnings = prepare.prepare(job, chosen, home, progress)
    print_findings(warnings)
    if then:
        import_.check_import(job, chosen, console)
    plan = chosen.plan(staged)
    prepare.check_budget(job, plan)
    value = to_json(plan)
    if isinstance(chosen, SupportsIdentity):
        identity = chosen.get_identity(job)
        console.note(identity_line(identity))
        value |= {"identity": to_json(identity)}
    console.print_result(value, json_text(value))


@click.command(
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
    help="With --wait: when it has Completed, import its model into Bedrock (docs/import.md).",
)
@click.option("--queue", is_flag=True, help="Wait while the account runs as many jobs as it may.")
@click.option(
    "--via-stack",
    is_flag=True,
    help="Let the account's own state machine create the job; like bedrock.via_stack.",
)
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
    job = _submit(job_file, backend_name, console, again=again, queue=queue, then=then)
    if wait:
        return _follow_submitted(job, timeout, then, console)
    _print_started(job, console)
    return 0


def _submit(
    job_file: LoadedJob,
    backend_name: str,
    console: Console,
    *,
    again: bool,
    queue: bool,
    then: str | None,
) -> Job:
    """Stage and submit; what is to come `then` is checked before anything is sent."""
    from cloudft.backends import make_backend
    from cloudft.cli.commands import import_
    from cloudft.cli.output import print_findings
    from cloudft.cli.progress import record_counter, upload_counter
    from cloudft.jobs import lifecycle, prepare
    from cloudft.storage.store import Store

    home = Home.from_environ()
    chosen = make_backend(backend_name, home)
    with record_counter(console) as progress:
        staged, warnings = prepare.prepare(job_file, chosen, home, progress)
    print_findings(warnings)
    if then:
        import_.check_import(job_file, chosen, console)
    with upload_counter(console) as sent:
        return lifecycle.submit(
            staged,
            chosen,
            Store(home.jobs),
            force_new=again,
            on_progress=sent,
            on_quota_exceeded=quota_callback(console, queue),
            on_estimate=lambda estimate: _print_cost(estimate, job_file, chosen, console),
        )


def _follow_submitted(job: Job, timeout: float | None, then: str | None, console: Console) -> int:
    """Follow it to its end, and what comes `then`; the exit code."""
    from cloudft.cli.commands import import_
    from cloudft.cli.jobs import exit_code_of, follow_job, print_job
    from cloudft.jobs import lifecycle

    backend = lifecycle.backend_for(job.record, Home.from_environ())
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


def quota_callback(console: Console, queue: bool) -> Callable[[CloudftError], None] | None:
    """What to do while the account's quota is used up: with --queue wait, else nothing."""
    if not queue:
        return None
    told: list[str] = []

    def wait(error: CloudftError) -> None:
        if not told:
            console.note(f"{error.message}\n  waiting for a place; Ctrl-C gives it up ...")
            told.append(error.message)

    return wait
