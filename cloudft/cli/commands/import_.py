"""import: import a tuned open-weight model into Bedrock (Custom Model Import)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.options import (
    Console,
    aws_options,
    complete_job,
    console_options,
    force_new_option,
    parse_settings,
    wait_timeout_option,
)
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.backends.base import Backend, StagedJob
    from cloudft.cli.follow_up import FollowUpOptions
    from cloudft.jobs.lifecycle import Job
    from cloudft.spec.load import LoadedJob
    from cloudft.storage.store import JobRecord

DEFAULT_DTYPE = "bfloat16"


@command(
    "import",
    epilog="\b\nExamples:\n  cloudft import ticket-router --wait\n"
    "  cloudft import - --set bedrock.s3_uri=s3://my-bucket/team --dry-run\n"
    "  cloudft import --from s3://my-bucket/run-7/checkpoints/hf_merged/ --name tuned-llama"
    " --base-model org/llama --dry-run\n"
    "  cloudft import --from arn:aws:sagemaker:us-east-1:111122223333:model-package/nova/3"
    " --name tuned-nova --base-model nova-2-lite --dry-run",
)
@click.argument("reference", metavar="[JOB]", required=False, shell_complete=complete_job)
@click.option(
    "--from",
    "source",
    metavar="URI|ARN",
    help="Import no job's model, but the merged model in this folder of S3, or a Nova that was"
    " trained in SageMaker: its model package, or its artifacts in S3.",
)
@click.option("--name", help="Name of the import; derived from the job's if unset.")
@click.option("--base-model", metavar="NAME", help="With --from: the model that was tuned.")
@click.option(
    "--set",
    "flags",
    multiple=True,
    metavar="KEY=VALUE",
    callback=parse_settings,
    help="Override a value of the trained job's file: --set bedrock.region=us-east-1",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default=DEFAULT_DTYPE,
    show_default=True,
    help="Number format of the merged weights.",
)
@click.option("--dry-run", is_flag=True, help="Merge, check and print the plan; send nothing.")
@click.option("--wait", is_flag=True, help="Follow the import until it ends.")
@wait_timeout_option
@force_new_option
@aws_options
@console_options
def import_command(
    reference: str | None,
    source: str | None,
    name: str | None,
    base_model: str | None,
    flags: dict[str, str],
    dtype: str,
    dry_run: bool,
    wait: bool,
    timeout: float | None,
    force_new: bool,
    console: Console,
) -> int:
    """Import a job's tuned model into Bedrock (Custom Model Import).

    The weights are merged and compared with the tuned model, checked against Bedrock's rules, and
    uploaded. The import is a job of its own: `watch`, `generate` and `evaluate` take it. It needs
    the bedrock section of the job file (region, s3_uri, import_role_arn or role_arn), or --set.
    The same import submitted twice is one import.

    With --from, nothing is uploaded: open weights in S3 are checked by their small files and the
    headers of their weights. A Nova of SageMaker becomes a custom model (CreateCustomModel), which
    `deploy` serves.
    """
    from cloudft.cli.follow_up import FollowUpOptions, print_started
    from cloudft.cli.jobs import exit_code_of, print_job

    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    if (reference is None) == (source is None):
        raise click.UsageError("name a JOB, or --from with what to import")
    if base_model is not None and source is None:
        raise click.UsageError("--base-model needs --from: a job has its own base model")
    named = {"name": name, "base_model": base_model}
    flags |= {field: value for field, value in named.items() if value is not None}
    if source is not None:
        follow = FollowUpOptions(dry_run, wait, timeout, force_new)
        return _import_from(source, flags, follow, console)
    assert reference is not None
    record, backend, _ = open_job(reference)
    staged = prepare_import(record, backend, flags, dtype, console)
    if dry_run:
        _print_import_plan(staged, console)
        return 0
    job = submit_import(staged, force_new=force_new, console=console)
    if wait:
        job = _follow_import(job, timeout, console)
        print_job(job, console)
        return exit_code_of(job)
    already = "this model is imported already; --force-new imports it again."
    print_started(job, already, console)
    return 0


def _import_from(
    source: str, flags: dict[str, str], follow: FollowUpOptions, console: Console
) -> int:
    """Import a model that no job of cloudft trained; return the exit code."""
    from cloudft import catalogue
    from cloudft.cli.follow_up import submit_and_report
    from cloudft.cli.output import print_findings
    from cloudft.jobs import derived_models, model_import

    missing = [option for option in ("name", "base_model") if option not in flags]
    if missing:
        names = " and ".join(f"--{option.replace('_', '-')}" for option in missing)
        raise click.UsageError(f"--from needs {names}")
    home, is_package = Home.from_environ(), ":model-package/" in source
    if not is_package and not source.startswith("s3://"):
        raise click.UsageError(f"--from {source}: neither s3://BUCKET/FOLDER/ nor a model package")
    model = catalogue.find_catalogue_model(flags["base_model"])
    if is_package or (model is not None and not model.is_open_weight):
        staged, findings = derived_models.prepare_creation(source, home, flags)
        backend_name = derived_models.CREATE
    else:
        staged, findings = model_import.prepare_stored_model(source, home, flags, os.environ)
        backend_name = model_import.import_backend(staged.job, home).name
    print_findings(findings)
    return submit_and_report(staged, backend_name, follow, console)


def prepare_import(
    record: JobRecord, backend: Backend, flags: dict[str, str], dtype: str, console: Console
) -> StagedJob:
    """Merge and stage the job's model for the import, and print the warnings."""
    from cloudft.cli.output import print_findings
    from cloudft.cli.progress import run_observer
    from cloudft.jobs import model_import

    job = model_import.load_import_job(record, flags, os.environ)
    home = Home.from_environ()
    with run_observer(console) as observer:
        staged, warnings = model_import.merge_and_stage(
            record, backend, home, job, dtype=dtype, observer=observer
        )
    print_findings(warnings)
    return staged


def _print_import_plan(staged: StagedJob, console: Console) -> None:
    from cloudft.cli.output import json_text
    from cloudft.jobs import model_import

    plan = model_import.import_backend(staged.job, Home.from_environ()).plan(staged)
    console.print_result(plan, json_text(plan))


def submit_import(staged: StagedJob, *, force_new: bool, console: Console) -> Job:
    """Upload the model and create the import job. The same import is created once."""
    from cloudft.cli.progress import run_observer
    from cloudft.jobs import lifecycle, model_import
    from cloudft.storage.store import Store

    home = Home.from_environ()
    backend = model_import.import_backend(staged.job, home)
    with run_observer(console) as observer:
        return lifecycle.submit(
            staged, backend, Store(home.jobs), force_new=force_new, observer=observer
        )


def _follow_import(job: Job, timeout: float | None, console: Console) -> Job:
    from cloudft.cli.jobs import follow_job
    from cloudft.jobs import lifecycle

    backend = lifecycle.backend_for(job.record, Home.from_environ())
    return follow_job(job, backend, timeout, console)


def check_import(job: LoadedJob, backend: Backend, console: Console) -> None:
    """Check, before a job is trained, that its model can be imported. Raise CheckFailed."""
    from cloudft.cli.output import print_findings
    from cloudft.jobs import model_import

    _, found = model_import.check_import(job, backend, Home.from_environ())
    print_findings(found)


def import_completed_job(
    record: JobRecord, backend: Backend, timeout: float | None, console: Console
) -> Job:
    """Import a completed job's model, and follow the import until it ends."""
    staged = prepare_import(record, backend, {}, DEFAULT_DTYPE, console)
    return _follow_import(submit_import(staged, force_new=False, console=console), timeout, console)
