"""infra: the group of commands for the AWS side as code. One file a command: infra_NAME.py."""

from __future__ import annotations

import click

from cloudft.cli.lazy_group import lazy_group

SECTIONS: dict[str, dict[str, str]] = {
    "Commands": {
        "synth": "Print a template, and check its parameters.",
        "deploy": "Create or update a stack, after showing the changes.",
        "status": "Show a stack: outputs, drift, cost.",
        "destroy": "Delete a stack, unless it still holds data.",
        "policy": "Print the least IAM policy that a job's submitter needs.",
    }
}
"""Section of the help page -> command -> one line of help."""

EPILOG = """\b
Examples:
  cloudft infra deploy team --param NotifyEmail=team@example.com
  cloudft infra status team
"""


@click.group(
    "infra",
    cls=lazy_group(SECTIONS, "cloudft.cli.commands.infra_"),
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
def infra_command() -> None:
    """Manage the AWS side as code: buckets, a key, roles and alarms, as a CloudFormation stack.

    A job file with `bedrock: {stack: NAME}` runs with the resources of that stack.
    """
