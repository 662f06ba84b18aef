"""check: find every problem of a job before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.backends.export_options import RUNTIME_FORMATS
from cloudft.cli.command import command
from cloudft.cli.job_file import load_job_file
from cloudft.cli.options import (
    Console,
    aws_options,
    backend_option,
    console_options,
    job_file_argument,
    spec_options,
)
from cloudft.errors import UsageError
from cloudft.storage.home import Home
from cloudft.types import ManifestSource

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.backends.capabilities import SupportsGraderInvocation
    from cloudft.data.sources.turn_edits import TurnEdit
    from cloudft.jobs.prepare import CheckReport
    from cloudft.spec.load import LoadedJob
    from cloudft.types import AdapterReach, Finding


@command(
    "check",
    epilog="\b\nExamples:\n  cloudft check\n  cloudft check jobs/router.yaml --output json\n"
    "  cloudft check --fix repaired\n"
    "  cloudft check --fix repaired --turns cut --turns join\n"
    "  cloudft check --fix repaired --output json",
)
@job_file_argument
@backend_option
@spec_options
@click.option(
    "--fix",
    "fix_into",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write repaired copies of broken files into DIR; the originals stay as they are. Repairs"
    " bytes and JSON, and lists every record that it leaves out.",
)
@click.option(
    "--turns",
    type=click.Choice(("cut", "join", "move")),
    multiple=True,
    help="With --fix, edit chats whose turns do not alternate: `cut` drops the user's turns at the"
    " end and the assistant's at the beginning, `join` joins turns of one role with a blank line,"
    " `move` moves the assistant's first turns into the system prompt. Repeatable.",
)
@click.option(
    "--invoke-grader",
    is_flag=True,
    help="Invoke the grader's function once, with two answers from the data, and compare its"
    " rewards with those of the file here.",
)
@click.option(
    "--for",
    "runtimes",
    type=click.Choice([*RUNTIME_FORMATS]),
    multiple=True,
    help="Say what this runtime would read otherwise from the tuned model. Repeatable.",
)
@aws_options
@console_options
def check_command(
    path: Path | None,
    backend_name: str,
    flags: dict[str, str],
    fix_into: Path | None,
    turns: tuple[TurnEdit, ...],
    invoke_grader: bool,
    runtimes: tuple[str, ...],
    console: Console,
) -> int:
    """Find every problem of a job before anything is sent.

    Checks the job file, the data and the backend. Each finding names file, line, field and fix.
    Exit code 2 for a job file that is wrong in itself, 3 for other errors, 5 when the AWS account
    could not be reached.
    """
    from cloudft.backends import make_backend
    from cloudft.cli.progress import run_observer
    from cloudft.cli.repair_files import write_repaired_files
    from cloudft.jobs import prepare

    if turns and fix_into is None:
        fix = "name a folder for the copies: `cloudft check --fix DIR --turns cut`"
        raise UsageError("--turns needs --fix", fix=fix)
    if runtimes:
        flags = flags | {"export.for": f"[{', '.join(runtimes)}]"}
    job = load_job_file(path, flags)
    backend = make_backend(backend_name, Home.from_environ()).for_job(job)
    if invoke_grader:
        _require_function(job, backend)
    with run_observer(console) as observer:
        report = prepare.check(job, backend, observer)
    if invoke_grader and report.ok:
        report = replace(report, findings=(*report.findings, *_invoke_grader(job, backend)))
    repaired = []
    if fix_into is not None:
        repaired = write_repaired_files(job, report.findings, fix_into, console, turns)
    volumes = report.volumes or {}
    counts = {role: volume.records for role, volume in volumes.items()}
    tokens = sum(volume.tokens for volume in volumes.values())
    adapters = prepare.describe_adapters(job, backend) if report.ok else None
    console.print_result(
        {
            "ok": report.ok,
            "findings": list(report.findings),
            "records": counts,
            "tokens": tokens,
            "tokenRule": _token_rule(job, report),
            "estimate": report.estimate,
            "adapters": adapters,
            "files": [_reading_json(source) for source in report.sources],
            "fixed": repaired,
        },
        _report_text(report, counts, tokens, adapters),
    )
    return report.exit_code


def _report_text(
    report: CheckReport, counts: Mapping[str, int], tokens: int, adapters: AdapterReach | None
) -> str:
    """Return the findings; without errors also the size of the data, and what adapters reach."""
    from cloudft.cli.output import findings_text

    lines = [text for text in (findings_text(report.findings),) if text]
    if report.ok:
        summary = ", ".join(f"{count} {role}" for role, count in counts.items())
        about = "" if report.is_counted else "about "
        lines.append(f"ok: {summary} records, {about}{tokens} tokens")
    if adapters is not None:
        lines.append(f"adapters: {adapters.text}")
    return "\n".join(lines)


def _require_function(job: LoadedJob, backend: Backend) -> SupportsGraderInvocation:
    """Return the backend if it invokes a job's grader. Raise UsageError."""
    from cloudft.backends.capabilities import SupportsGraderInvocation

    if not isinstance(backend, SupportsGraderInvocation) or job.spec.reinforcement is None:
        fix = "use it for a reinforcement job with --backend bedrock."
        raise UsageError("--invoke-grader has no function to invoke", fix=fix)
    return backend


def _invoke_grader(job: LoadedJob, backend: Backend) -> list[Finding]:
    """Return what is wrong with the reply of the grader's function to two answers."""
    from cloudft.backends import make_backend
    from cloudft.backends.capabilities import SupportsGrading
    from cloudft.evaluate.rewards.prompts import read_prompts

    prompts, _ = read_prompts(job, 1)
    reference = prompts[0].metadata.get("reference_answer")
    answers = (reference if isinstance(reference, str) else "yes", "no")
    samples = [prompts[0].sample(answer, number) for number, answer in enumerate(answers)]
    here = make_backend("local", Home.from_environ())
    assert isinstance(here, SupportsGrading), "the trainer runs graders"
    return _require_function(job, backend).invoke_grader(job, samples, here)


def _token_rule(job: LoadedJob, report: CheckReport) -> str | None:
    """Return how the tokens were found: counted, or estimated by which rule."""
    from cloudft.backends.trained_model import trained_model
    from cloudft.data.token_estimate import TOKEN_ESTIMATE_RULE

    if not report.volumes:
        return None
    model = trained_model(job) if report.is_counted else None
    if model is None:
        return TOKEN_ESTIMATE_RULE
    return f"counted by the tokenizer of {model.alias}, with its chat template"


def _reading_json(source: ManifestSource) -> dict[str, object]:
    """Return what a file was read as. It is certain if all its records have that format."""
    return {
        "file": source.path,
        "role": source.role,
        "format": source.shape or None,
        "readAs": source.read_as or None,
        "evidence": source.evidence or None,
        "leftOut": list(source.left_out),
        "records": source.records,
        "matched": source.matched,
        "certain": bool(source.records) and source.matched == source.records,
    }
