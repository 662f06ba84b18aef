"""grader: the group of commands for reinforcement graders. One file a command: grader_NAME.py."""

from __future__ import annotations

import click

from cloudft.cli.lazy_group import lazy_group

SECTIONS: dict[str, dict[str, str]] = {
    "Commands": {"test": "Grade a base model's answers, and say whether reinforcement can work."}
}
"""Section of the help page -> command -> one line of help."""

EPILOG = """\b
Examples:
  cloudft grader test
  cloudft grader test --answers answers.jsonl --plot rewards.png
"""


@click.group(
    "grader",
    cls=lazy_group(SECTIONS, "cloudft.cli.commands.grader_"),
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
def grader_command() -> None:
    """Measure a reinforcement job's grader on this machine, before anything is paid.

    The file runs as it would on AWS Lambda: in a process of its own, with the job file's time-out
    and memory, and without your credentials.
    """
