"""`cloudft`: the group of all commands, each imported when it is called."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from cloudft import __version__
from cloudft.cli import failures

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("cloudft.cli.job_file", "Write a starter job file with sample data."),
    "show": ("cloudft.cli.job_file", "Print a job file as cloudft reads it."),
    "schema": ("cloudft.cli.job_file", "Print the JSON Schema of the job file."),
    "check": ("cloudft.cli.submitting", "Find every problem of a job before anything is sent."),
    "plan": ("cloudft.cli.submitting", "Print the exact request that submit would send."),
    "submit": ("cloudft.cli.submitting", "Start a job."),
    "list": ("cloudft.cli.jobs", "List the jobs, newest first."),
    "status": ("cloudft.cli.jobs", "Show one job."),
    "watch": ("cloudft.cli.jobs", "Follow a job until it ends."),
    "logs": ("cloudft.cli.jobs", "Print a job's log."),
    "metrics": ("cloudft.cli.curves", "Print or plot a job's loss curves."),
    "stop": ("cloudft.cli.jobs", "Ask a job to stop; it leaves a checkpoint."),
    "resume": ("cloudft.cli.jobs", "Go on with a stopped or failed job."),
    "delete": ("cloudft.cli.jobs", "Remove a job and what it left on this machine."),
    "generate": ("cloudft.cli.model", "Ask the tuned model, and the base beside it."),
    "export": ("cloudft.cli.model", "Write one merged model and prove it is the same."),
    "models": ("cloudft.cli.machine", "List the base models and where they come from."),
    "doctor": ("cloudft.cli.machine", "Say what is installed, and what is missing."),
    "completion": ("cloudft.cli.machine", "Print the tab completion script of a shell."),
}
"""Command -> (module, one line of help). The click command is called NAME_command there."""

EPILOG = """\b
A first job, on this machine:
  cloudft init my-job && cd my-job
  cloudft submit --wait
  cloudft generate - --base --prompt "My parcel never came."
"""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order of a job's life."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command called `cmd_name`, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, naming the nearest command when there is none of that name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"there is no command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands, from the lines above: no module is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="cloudft")
def cloudft() -> None:
    """Fine-tune a language model from one job file: here, or in the cloud."""


def main() -> None:
    """The entry point: run, and turn whatever went wrong into a message and an exit code."""
    sys.exit(failures.run(cloudft))
