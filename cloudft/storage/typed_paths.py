"""Read a path that a person typed into a page or a command."""

from __future__ import annotations

import os
from pathlib import Path

from cloudft.errors import UsageError


def read_typed_path(text: str) -> Path:
    """Return the path in a text, with `~` replaced. Raise UsageError for what can be no path."""
    name = text.strip()
    if not name or "\0" in name:
        raise UsageError(f"{text[:200]!r} is no path", fix="write the path of a file or folder.")
    return Path(os.path.expanduser(name))  # noqa: PTH111  (Path.expanduser raises for ~nobody)
