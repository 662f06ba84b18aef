"""infra deploy: show the changes of a stack, confirm, execute and follow them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, aws_location, aws_options, console_options, yes_option
from cloudft.cli.stack_events import event_printer, poll_seconds
from cloudft.cli.stack_options import (
    chosen_template,
    grader_options,
    param_option,
    stack_argument,
    stack_cost_lines,
    template_option,
)

if TYPE_CHECKING:
    from cloudft.aws.client import Aws
    from cloudft.aws.stack import Stack
    from cloudft.infra.change_sets import Change, ChangeSet
    from cloudft.infra.grader_stack import GraderDeployment


@command(
    "deploy",
    epilog="\b\nExamples:\n  cloudft infra deploy\n"
    "  cloudft infra deploy team --param NotifyEmail=team@example.com --yes\n"
    "  cloudft infra deploy team --param WithVpc=yes --dry-run\n"
    "  cloudft infra deploy team-jobs --template jobs --from team\n"
    "  cloudft infra deploy team-grader --grader jobs/tickets.yaml",
)
@stack_argument
@template_option
@param_option
@click.option(
    "--from",
    "beside",
    metavar="STACK",
    help="Take other parameters from the outputs of this stack with the same names.",
)
@grader_options
@click.option("--dry-run", is_flag=True, help="Show the changes and execute none.")
@yes_option
@click.option(
    "--protect/--no-protect",
    default=None,
    help="Turn termination protection on or off; default: unchanged.",
)
@aws_options
@console_options
def deploy_command(
    name: str,
    template: str | None,
    params: dict[str, str],
    beside: str | None,
    grader: Path | None,
    grader_for: str,
    dry_run: bool,
    yes: bool,
    protect: bool | None,
    console: Console,
) -> int:
    """Create the stack NAME (default: cloudft), or update it to the current template.

    Parameters without --param keep their values. The changes are shown first. After an
    interruption, the same command continues.
    """
    from cloudft.aws.client import Aws, AwsLocation
    from cloudft.infra import change_sets
    from cloudft.infra import template as templates

    aws = Aws(AwsLocation(**aws_location()))
    chosen = chosen_template(template, grader)
    text = templates.load_template_text(chosen)
    grading = _plan_grader(aws, name, beside, grader, grader_for)
    if grading is None and beside is not None:
        params = change_sets.outputs_as_parameters(aws, beside, text) | params
    params = {**(grading.parameters if grading else {}), **params}
    before = _settled_stack(aws, name, dry_run, console)
    change_sets.check_parameters(chosen, text, params, before)
    proposal = change_sets.create_change_set(aws, name, text, params, before)
    is_confirmed = False
    try:
        if proposal.changes:
            needs_confirmation = not (yes or dry_run)
            _print_changes(
                proposal,
                text,
                params,
                before,
                _print_to_stderr if needs_confirmation else console.note,
            )
            question = f"execute these changes of {name}?"
            agreed = click.confirm(question, err=True) if needs_confirmation else not dry_run
            if agreed:
                _prepare_grader(aws, before, grading)
            is_confirmed = agreed
    finally:  # also when the confirmation is interrupted, or the grader can't be changed now
        if not is_confirmed:
            change_sets.delete_change_set(aws, proposal)
    stack = _execute_changes(aws, proposal, console) if is_confirmed else before
    if grading is not None and not dry_run:
        _remove_old_packages(aws, stack)
    if protect is not None and stack is not None and not dry_run:
        stack = change_sets.set_termination_protection(aws, stack, protect)
    _print_result(proposal, stack, is_confirmed, console)
    return 0


def _plan_grader(
    aws: Aws, name: str, beside: str | None, grader: Path | None, grader_for: str
) -> GraderDeployment | None:
    """Return what is deployed of the grader that a job file names; None without --grader."""
    from cloudft.cli.job_file import load_job_file
    from cloudft.infra import grader_stack

    if grader is None:
        return None
    base = grader_stack.base_stack_name(name, beside)
    return grader_stack.plan_deployment(aws, name, base, load_job_file(grader, {}), grader_for)


def _prepare_grader(aws: Aws, before: Stack | None, grading: GraderDeployment | None) -> None:
    """Upload the package before its stack changes; refuse to change what grades a running job."""
    from cloudft.infra import grader_stack

    if before is not None:
        grader_stack.raise_if_grading(aws, before)
    if grading is not None:
        grader_stack.upload_package(aws, grading)


def _remove_old_packages(aws: Aws, stack: Stack | None) -> None:
    """Remove all packages of a grader's stack but the one that it was deployed from."""
    from cloudft.infra import grader_stack

    if stack is not None and stack.is_usable:
        grader_stack.remove_packages(aws, stack, keep=stack.parameters.get("CodeKey"))


def _settled_stack(aws: Aws, name: str, dry_run: bool, console: Console) -> Stack | None:
    """Wait until no operation runs on the stack, and return it.

    Return None when there is no stack, or one that was never created completely.
    """
    from cloudft.errors import StackFailed, UsageError
    from cloudft.infra import change_sets, ownership

    ownership.find_owned_stack(aws, name)
    stack = change_sets.find_stack(aws, name)
    if stack is not None and change_sets.is_in_progress(stack):
        console.note(f"{name} is {stack.status}: waiting until it is done ...")
        try:
            change_sets.follow_stack(aws, stack.id, set(), lambda event: None, poll_seconds(aws))
        except StackFailed as failure:  # it is done, and this deploy replaces its result
            console.note(failure.message)
        stack = change_sets.find_stack(aws, name)
    if stack is not None and stack.status == "ROLLBACK_COMPLETE":
        if dry_run:
            fix = "deploy without --dry-run, which first removes what is left of it."
            raise UsageError(f"the last creation of {name} failed", fix=fix)
        console.note(f"the last creation of {name} failed: removing what is left of it first")
        change_sets.delete_empty_stack(aws, name)
        change_sets.follow_stack(aws, stack.id, set(), lambda event: None, poll_seconds(aws))
        stack = None
    if stack is not None:
        change_sets.raise_if_unusable(aws, stack)
    return stack


def _print_to_stderr(text: str) -> None:
    """Print on stderr, also with -q: the changes that the question is about."""
    click.echo(text, err=True)


def _print_changes(
    proposal: ChangeSet,
    text: str,
    params: dict[str, str],
    current: Stack | None,
    echo: Callable[[str], None],
) -> None:
    from cloudft.cli.output import format_table
    from cloudft.infra import template as templates
    from cloudft.infra.status import template_costs

    rows = [(c.action, c.resource, c.type, _replacement_note(c)) for c in proposal.changes]
    echo(format_table(("CHANGE", "RESOURCE", "TYPE", ""), rows))
    whole = {**(current.parameters if current else {}), **params}
    echo(stack_cost_lines(template_costs(templates.parse_template(text), whole))[0])


def _replacement_note(change: Change) -> str:
    return {"True": "replaced", "Conditional": "may be replaced"}.get(change.replacement or "", "")


def _execute_changes(aws: Aws, proposal: ChangeSet, console: Console) -> Stack:
    """Execute the changes and follow them. Ctrl-C ends only the following."""
    from cloudft.infra import change_sets

    name = proposal.stack
    seen = change_sets.list_event_ids(aws, name)
    try:
        change_sets.execute_change_set(aws, proposal)
        return change_sets.follow_stack(aws, name, seen, event_printer(console), poll_seconds(aws))
    except KeyboardInterrupt:
        note = f"CloudFormation continues with {name}"
        console.note(f"{note}; `cloudft infra status {name}` shows its progress")
        raise


def _print_result(
    proposal: ChangeSet, stack: Stack | None, executed: bool, console: Console
) -> None:
    from cloudft.infra import grader_stack
    from cloudft.infra.status import stack_to_json

    name = proposal.stack
    if not proposal.changes:
        text = f"{name}: nothing to change"
    elif not executed:
        text = f"{name}: {len(proposal.changes)} changes, none executed"
    else:
        text = f"{name}: {stack.status if stack else ''}"
        base, _, kind = name.rpartition("-")
        if stack is not None and grader_stack.is_grader_stack(stack):
            base = base if kind == "grader" else name
            console.note(f"a job file with this grader and `bedrock: {{stack: {base}}}` uses it")
        else:
            console.note(f"a job file with `bedrock: {{stack: {name}}}` uses this stack")
    result = {
        "changes": proposal.changes,
        "executed": executed,
        "stack": stack_to_json(stack) if stack else None,
    }
    console.print_result(result, text)
