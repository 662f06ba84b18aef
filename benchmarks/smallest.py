"""The switch `--smallest` that every benchmark has: its smallest input, once, in a few seconds.

tests/e2e/test_benchmarks.py starts each benchmark so, to see that it still runs. The figures mean
nothing then.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the switch; its value is `smallest`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smallest", action="store_true", help="one quick run on little input")
    return parser


def build_tiny_model(folder: Path) -> Path:
    """Write the tests' random model of two layers to a folder and return the folder."""
    sys.path.insert(0, str(TESTS))
    import tiny

    # A context that the benchmarks' longest prompts fit into.
    return tiny.build_model(folder, context=4096)
