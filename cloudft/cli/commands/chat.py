"""chat: talk to the tuned model, with its base beside it on demand."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.decoding_options import decoding_options
from cloudft.cli.jobs import open_job, use_inference_profile
from cloudft.cli.options import (
    Console,
    aws_options,
    console_options,
    inference_profile_option,
    job_argument,
)
from cloudft.errors import UsageError

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.inference import GenerationConfig
    from cloudft.storage.store import JobRecord


@command(
    "chat",
    epilog="\b\nExamples:\n  cloudft chat -\n"
    '  cloudft chat ticket-router --base --system "Answer in one word."\n'
    "  printf 'My parcel never came.\\n' | cloudft chat - --output json\n\n"
    "\b\nIn the conversation, /help lists the commands. Of a pipe, each line is a question.",
)
@job_argument
@click.option("--system", default="", help="System message of the conversation.")
@click.option("--base", is_flag=True, help="Show the base model's answers too.")
@decoding_options(512)
@click.option(
    "-y", "--yes", is_flag=True, help="Do not ask for confirmation before billed answers."
)
@inference_profile_option
@aws_options
@console_options
def chat_command(
    reference: str,
    system: str,
    base: bool,
    decoding: GenerationConfig,
    yes: bool,
    inference_profile: str | None,
    console: Console,
) -> int:
    """Talk to the tuned model: several turns, each answer as it is generated.

    Ctrl-C stops an answer, Ctrl-D ends. Of a pipe, each line is a question, and with --output json
    each answer is a line of JSON.
    """
    from cloudft.cli.chat_loop import Chat, read_piped_lines
    from cloudft.evaluate.evaluate_job import open_session
    from cloudft.jobs.conversation import Conversation, data_format

    record, backend, _ = open_job(reference)
    use_inference_profile(backend, inference_profile, console)
    conversation = Conversation.with_job(record, system)
    _confirm_price(record, backend, inference_profile, yes, console)
    console.note(f"{record.id}: opening its models ...")
    with contextlib.closing(open_session(record, backend)) as session:
        chat = Chat(
            session,
            conversation,
            decoding,
            console,
            format_name=data_format(record),
        )
        chat.with_base = base
        if not sys.stdin.isatty():
            return chat.run_lines(read_piped_lines())
        console.note("/help lists the commands, Ctrl-D ends")
        return chat.run_terminal()


def _confirm_price(
    record: JobRecord, backend: Backend, profile: str | None, yes: bool, console: Console
) -> None:
    """Print what billed answers cost, and confirm. Raise UsageError, click.Abort."""
    if not backend.inference_is_billed:
        return
    from cloudft.jobs.inference_price import inference_price_text

    price = inference_price_text(record, backend, profile)
    if yes:
        console.note(f"answers are billed: {price}")
    elif sys.stdin.isatty():
        click.confirm(f"answers are billed: {price}\ntalk to it?", abort=True, err=True)
    else:
        raise UsageError(f"answers are billed: {price}", fix="add --yes to confirm that.")
