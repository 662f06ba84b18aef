"""Errors as people and programs want them: one message, a remedy, an honest exit code.

No exception leaves `run`: the outermost frame of the program turns each into a message.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import click

from cloudft import __version__
from cloudft.cli import streams
from cloudft.errors import CloudftError

EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141
"""128 + SIGPIPE: what a shell gives for `ls`, `git` or `grep` in the place of `cloudft`."""
MAX_MESSAGE_LENGTH = 1000
_SHORT_OUTPUT = re.compile(r"-[vqh]*o=?(.*)", re.DOTALL)
_VERBOSE = re.compile(r"--verbose|-[qh]*v[vqh]*(o.*)?", re.DOTALL)
_LONG_TOKEN = re.compile(r"\S{1000,}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_COMMAND_OPTIONS = ("--output", "-o", "--profile", "--region", "--endpoint-url", "-v", "-q")


def run_command(command: click.Command) -> int:
    """Run `command` with this process's arguments; return the exit code and raise nothing."""
    try:
        code = _exit_code(command)
        streams.flush_streams()
    except KeyboardInterrupt:  # again, while the first was being reported
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe went away (`cloudft list | head`). Nothing is left to say to it.
        streams.discard_stdout()
        return EXIT_PIPE_CLOSED
    except OSError as error:
        streams.discard_stdout()
        click.echo(f"error: can't write the output: {error.strerror or error}", err=True)
        return 1
    return code


def _exit_code(command: click.Command) -> int:
    """The exit code of a run whose errors were reported. Raise OSError of the streams alone."""
    try:
        return _invoke(command)
    except CloudftError as error:
        return report_error(error)
    except (click.exceptions.Abort, KeyboardInterrupt, EOFError):
        return report_interrupt()
    except click.exceptions.NoArgsIsHelpError as error:
        # A group without a command: its help, and success, as gh and kubectl do.
        click.echo(error.format_message())
        return 0
    except click.UsageError as error:
        return report_usage_error(error)
    except click.ClickException as error:
        return report_message(error.format_message(), "Usage", error.exit_code)
    except BrokenPipeError as error:
        if streams.is_reader_gone():
            raise
        return report_internal_error(error)
    except OSError as error:
        if _raised_while_printing(error):
            raise
        return report_os_error(error)
    except Exception as error:
        return report_internal_error(error)


def _raised_while_printing(error: BaseException) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code is click.echo.__code__ for frame, _ in frames)


def _invoke(command: click.Command) -> int:
    """Call `command` as click does.

    `Command.main` would take every broken pipe for that of standard output, one to a child
    process too, and end the program with 1 and without a word.
    """
    arguments = sys.argv[1:]
    if os.environ.get("_CLOUDFT_COMPLETE"):
        command.main(arguments, prog_name="cloudft")
    if any("\0" in word for word in arguments):
        raise click.UsageError("an argument holds a NUL character")
    try:
        with command.make_context("cloudft", arguments) as context:
            result = command.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return result if isinstance(result, int) else 0


def wants_json() -> bool:
    """Return whether this call asks for JSON, even if it broke off before its options were read."""
    asked = False
    for word, following in _with_following(sys.argv[1:]):
        short = _SHORT_OUTPUT.fullmatch(word)
        if word == "--":
            break
        if word == "--output":
            asked = following == "json"
        elif word.startswith("--output="):
            asked = word == "--output=json"
        elif short:
            asked = (short[1] or following) == "json"
    return asked


def _with_following(words: list[str]) -> Iterator[tuple[str, str]]:
    return zip(words, [*words[1:], ""][: len(words)], strict=True)


def report_error(error: CloudftError) -> int:
    """Report an error that cloudft raised on purpose, with all of its findings."""
    findings = getattr(error, "findings", ())
    shown = [f for f in findings if f.severity == "error"] or [error]
    for item in shown:
        click.echo(
            strip_control_characters(f"error: {item.message}{location_suffix(item)}"), err=True
        )
        if item.fix:
            click.echo(strip_control_characters(f"  fix: {item.fix}"), err=True)
    if wants_json():
        from cloudft.cli.output import json_text
        from cloudft.types import to_json

        more: dict[str, Any] = {"findings": to_json(list(findings))} if findings else {}
        click.echo(json_text({"error": error_json(shown[0]), **more}))
    return error.exit_code


def strip_control_characters(text: str) -> str:
    """Return the text for a terminal: no control characters, no words of thousands of letters."""
    text = _LONG_TOKEN.sub(lambda found: f"{found[0][:200]}...", text)
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def error_json(item: Any) -> dict[str, Any]:
    """Return an error, or a finding, as the contract's JSON."""
    names = ("code", "message", "file", "line", "field", "fix")
    return {name: getattr(item, name) for name in names}


def location_suffix(item: Any) -> str:
    """` (FILE:LINE, FIELD)`, with what is known of it."""
    file = f"{item.file}:{item.line}" if item.file and item.line else item.file
    parts = [part for part in (file, item.field) if part]
    return f" ({', '.join(parts)})" if parts else ""


def report_usage_error(error: click.UsageError) -> int:
    """Report a wrong flag or argument, and where help is."""
    path = error.ctx.command_path if error.ctx else "cloudft"
    fix = f"see `{path} --help`"
    if isinstance(error, click.NoSuchOption) and error.option_name in _COMMAND_OPTIONS:
        fix = (
            f"write {error.option_name} after the command: `{path} COMMAND {error.option_name} ...`"
        )
    return report_message(error.format_message(), "Usage", 2, fix)


def report_message(message: str, code: str, exit_code: int, fix: str | None = None) -> int:
    """Report an error of click's in our form."""
    if len(message) > MAX_MESSAGE_LENGTH:
        message = f"{message[:MAX_MESSAGE_LENGTH]}... ({len(message)} characters)"
    error = CloudftError(message, fix=fix)
    error.code = code  # type: ignore[misc]
    report_error(error)
    return exit_code


def report_os_error(error: OSError) -> int:
    """Report what the operating system refused: a name too long, a folder that is not writable."""
    from cloudft.storage.atomic_files import REMEDIES

    named = f"{str(error.filename)[:200]}: " if error.filename else ""
    remedy = REMEDIES.get(error.errno or 0, "check that path; -v prints where it was used.")
    _print_traceback_if_verbose()
    return report_message(f"{named}{error.strerror or error}", "System", 1, remedy)


def report_interrupt() -> int:
    """Report Ctrl-C."""
    click.echo("interrupted", err=True)
    return EXIT_INTERRUPTED


def report_internal_error(error: Exception) -> int:
    """Report what should not happen: one message here, the traceback with -v alone."""
    _print_traceback_if_verbose()
    where = f"cloudft {__version__}, Python {platform.python_version()}, {platform.system()}"
    return report_message(
        f"internal error: {type(error).__name__}: {str(error)[:300]} ({where})",
        "Internal",
        1,
        "this is a fault of cloudft: run it again with -v, and report what that prints.",
    )


def _print_traceback_if_verbose() -> None:
    if any(_VERBOSE.fullmatch(word) for word in sys.argv[1:]):
        traceback.print_exc()
