"""Measure how long `cloudft --help` and a tab completion take.

    python benchmarks/startup.py

Each run is a fresh interpreter; the shortest time counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping

from smallest import build_parser

RUNS = 20
CODE = (
    "from cloudft.cli.main import main; import sys; sys.argv = ['cloudft', *sys.argv[1:]]; main()"
)
COMPLETION = {
    "_CLOUDFT_COMPLETE": "bash_complete",
    "COMP_WORDS": "cloudft sta",
    "COMP_CWORD": "1",
}


def measure_best(arguments: list[str], environment: Mapping[str, str], runs: int) -> float:
    """Return the shortest wall time of `runs` runs, in milliseconds."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", CODE, *arguments],
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def main() -> None:
    """Print one Markdown row for each command."""
    runs = 1 if build_parser(__doc__).parse_args().smallest else RUNS
    rows: list[tuple[str, list[str], Mapping[str, str]]] = [
        ("cloudft --help", ["--help"], {}),
        ("shell completion of a command", [], COMPLETION),
    ]
    for name, arguments, environment in rows:
        print(f"| {name} | {measure_best(arguments, environment, runs):.0f} ms |")


if __name__ == "__main__":
    main()
