"""infra destroy: list what a stack's deletion removes, confirm, and delete it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, aws_location, aws_options, console_options, yes_option
from cloudft.cli.stack_options import stack_argument

if TYPE_CHECKING:
    from cloudft.infra.destroy import DestroyPlan


@command(
    "destroy",
    epilog="\b\nExamples:\n  cloudft infra destroy team\n"
    "  cloudft infra destroy team --delete-data --yes\n"
    "  cloudft infra destroy team --keep-data",
)
@stack_argument
@click.option(
    "--delete-data", is_flag=True, help="Delete the objects in the buckets too, with all versions."
)
@click.option("--keep-data", is_flag=True, help="Keep the buckets and the key.")
@yes_option
@aws_options
@console_options
def destroy_command(
    name: str, delete_data: bool, keep_data: bool, yes: bool, console: Console
) -> int:
    """Delete the stack NAME (default: cloudft).

    Refused while jobs run with its roles, while its buckets hold objects, and while models need its
    key. The key is deleted 30 days later, and can be kept until then. After an interruption, the
    same command continues.
    """
    from cloudft.aws.client import Aws, AwsLocation
    from cloudft.cli.progress import removal_counter
    from cloudft.cli.stack_events import event_printer, poll_seconds
    from cloudft.infra import destroy

    if delete_data and keep_data:
        raise click.UsageError("--delete-data and --keep-data exclude each other")
    aws = Aws(AwsLocation(**aws_location()))
    end = destroy.plan_destroy(aws, name, delete_data=delete_data, keep_data=keep_data)
    listed = "\n".join(_plan_lines(end))
    if yes:
        console.note(listed)
    else:
        click.confirm(f"{listed}\nremove {name}?", abort=True, err=True)
    try:
        with removal_counter(console) as progress:
            became = destroy.execute_destroy(
                aws, end, event_printer(console), progress, poll_seconds(aws)
            )
    except KeyboardInterrupt:
        console.note(f"the deletion continues; `cloudft infra destroy {name}` finishes it")
        raise
    text = "\n".join([f"{name}: removed", *(f"{key}: {what}" for key, what in became.items())])
    console.print_result({"stack": name, "id": end.id, "resources": became}, text)
    return 0


def _plan_lines(end: DestroyPlan) -> list[str]:
    """Return what will be removed, and what will be kept."""
    from cloudft.infra import destroy, leftovers

    lines = [f"removes the stack {end.name} and its resources"] if end.stack else []
    for one in end.retained:
        count = end.contents.objects.get(one.physical_id, 0)
        if end.keep_data:
            lines.append(f"keeps {one.type} {one.physical_id}, which is still billed")
        elif one.type == "AWS::KMS::Key":
            lines.append(f"schedules the deletion of the key {one.physical_id} in 30 days")
        else:
            inside = f" with its objects ({destroy.format_count(count)} versions)" if count else ""
            inside = " with its logs" if one.logical_id == leftovers.LOG_BUCKET else inside
            lines.append(f"removes the bucket {one.physical_id}{inside}")
    return lines
