"""Make start and end of the command line cheaper."""

from __future__ import annotations

import gc
import os

GC_THRESHOLD = 500_000
"""Container objects between two garbage collections; Python's own is 700 or 2,000."""
_DEFAULT_THRESHOLD = gc.get_threshold()


def prepare_imports() -> None:
    """Collect garbage rarely, and load no plugins of pydantic. Call it before large imports."""
    # Imports allocate many objects and leave no garbage: collections take a tenth of a start.
    gc.set_threshold(GC_THRESHOLD)
    # pydantic would read the metadata of every installed package to find plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def prepare_exit() -> None:
    """Skip the collection at the interpreter's end: the process frees all of its memory anyway."""
    gc.disable()


def restore_garbage_collection() -> None:
    """Collect garbage as often as Python does: for a process that runs for hours."""
    gc.set_threshold(*_DEFAULT_THRESHOLD)
