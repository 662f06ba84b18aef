"""Measure the Data pages over a file of 5,000,000 records: the server's answer, whole.

    python benchmarks/data_pages.py

The first page is that of a file which was never opened, in a home without an index; the last record
is opened right after it, while lines are still counted, and again when all are. Beside each stands
the same by reading the file from its beginning, as a loop over its lines does. Milliseconds; the
median of five rounds.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from smallest import TESTS, build_parser

sys.path.insert(0, str(TESTS))

from workbench_server import RunningWorkbench, running_workbench

RECORDS, ROUNDS = 5_000_000, 5
BLOCK = 10_000


def write_records(path: Path, count: int) -> None:
    """Write short records of 60 to 66 bytes."""
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, count, BLOCK):
            numbers = range(start, min(count, start + BLOCK))
            line = '{{"prompt": "Where is parcel {0}?", "completion": "lost {0}"}}\n'
            file.write("".join(line.format(number) for number in numbers))


def measure(act: Callable[[], object]) -> float:
    """Return how many milliseconds an action takes."""
    start = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - start)


def get_page(running: RunningWorkbench, address: str, text: str) -> None:
    """Fetch a page that must have a text."""
    status, page = running.get(address)
    assert status == 200 and text in page, address


def read_last_line(path: Path) -> bytes:
    """Return the last line of a file, by reading all lines before it."""
    last = b""
    with path.open("rb") as file:
        for line in file:
            last = line
    return last


def measure_round(path: Path, home: Path, count: int) -> dict[str, float]:
    """Return the milliseconds of each action, in a home that knows nothing of the file."""
    address, last = f"data/records?path={path}", f"parcel {count - 1}?"
    with running_workbench(home) as running:
        running.get("data")  # imports what the pages need
        took = {"first page": measure(lambda: get_page(running, address, "parcel 24?"))}
        jump = f"{address}&from={count}"
        took["last record, while counting"] = measure(lambda: get_page(running, jump, last))
        while f"of {count:,}" not in running.get(address)[1]:
            time.sleep(0.05)
        took["last record, counted"] = measure(lambda: get_page(running, jump, last))
    with running_workbench(home) as running:
        running.get("data")
        took["first page, kept index"] = measure(
            lambda: get_page(running, address, f"of {count:,}")
        )
    took["reading all lines"] = measure(lambda: read_last_line(path))
    return took


def main() -> None:
    """Print one Markdown row for each action."""
    is_smallest = build_parser(__doc__).parse_args().smallest
    count, rounds = (20_000, 1) if is_smallest else (RECORDS, ROUNDS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "records.jsonl"
        write_records(path, count)
        found = [measure_round(path, folder / f"home-{n}", count) for n in range(rounds)]
    print(f"| {count:,} records | median ms | of reading all lines |\n| --- | --- | --- |")
    reading = statistics.median(one["reading all lines"] for one in found)
    for action in found[0]:
        took = statistics.median(one[action] for one in found)
        print(f"| {action} | {took:.0f} | {took / reading:.2f} |")


if __name__ == "__main__":
    main()
