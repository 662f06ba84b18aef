"""The key that clients of a server send, and where it comes from.

It is no option of the command: every user of a machine can read the arguments of all processes
(`ps`), and shells keep them in a history.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cloudft.errors import UsageError
from cloudft.web.listening_socket import is_loopback

VARIABLE = "CLOUDFT_SERVE_API_KEY"
MAX_LENGTH = 4096


def read_api_key(file: Path | None, environ: Mapping[str, str]) -> str | None:
    """Return the key of a file, else of the environment; None without one. Raise UsageError."""
    if file is None:
        key = environ.get(VARIABLE)
        return None if key is None else _checked(key.strip(), VARIABLE)
    try:
        with file.open("rb") as content:
            raw = content.read(MAX_LENGTH + 1)
        return _checked(raw.decode("ascii").strip(), str(file))
    except OSError as error:
        raise UsageError(
            f"the API key can't be read from {file}: {error.strerror}",
            fix="name a file with the key in it.",
        ) from error
    except ValueError as error:
        raise _unusable(str(file)) from error


def _checked(key: str, source: str) -> str:
    if not key or len(key) > MAX_LENGTH or not key.isascii() or not key.isprintable():
        raise _unusable(source)
    return key


def _unusable(source: str) -> UsageError:
    return UsageError(
        f"{source} has no key that a header can carry",
        fix=f"write one line of letters and digits: `openssl rand -hex 32 > {source}`."
        if source != VARIABLE
        else f"set {VARIABLE} to letters and digits.",
    )


def require_key_for(host: str, key: str | None) -> None:
    """Raise UsageError where others could use a server without a key."""
    if key is None and not is_loopback(host):
        raise UsageError(
            f"everyone who can reach {host[:200]!r} could use the models: there is no key",
            fix=f"set {VARIABLE}, or name a file with --api-key-file; without --host the server"
            " is reachable from this machine alone.",
        )
