"""`cloudft infra`: the group of what makes, shows and removes the AWS side."""

from __future__ import annotations

import click

from cloudft.cli.lazy_group import LazyGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "synth": ("cloudft.cli.commands.infra_synth", "Print a template, and check its parameters."),
    "deploy": (
        "cloudft.cli.commands.infra_deploy",
        "Make a stack, or change it, after showing the changes.",
    ),
    "status": ("cloudft.cli.commands.infra_synth", "Show a stack: outputs, drift, cost."),
    "destroy": ("cloudft.cli.commands.infra_destroy", "Remove a stack, unless it holds something."),
    "policy": (
        "cloudft.cli.commands.infra_synth",
        "Print the least policy that a job's submitter needs.",
    ),
}
"""Command -> (module, one line of help)."""

EPILOG = """\b
Examples:
  cloudft infra deploy team --param NotifyEmail=team@example.com
  cloudft infra status team
"""


@click.group(
    "infra",
    cls=LazyGroup,
    table=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
def infra_command() -> None:
    """The AWS side as code: buckets, a key, roles and messages, as a CloudFormation stack.

    A job file that says `bedrock: {stack: NAME}` runs with what that stack made.
    """
