"""Start the command line: `python -m cloudft` and the script `cloudft`."""

from __future__ import annotations

import gc
import os
import sys

GC_THRESHOLD = 100_000
"""Allocations between two runs of the garbage collector."""


def main() -> None:
    """Run the command line. Ctrl-C during the imports exits with 130, as it does later."""
    # Imports allocate many objects and leave no garbage: the default threshold (700) makes them
    # a tenth slower.
    gc.set_threshold(GC_THRESHOLD)
    # pydantic would read the metadata of every installed package to find plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        from cloudft.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
