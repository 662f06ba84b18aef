"""Carry out the commands of a conversation: lines that begin with a slash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.errors import CloudftError, UsageError

if TYPE_CHECKING:
    from cloudft.cli.chat_loop import Chat

HELP = """\
/base              show the base model's answers too, or no longer
/system [TEXT]     set the system message; without a text, remove it
/temperature NUMBER  0 always takes the most likely token; up to 2
/seed NUMBER       seed of the sampling
/undo              remove the last question and its answer
/reset             begin a new conversation
/save FILE         append the conversation to FILE, as a record of the job's data
/quit              end (Ctrl-D does too)
//TEXT             send a text that begins with a slash
A line that ends in \\ goes on in the next one. Ctrl-C stops an answer."""
MAX_TEMPERATURE = 2.0
MAX_SEED = 2**32 - 1


def run_chat_command(chat: Chat, line: str) -> bool:
    """Carry out one command. Return False for the one that ends the conversation.

    Raise CloudftError.
    """
    name, _, argument = line[1:].partition(" ")
    if name in ("quit", "exit"):
        return False
    handler = COMMANDS.get(name)
    if handler is None:
        raise UsageError(f"there is no command /{name[:40]}", fix="/help lists the commands.")
    chat.note(handler(chat, argument.strip()))
    return True


def _toggle_base(chat: Chat, _argument: str) -> str:
    chat.with_base = not chat.with_base
    return "base and tuned model answer" if chat.with_base else "only the tuned model answers"


def _set_system(chat: Chat, text: str) -> str:
    if chat.conversation.is_raw:
        raise UsageError(
            "this model continues text and takes no system message", fix="leave /system out."
        )
    chat.conversation.system = text
    return "the system message is set" if text else "there is no system message any more"


def _set_temperature(chat: Chat, text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MAX_TEMPERATURE:
        raise UsageError(
            f"{text[:40]!r} is not a temperature",
            fix="write a number from 0 to 2: /temperature 0.7",
        )
    chat.decoding = replace(chat.decoding, temperature=value)
    return f"temperature {value:g}"


def _set_seed(chat: Chat, text: str) -> str:
    if not text.isdecimal() or int(text) > MAX_SEED:
        raise UsageError(f"{text[:40]!r} is not a seed", fix="write a whole number: /seed 7")
    chat.decoding = replace(chat.decoding, seed=int(text))
    return f"seed {int(text)}"


def _undo(chat: Chat, _argument: str) -> str:
    if chat.conversation.undo():
        return "the last question and its answer are removed"
    return "there is nothing to undo"


def _reset(chat: Chat, _argument: str) -> str:
    chat.conversation.turns.clear()
    return "a new conversation"


def _save(chat: Chat, name: str) -> str:
    from cloudft.storage.atomic_files import as_store_error
    from cloudft.storage.jsonl_append import append_line

    if not name:
        raise UsageError("/save needs a file", fix="write its name: /save good-answers.jsonl")
    path = Path(name).expanduser()
    line, used = chat.conversation.to_line(chat.format_name)
    with as_store_error(f"the conversation can't be saved in {path}", path):
        append_line(path, line)
    more = "" if used == chat.format_name else f", as {used}: {chat.format_name} can't hold it"
    return f"appended to {path}{more}"


def _help(_chat: Chat, _argument: str) -> str:
    return HELP


COMMANDS: dict[str, Callable[[Chat, str], str]] = {
    "base": _toggle_base,
    "system": _set_system,
    "temperature": _set_temperature,
    "seed": _set_seed,
    "undo": _undo,
    "reset": _reset,
    "save": _save,
    "help": _help,
}


def report_problem(chat: Chat, error: CloudftError) -> None:
    """Print an error that does not end the conversation."""
    chat.note(f"error: {error.message}" + (f"\n  fix: {error.fix}" if error.fix else ""))
