"""`cloudft`: the group of all commands, each imported when it is called."""

from __future__ import annotations

import sys

import click

from cloudft import __version__
from cloudft.cli import errors, streams
from cloudft.cli.lazy_group import LazyGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("cloudft.cli.commands.init", "Write a starter job file with sample data."),
    "show": ("cloudft.cli.commands.init", "Print a job file as cloudft reads it."),
    "schema": ("cloudft.cli.commands.init", "Print the JSON Schema of the job file."),
    "data": ("cloudft.cli.commands.data", "Look at data and prepare it, a step at a time."),
    "check": (
        "cloudft.cli.commands.submit",
        "Find every problem of a job before anything is sent.",
    ),
    "plan": ("cloudft.cli.commands.submit", "Print the exact request that submit would send."),
    "advise": ("cloudft.cli.commands.advise", "Measure whether to prompt, retrieve or fine-tune."),
    "estimate": ("cloudft.cli.commands.estimate", "Tokens and cost of a job on each backend."),
    "submit": ("cloudft.cli.commands.submit", "Start a job."),
    "list": ("cloudft.cli.jobs", "List the jobs, newest first."),
    "status": ("cloudft.cli.jobs", "Show one job."),
    "watch": ("cloudft.cli.jobs", "Follow a job until it ends."),
    "logs": ("cloudft.cli.jobs", "Print a job's log."),
    "metrics": ("cloudft.cli.commands.metrics", "Print or plot a job's loss curves."),
    "stop": ("cloudft.cli.jobs", "Ask a job to stop; it leaves a checkpoint."),
    "resume": ("cloudft.cli.jobs", "Go on with a stopped or failed job."),
    "delete": ("cloudft.cli.jobs", "Remove a job and what it left on this machine."),
    "generate": ("cloudft.cli.commands.generate", "Ask the tuned model, and the base beside it."),
    "export": ("cloudft.cli.commands.generate", "Write one merged model and prove it is the same."),
    "import": ("cloudft.cli.commands.import_", "Import a tuned open-weight model into Bedrock."),
    "evaluate": (
        "cloudft.cli.commands.evaluate",
        "Base against tuned on held-out records: did it help?",
    ),
    "compare": (
        "cloudft.cli.commands.compare",
        "Several tuned models on the same records, with tests.",
    ),
    "review": ("cloudft.cli.commands.review", "Judge two models' answers, blind, in the browser."),
    "report": ("cloudft.cli.commands.report", "Write one self-contained HTML page about a job."),
    "deploy": ("cloudft.cli.commands.deploy", "Serve a tuned model on Bedrock."),
    "undeploy": ("cloudft.cli.commands.deploy", "Remove what serves a tuned model."),
    "ps": ("cloudft.cli.commands.ps", "List what stands in the account, and what it costs."),
    "gc": ("cloudft.cli.commands.ps", "Find and remove what cloudft made in the account."),
    "models": ("cloudft.cli.commands.models", "List the base models and where they come from."),
    "doctor": ("cloudft.cli.commands.models", "Say what is installed, and what is missing."),
    "infra": (
        "cloudft.cli.commands.infra",
        "The AWS side as code: make it, look at it, remove it.",
    ),
    "endpoint": (
        "cloudft.cli.commands.endpoint",
        "Serve a Bedrock on this machine that really trains.",
    ),
    "completion": ("cloudft.cli.commands.models", "Print the tab completion script of a shell."),
}
"""Command -> (module, one line of help). The click command is called NAME_command there."""

EPILOG = """\b
A first job, on this machine:
  cloudft init my-job && cd my-job
  cloudft submit --wait
  cloudft generate - --base --prompt "My parcel never came."
"""


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, "-V", "--version", prog_name="cloudft")
def cloudft() -> None:
    """Fine-tune a language model from one job file: here, or in the cloud."""


def main() -> None:
    """The entry point: run, and turn whatever went wrong into a message and an exit code."""
    streams.open_closed_streams()
    streams.accept_any_text()
    sys.exit(errors.run_command(cloudft))
