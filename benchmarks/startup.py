"""How long `cloudft --help` and a tab completion take: best of N, a fresh interpreter each time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping

RUNS = 20
CODE = (
    "from cloudft.cli.main import main; import sys; sys.argv = ['cloudft', *sys.argv[1:]]; main()"
)
COMPLETION = {
    "_CLOUDFT_COMPLETE": "bash_complete",
    "COMP_WORDS": "cloudft sta",
    "COMP_CWORD": "1",
}


def best(arguments: list[str], environment: Mapping[str, str]) -> float:
    """The shortest of RUNS wall times, in milliseconds."""
    times = []
    for _ in range(RUNS):
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
    """Print one Markdown row each."""
    rows: list[tuple[str, list[str], Mapping[str, str]]] = [
        ("cloudft --help", ["--help"], {}),
        ("completion of a command", [], COMPLETION),
    ]
    for name, arguments, environment in rows:
        print(f"| {name} | {best(arguments, environment):.0f} ms |")


if __name__ == "__main__":
    main()
