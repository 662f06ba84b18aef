"""Handle standard streams that are closed, full, or of another encoding than the text."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import sys
from pathlib import Path

ERROR_HANDLER = "cloudft-output"
"""Name of the codec error handler of standard output."""


def open_closed_streams() -> None:
    """Open the null device for each closed standard stream (`cloudft list >&-`).

    Python sets a closed stream to None, and the next file that is opened would get its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)


def accept_any_text() -> None:
    """Make standard output accept every text, whatever its encoding.

    Bytes of undecodable file names are written as they are, other characters as JSON escapes.
    """
    codecs.register_error(ERROR_HANDLER, _encode_unencodable)
    with contextlib.suppress(AttributeError):  # a stream that a test has replaced
        sys.stdout.reconfigure(errors=ERROR_HANDLER)  # type: ignore[union-attr]


def _encode_unencodable(error: UnicodeError) -> tuple[bytes, int]:
    r"""Return the original bytes of undecodable names, as `ls` prints them; else JSON's \uXXXX."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    written = b""
    for character in error.object[error.start : error.end]:
        code = ord(character)
        if 0xDC80 <= code <= 0xDCFF:
            written += bytes([code - 0xDC00])
        else:
            units = character.encode("utf-16-be", "surrogatepass")
            written += b"".join(
                b"\\u" + units[i : i + 2].hex().encode() for i in (0, 2)[: len(units) // 2]
            )
    return written, error.end


def flush_streams() -> None:
    """Write what is buffered. Raise OSError when standard output or error can't be written."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def discard_stdout() -> None:
    """Send the rest of standard output to the null device.

    The interpreter flushes it at exit, which would fail again.
    """
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_reader_gone() -> bool:
    """Return whether standard output or error is a pipe that is no longer read."""
    gone = False
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            poll = select.poll()
            poll.register(stream.fileno(), 0)
            gone |= any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return gone
