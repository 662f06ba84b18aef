"""Report every error as one message, a remedy and an exit code, for people or as JSON.

No exception leaves `run_command`: it is the outermost frame of the program.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from cloudft import __version__
from cloudft.cli import streams
from cloudft.errors import CloudftError

if TYPE_CHECKING:
    from cloudft.types import Finding

EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141
"""128 + SIGPIPE: what a shell shows for `ls`, `git` or `grep` in the same case."""
MAX_MESSAGE_LENGTH = 1000
_SHORT_OUTPUT = re.compile(r"-[vqh]*o=?(.*)", re.DOTALL)
_VERBOSE = re.compile(r"--verbose|-[qh]*v[vqh]*(o.*)?", re.DOTALL)
_LONG_TOKEN = re.compile(r"\S{1000,}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_COMMAND_OPTIONS = ("--output", "-o", "--profile", "--region", "--endpoint-url", "-v", "-q")


def run_command(command: click.Command) -> int:
    """Run `command` with this process's arguments. Return its exit code; raise nothing."""
    try:
        code = _exit_code(command)
        streams.flush_streams()
    except KeyboardInterrupt:  # a second Ctrl-C, while the first was being reported
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe went away (`cloudft list | head`): nobody reads a message.
        streams.discard_stdout()
        return EXIT_PIPE_CLOSED
    except OSError as error:
        streams.discard_stdout()
        click.echo(f"error: can't write the output: {error.strerror or error}", err=True)
        return 1
    return code


def _exit_code(command: click.Command) -> int:  # noqa: C901  # one branch for each kind of error
    """Run `command`, report its error, and return the exit code.

    Raise OSError only for the standard streams themselves.
    """
    try:
        return _invoke(command)
    except CloudftError as error:
        return report_error(error)
    except (click.exceptions.Abort, KeyboardInterrupt, EOFError):
        return report_interrupt()
    except click.exceptions.NoArgsIsHelpError as error:
        # A group without a command prints its help and succeeds, as gh and kubectl do.
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
    """Return whether the error comes from `click.echo`, not from the command's own files."""
    position = error.__traceback__
    while position is not None:
        if position.tb_frame.f_code is click.echo.__code__:
            return True
        position = position.tb_next
    return False


def _invoke(command: click.Command) -> int:
    """Call `command` and return its exit code. Raise what the command raises.

    This is not `command.main`: that takes every broken pipe for that of standard output, even one
    to a child process, and exits with 1 without a message.
    """
    arguments = sys.argv[1:]
    if os.environ.get("_CLOUDFT_COMPLETE"):
        command.main(arguments, prog_name="cloudft")
    if any("\0" in word for word in arguments):
        raise click.UsageError("an argument contains a NUL character")
    try:
        with command.make_context("cloudft", arguments) as context:
            result = command.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return result if isinstance(result, int) else 0


def wants_json() -> bool:
    """Return whether this call has `--output json`, even if click never parsed its options."""
    is_json = False
    for word, following in _with_following(sys.argv[1:]):
        short = _SHORT_OUTPUT.fullmatch(word)
        if word == "--":
            break
        if word == "--output":
            is_json = following == "json"
        elif word.startswith("--output="):
            is_json = word == "--output=json"
        elif short:
            is_json = (short[1] or following) == "json"
    return is_json


def _with_following(words: list[str]) -> Iterator[tuple[str, str]]:
    return zip(words, [*words[1:], ""][: len(words)], strict=True)


def report_error(error: CloudftError) -> int:
    """Print an error of cloudft with all of its findings. Return its exit code."""
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

        more: dict[str, object] = {"findings": to_json(list(findings))} if findings else {}
        click.echo(json_text({"error": error_json(shown[0]), **more}))
    return error.exit_code


def strip_control_characters(text: str) -> str:
    """Return the text for a terminal: control characters escaped, words over 1,000 letters cut."""
    text = _LONG_TOKEN.sub(lambda found: f"{found[0][:200]}...", text)
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def strip_terminal_controls(text: str) -> str:
    """Return the whole text for a terminal, with its control characters escaped."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def error_json(item: CloudftError | Finding) -> dict[str, object]:
    """Return an error, or a finding, as the JSON object that `--output json` prints."""
    names = ("code", "message", "file", "line", "field", "fix")
    return {name: getattr(item, name) for name in names}


def location_suffix(item: CloudftError | Finding) -> str:
    """Return ` (FILE:LINE, FIELD)` with the parts that are known, or an empty text."""
    file = f"{item.file}:{item.line}" if item.file and item.line else item.file
    parts = [part for part in (file, item.field) if part]
    return f" ({', '.join(parts)})" if parts else ""


def report_usage_error(error: click.UsageError) -> int:
    """Print a wrong flag or argument, and how to get help. Return exit code 2."""
    path = error.ctx.command_path if error.ctx else "cloudft"
    fix = f"see `{path} --help`"
    if isinstance(error, click.NoSuchOption) and error.option_name in _COMMAND_OPTIONS:
        fix = (
            f"write {error.option_name} after the command: `{path} COMMAND {error.option_name} ...`"
        )
    return report_message(error.format_message(), "Usage", 2, fix)


def report_message(message: str, code: str, exit_code: int, fix: str | None = None) -> int:
    """Print an error of click in cloudft's format. Return `exit_code`."""
    if len(message) > MAX_MESSAGE_LENGTH:
        message = f"{message[:MAX_MESSAGE_LENGTH]}... ({len(message)} characters)"
    error = CloudftError(message, fix=fix)
    error.code = code  # type: ignore[misc]
    report_error(error)
    return exit_code


def report_os_error(error: OSError) -> int:
    """Print what the operating system refused, for example a name too long. Return 1."""
    from cloudft.storage.atomic_files import REMEDIES

    named = f"{str(error.filename)[:200]}: " if error.filename else ""
    remedy = REMEDIES.get(error.errno or 0, "check that path; -v prints the traceback.")
    _print_traceback_if_verbose()
    return report_message(f"{named}{error.strerror or error}", "System", 1, remedy)


def report_interrupt() -> int:
    """Print that Ctrl-C was pressed. Return 130."""
    click.echo("interrupted", err=True)
    return EXIT_INTERRUPTED


def report_internal_error(error: Exception) -> int:
    """Print an unexpected exception: one message, and with -v its traceback. Return 1."""
    _print_traceback_if_verbose()
    import platform

    where = f"cloudft {__version__}, Python {platform.python_version()}, {platform.system()}"
    return report_message(
        f"internal error: {type(error).__name__}: {str(error)[:300]} ({where})",
        "Internal",
        1,
        "this is a bug in cloudft: run the command again with -v, and report the output.",
    )


def _print_traceback_if_verbose() -> None:
    if any(_VERBOSE.fullmatch(word) for word in sys.argv[1:]):
        import traceback

        traceback.print_exc()
