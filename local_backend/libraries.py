"""Settings of the libraries that every program of the trainer uses: their noise, their imports."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator


def silence_libraries() -> None:
    """Turn off the progress bars and warnings of transformers, which would fill the log."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def hide_torch() -> None:
    """Make transformers run without torch, unless this process has imported it already.

    Tokenizers and configurations do not use torch, but transformers imports it with them: three
    times the memory and the time. With None in `sys.modules` an import of torch raises
    ModuleNotFoundError, and transformers takes it as not installed.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would warn of no torch
    if "torch" not in sys.modules:
        sys.modules["torch"] = None  # type: ignore[assignment]


@contextlib.contextmanager
def pause_collection() -> Iterator[None]:
    """Collect no cyclic garbage within the context.

    Imports and the loading of a model make many objects that stay. Python would look through all
    of them again and again: a seventh of the time that the imports take.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
