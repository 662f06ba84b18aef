"""Write the data of the two jobs in this folder from that of the intents example.

python examples/intents/reinforcement/build.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SOURCE = FOLDER.parent / "data"
PER_INTENT, PROMPTS, HELD_OUT = 5, 320, 96


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_data(folder: Path, prompts: int = PROMPTS, held_out: int = HELD_OUT) -> None:
    """Write the few answered records, the other prompts, and held-out prompts of other templates.

    The prompts keep their answers, which become the references that only the grader sees.
    """
    records = read_jsonl(SOURCE / "train.jsonl")
    random.Random(7).shuffle(records)
    seen: dict[str, int] = {}
    few, others = [], []
    for record in records:
        intent = record["messages"][-1]["content"]
        seen[intent] = seen.get(intent, 0) + 1
        (few if seen[intent] <= PER_INTENT else others).append(record)
    tests = read_jsonl(SOURCE / "test.jsonl")
    random.Random(7).shuffle(tests)
    folder.mkdir(exist_ok=True)
    files = {"few": few, "prompts": others[:prompts], "held-out": tests[:held_out]}
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_data(FOLDER / "data")
