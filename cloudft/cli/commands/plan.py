"""plan: print the exact request that submit would send."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.spec.load import LoadedJob


@command("plan", epilog="\b\nExample:\n  cloudft plan --output json > plan.json")
@job_file_argument
@backend_option
@spec_options
@aws_options
@console_options
def plan_command(
    path: Path | None, backend_name: str, flags: dict[str, str], console: Console
) -> int:
    """Print the exact request that submit would send, with its token, cost and files.

    The data is staged on this machine; nothing is sent.
    """
    print_plan(load_job_file(path, flags), backend_name, console)
    return 0


def print_plan(
    job: LoadedJob, backend_name: str, console: Console, *, import_after: bool = False
) -> None:
    """Stage the data and print the plan; start nothing.

    With `import_after` the import of the trained model is checked too.
    """
    from cloudft.backends import make_backend
    from cloudft.backends.capabilities import SupportsIdentity
    from cloudft.cli.commands import import_
    from cloudft.cli.output import identity_line, json_text, print_findings
    from cloudft.cli.progress import run_observer
    from cloudft.jobs import prepare
    from cloudft.types import to_json

    home = Home.from_environ()
    backend = make_backend(backend_name, home).for_job(job)
    with run_observer(console) as observer:
        staged, warnings = prepare.prepare(job, backend, home, observer)
    print_findings(warnings)
    if import_after:
        import_.check_import(job, backend, console)
    plan = backend.plan(staged)
    prepare.check_budget(job, plan)
    value = to_json(plan)
    adapters = prepare.describe_adapters(job, backend)
    if adapters is not None:
        value |= {"adapters": to_json(adapters)}
        console.note(f"adapters: {adapters.text}")
    if isinstance(backend, SupportsIdentity):
        identity = backend.get_identity(job)
        console.note(identity_line(identity))
        value |= {"identity": to_json(identity)}
    console.print_result(value, json_text(value))
