"""Errors as people and programs want them: one message, a remedy, an honest exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import Any

import click

from cloudft.errors import CloudftError

INTERRUPTED = 130


def run(command: click.Command) -> int:
    """Run `command` with this process's arguments; returns the exit code."""
    try:
        result = command.main(standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except CloudftError as error:
        return tell(error)
    except click.exceptions.Abort:
        return interrupted()
    except KeyboardInterrupt:
        return interrupted()
    except click.UsageError as error:
        return tell_usage(error)
    except click.ClickException as error:
        return tell_message(error.format_message(), "Usage", error.exit_code)
    except BrokenPipeError:
        # The reader of a pipe went away (`cloudft list | head`). Nothing is left to say to it.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        return tell_bug(error)


def wants_json() -> bool:
    """True when this call asked for JSON, even if it broke off before its options were read."""
    arguments = sys.argv[1:]
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    return "--output=json" in arguments or any(
        option in ("--output", "-o") and value == "json" for option, value in pairs
    )


def tell(error: CloudftError) -> int:
    """An error that cloudft raised on purpose, with all of its findings."""
    findings = getattr(error, "findings", ())
    shown = [f for f in findings if f.severity == "error"] or [error]
    for item in shown:
        click.echo(f"error: {item.message}{place(item)}", err=True)
        if item.fix:
            click.echo(f"  fix: {item.fix}", err=True)
    if wants_json():
        from cloudft.cli.render import json_text
        from cloudft.types import to_json

        more: dict[str, Any] = {"findings": to_json(list(findings))} if findings else {}
        click.echo(json_text({"error": body(shown[0]), **more}))
    return error.exit_code


def body(item: Any) -> dict[str, Any]:
    """Return an error, or a finding, as the contract's JSON."""
    names = ("code", "message", "file", "line", "field", "fix")
    return {name: getattr(item, name) for name in names}


def place(item: Any) -> str:
    """` (FILE:LINE, FIELD)`, with what is known of it."""
    file = f"{item.file}:{item.line}" if item.file and item.line else item.file
    parts = [part for part in (file, item.field) if part]
    return f" ({', '.join(parts)})" if parts else ""


def tell_usage(error: click.UsageError) -> int:
    """A wrong flag or argument, and where help is."""
    path = error.ctx.command_path if error.ctx else "cloudft"
    return tell_message(error.format_message(), "Usage", 2, f"see `{path} --help`")


def tell_message(message: str, code: str, exit_code: int, fix: str | None = None) -> int:
    """An error of click's, in our form."""
    error = CloudftError(message, fix=fix)
    error.code = code  # type: ignore[misc]
    tell(error)
    return exit_code


def interrupted() -> int:
    """Ctrl-C."""
    click.echo("interrupted", err=True)
    return INTERRUPTED


def tell_bug(error: Exception) -> int:
    """Something that should not happen: the message here, the traceback where it was asked for."""
    if {"-v", "--verbose"} & set(sys.argv):
        traceback.print_exc()
    return tell_message(
        f"unexpected {type(error).__name__}: {error}",
        "Internal",
        1,
        "this is a fault of cloudft: please report it with what the command prints with -v.",
    )
