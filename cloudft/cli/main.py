"""`cloudft`: the group of all commands. A command's module is imported when it is called."""

from __future__ import annotations

import os
import sys

import click

from cloudft import __version__
from cloudft.cli import errors, streams
from cloudft.cli.lazy_group import lazy_group

SECTIONS: dict[str, dict[str, str]] = {
    "Start": {
        "init": "Write a job file: for your own data, or with sample data.",
        "doctor": "Report what is installed, and what is missing.",
        "models": "List the base models and where their weights are.",
    },
    "Data": {
        "data": "Inspect and prepare data: stats, preview, convert, split, ...",
        "label": "Create labeling projects and write their labels: create, status, export.",
    },
    "Train": {
        "check": "Find every problem of a job before anything is sent.",
        "grader": "Measure a grader before reinforcement is paid for.",
        "estimate": "Estimate tokens, time and cost on each backend.",
        "plan": "Print the exact request that submit would send.",
        "submit": "Start a job.",
        "sweep": "Search hyperparameters over many short trials.",
        "list": "List the jobs, newest first.",
        "status": "Show one job.",
        "watch": "Follow a job until it ends.",
        "logs": "Print a job's log.",
        "metrics": "Print or plot a job's loss curves.",
        "track": "Send a job's curves and results to its trackers.",
        "stop": "Stop a job at a checkpoint.",
        "resume": "Continue a stopped or failed job from its checkpoint.",
        "delete": "Delete a job and its files on this machine.",
    },
    "Look": {
        "ui": "Look at jobs, data, answers and labels in the browser.",
    },
    "Judge": {
        "chat": "Talk to the tuned model, with its base beside it.",
        "generate": "Send prompts to the tuned model, and to its base.",
        "evaluate": "Compare base and tuned model on held-out records.",
        "compare": "Compare several tuned models on the same records.",
        "review": "Judge two models' answers blind, in the browser.",
        "report": "Write one self-contained HTML page about a job.",
        "advise": "Measure whether to prompt, retrieve or fine-tune.",
    },
    "Use": {
        "serve": "Serve tuned models on this machine by OpenAI's API.",
        "export": "Write the tuned model for the runtime that will run it.",
        "push": "Publish a tuned model on the Hugging Face Hub.",
    },
    "Cloud": {
        "download": "Copy a finished job's artifacts into a folder.",
        "import": "Import a tuned open-weight model into Bedrock.",
        "copy": "Copy a custom model to another Region.",
        "share": "Share a custom model with another account.",
        "deploy": "Serve a tuned model on Bedrock.",
        "undeploy": "Remove what serves a tuned model.",
    },
    "Account": {
        "ps": "List the resources in the AWS account, and their cost.",
        "gc": "Remove cloudft's unused resources from the AWS account.",
        "infra": "Create, show and remove the AWS resources jobs need.",
    },
    "Tools": {
        "endpoint": "Serve a local Bedrock endpoint that really trains.",
        "show": "Print a job file with every value and its origin.",
        "schema": "Print the JSON Schema of the job file.",
        "completion": "Print the tab completion script of a shell.",
    },
}
"""Section of the help page -> command -> one line of help, in the order a newcomer needs them."""

EPILOG = """\b
A first job with sample data, on this machine:
  cloudft init my-job && cd my-job
  cloudft submit --wait
  cloudft generate - --base --prompt "My parcel never came."

\b
A job for your own data:
  cloudft init --data mine.jsonl my-job && cd my-job
  cloudft check
  cloudft submit --wait
"""


@click.group(
    cls=lazy_group(SECTIONS, "cloudft.cli.commands."),
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, "-V", "--version", prog_name="cloudft")
def cloudft() -> None:
    """Fine-tune a language model from one job file: here, or in the cloud."""


def main() -> None:
    """Run the command line, and exit with its exit code. Every error becomes a message."""
    # pydantic looks for plugins in the metadata of every installed package: that takes longer than
    # loading a job file, and cloudft's models have none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    streams.open_closed_streams()
    streams.accept_any_text()
    sys.exit(errors.run_command(cloudft))
