"""infra deploy: show the changes of a stack, confirm, execute and follow them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, aws_location, aws_options, console_options
from cloudft.cli.stack_events import event_printer, poll_seconds
from cloudft.cli.stack_options import (
    param_option,
    stack_argument,
    stack_cost_lines,
    template_option,
)

if TYPE_CHECKING:
    from cloudft.aws.client import Aws
    from cloudft.aws.stack import Stack
    from cloudft.infra.change_sets import Change, ChangeSet


@command(
    "deploy",
    epilog="\b\nExamples:\n  cloudft infra deploy\n"
    "  cloudft infra deploy team --param NotifyEmail=team@example.com --yes\n"
    "  cloudft infra deploy team --param WithVpc=yes --dry-run\n"
    "  cloudft infra deploy team-jobs --template jobs --from team",
)
@stack_argument
@template_option
@param_option
@click.option(
    "--from",
    "beside",
    metavar="STACK",
    help="Parameters that are not given come from this stack's outputs of the same names.",
)
@click.option("--dry-run", is_flag=True, help="Show the changes and make none.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--protect/--no-protect", default=None, help="Termination protection; as it is if not given."
)
@aws_options
@console_options
def deploy_command(
    name: str,
    template: str,
    params: dict[str, str],
    beside: str | None,
    dry_run: bool,
    yes: bool,
    protect: bool | None,
    console: Console,
) -> int:
    """Make the stack NAME (default: cloudft), or change it to what the template now says.

    Parameters that are not given stay as they are. The changes are shown first; a deploy that was
    broken off is gone on with by the same command.
    """
    from cloudft.aws.client import Aws, AwsLocation
    from cloudft.infra import change_sets
    from cloudft.infra import template as templates

    aws, text = Aws(AwsLocation(**aws_location())), templates.load_template_text(template)
    if beside is not None:
        params = change_sets.outputs_as_parameters(aws, beside, text) | params
    before = _settled_stack(aws, name, dry_run, console)
    change_sets.check_parameters(template, text, params, before)
    proposal = change_sets.create_change_set(aws, name, text, params, before)
    agreed = False
    try:
        if proposal.changes:
            asking = not (yes or dry_run)
            _print_changes(
                proposal, text, params, before, _print_to_stderr if asking else console.note
            )
            question = f"make these changes to {name}?"
            agreed = click.confirm(question, err=True) if asking else not dry_run
    finally:  # also where nobody answers
        if not agreed:
            change_sets.delete_change_set(aws, proposal)
    stack = _execute_changes(aws, proposal, console) if agreed else before
    if protect is not None and stack is not None and not dry_run:
        stack = change_sets.set_termination_protection(aws, stack, protect)
    _print_result(proposal, stack, agreed, console)
    return 0


def _settled_stack(aws: Aws, name: str, dry_run: bool, console: Console) -> Stack | None:
    """The stack when nothing is done to it any more; None when there is none, or an empty one."""
    from cloudft.errors import StackFailed, UsageError
    from cloudft.infra import change_sets, ownership

    ownership.find_owned_stack(aws, name)
    stack = change_sets.find_stack(aws, name)
    if stack is not None and change_sets.is_in_progress(stack):
        console.note(f"{name} is {stack.status}: waiting for its end ...")
        try:
            change_sets.follow_stack(aws, stack.id, set(), lambda event: None, poll_seconds(aws))
        except StackFailed as failure:  # it came to rest; now it is to become what is wanted
            console.note(failure.message)
        stack = change_sets.find_stack(aws, name)
    if stack is not None and stack.status == "ROLLBACK_COMPLETE":
        if dry_run:
            fix = "deploy without --dry-run: it removes what is left of it first."
            raise UsageError(f"{name} could not be made before", fix=fix)
        console.note(f"{name} could not be made before: what is left of it is removed first")
        change_sets.delete_empty_stack(aws, name)
        change_sets.follow_stack(aws, stack.id, set(), lambda event: None, poll_seconds(aws))
        stack = None
    if stack is not None:
        change_sets.raise_if_unusable(aws, stack)
    return stack


def _print_to_stderr(text: str) -> None:
    """What is asked about is said, with -q too."""
    click.echo(text, err=True)


def _print_changes(
    proposal: ChangeSet,
    text: str,
    params: dict[str, str],
    before: Stack | None,
    say: Callable[[str], None],
) -> None:
    from cloudft.cli.output import format_table
    from cloudft.infra import template as templates
    from cloudft.infra.status import template_costs

    rows = [(c.action, c.resource, c.type, _replacement_note(c)) for c in proposal.changes]
    say(format_table(("CHANGE", "RESOURCE", "TYPE", ""), rows))
    whole = {**(before.parameters if before else {}), **params}
    say(stack_cost_lines(template_costs(templates.parse_template(text), whole))[0])


def _replacement_note(change: Change) -> str:
    return {"True": "made anew", "Conditional": "perhaps made anew"}.get(
        change.replacement or "", ""
    )


def _execute_changes(aws: Aws, proposal: ChangeSet, console: Console) -> Stack:
    """Make the changes and follow them. Ctrl-C ends the following alone."""
    from cloudft.infra import change_sets

    name = proposal.stack
    seen = change_sets.list_event_ids(aws, name)
    try:
        change_sets.execute_change_set(aws, proposal)
        return change_sets.follow_stack(aws, name, seen, event_printer(console), poll_seconds(aws))
    except KeyboardInterrupt:
        goes_on = f"CloudFormation goes on with what has begun of {name}"
        console.note(f"{goes_on}; `cloudft infra status {name}` shows how far it is")
        raise


def _print_result(
    proposal: ChangeSet, stack: Stack | None, executed: bool, console: Console
) -> None:
    name = proposal.stack
    if not proposal.changes:
        text = f"{name}: nothing to change"
    elif not executed:
        text = f"{name}: {len(proposal.changes)} changes, none made"
    else:
        text = f"{name}: {stack.status if stack else ''}"
        console.note(f"say `bedrock: {{stack: {name}}}` in a job file, and it runs with this stack")
    result = {"changes": proposal.changes, "executed": executed, "stack": stack}
    console.print_result(result, text)
