"""infra destroy: what would go is named, agreed to, and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, aws_location, aws_options, console_options
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
@click.option("--delete-data", is_flag=True, help="Remove the objects, too, with every version.")
@click.option("--keep-data", is_flag=True, help="Leave the buckets and the key as they are.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@aws_options
@console_options
def destroy_command(
    name: str, delete_data: bool, keep_data: bool, yes: bool, console: Console
) -> int:
    """Remove the stack NAME (default: cloudft).

    It is refused while jobs run with its roles, while its buckets hold objects, and while models
    need its key. A key ends 30 days later, and can be saved until then. A run that was broken off
    is gone on with by the same command.
    """
    from cloudft.aws.client import Aws, AwsLocation
    from cloudft.cli.progress import removal_counter
    from cloudft.cli.stack_events import event_printer, poll_seconds
    from cloudft.infra import destroy

    if delete_data and keep_data:
        raise click.UsageError("--delete-data and --keep-data exclude each other")
    aws = Aws(AwsLocation(**aws_location()))
    end = destroy.plan_destroy(aws, name, delete_data=delete_data, keep_data=keep_data)
    told = "\n".join(_plan_lines(end))
    if yes:
        console.note(told)
    else:
        click.confirm(f"{told}\nremove {name}?", abort=True, err=True)
    try:
        with removal_counter(console) as progress:
            became = destroy.execute_destroy(
                aws, end, event_printer(console), progress, poll_seconds(aws)
            )
    except KeyboardInterrupt:
        console.note(f"what has begun goes on; `cloudft infra destroy {name}` does the rest")
        raise
    text = "\n".join([f"{name}: removed", *(f"{key}: {what}" for key, what in became.items())])
    console.print_result({"stack": name, "id": end.id, "resources": became}, text)
    return 0


def _plan_lines(end: DestroyPlan) -> list[str]:
    """What will go, and what will stay."""
    from cloudft.infra import destroy, leftovers

    lines = [f"removes the stack {end.name} and what it made"] if end.stack else []
    for one in end.retained:
        count = end.contents.objects.get(one.physical_id, 0)
        if end.keep_data:
            lines.append(f"leaves {one.type} {one.physical_id}, which goes on costing")
        elif one.type == "AWS::KMS::Key":
            lines.append(f"orders the end of the key {one.physical_id} in 30 days")
        else:
            inside = f" with its objects ({destroy.format_count(count)} versions)" if count else ""
            inside = " with its logs" if one.logical_id == leftovers.LOG_BUCKET else inside
            lines.append(f"removes the bucket {one.physical_id}{inside}")
    return lines
