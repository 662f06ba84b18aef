"""infra destroy: what would go is named, agreed to, and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudft.cli.options import Console, console_options, place
from cloudft.cli.templates import stack_argument

if TYPE_CHECKING:
    from cloudft.infrastructure.destroy import End


@click.command(
    "destroy",
    epilog="\b\nExamples:\n  cloudft infra destroy team\n"
    "  cloudft infra destroy team --delete-data --yes\n"
    "  cloudft infra destroy team --keep-data",
)
@stack_argument
@click.option("--delete-data", is_flag=True, help="Remove the objects, too, with every version.")
@click.option("--keep-data", is_flag=True, help="Leave the buckets and the key as they are.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@console_options
def destroy_command(
    name: str, delete_data: bool, keep_data: bool, yes: bool, console: Console
) -> int:
    """Remove the stack NAME (default: cloudft).

    It is refused while jobs run with its roles, while its buckets hold objects, and while models
    need its key. A key ends 30 days later, and can be saved until then. A run that was broken off
    is gone on with by the same command.
    """
    from cloudft.aws.client import Aws, Place
    from cloudft.cli.deploying import poll_seconds, teller
    from cloudft.cli.progress import removing
    from cloudft.infrastructure import destroy

    if delete_data and keep_data:
        raise click.UsageError("--delete-data and --keep-data exclude each other")
    aws = Aws(Place(**place()))
    end = destroy.plan(aws, name, delete_data=delete_data, keep_data=keep_data)
    told = "\n".join(_lines(end))
    if yes:
        console.note(told)
    else:
        click.confirm(f"{told}\nremove {name}?", abort=True, err=True)
    try:
        with removing(console) as progress:
            became = destroy.carry_out(aws, end, teller(console), progress, poll_seconds(aws))
    except KeyboardInterrupt:
        console.note(f"what has begun goes on; `cloudft infra destroy {name}` does the rest")
        raise
    text = "\n".join([f"{name}: removed", *(f"{key}: {what}" for key, what in became.items())])
    console.result({"stack": name, "id": end.id, "resources": became}, text)
    return 0


def _lines(end: End) -> list[str]:
    """What will go, and what will stay."""
    from cloudft.infrastructure import destroy, remains

    lines = [f"removes the stack {end.name} and what it made"] if end.stack else []
    for one in end.left:
        count = end.holdings.objects.get(one.physical, 0)
        if end.keep_data:
            lines.append(f"leaves {one.type} {one.physical}, which goes on costing")
        elif one.type == "AWS::KMS::Key":
            lines.append(f"orders the end of the key {one.physical} in 30 days")
        else:
            inside = f" with its objects ({destroy.many(count)} versions)" if count else ""
            inside = " with its logs" if one.logical == remains.LOGS else inside
            lines.append(f"removes the bucket {one.physical}{inside}")
    return lines
