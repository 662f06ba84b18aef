"""Records made into tokens, a second: `python benchmarks/tokenization_speed.py`.

The records of an example twenty times over, through the model's own chat template and tokenizer, as
a job does it; beside it the tokenizer alone on the finished texts, as transformers calls it (with
offsets) and without. Best of three.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "train")]
TIMES, ROUNDS = 20, 3


def best(work: Callable[[], int]) -> float:
    """Tokens a second of the fastest round."""
    found = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        found.append(work() / (time.perf_counter() - begun))
    return max(found)


def speeds(tokenizer: Any, rows: list[Any]) -> tuple[float, ...]:
    """All of it; the tokenizer alone; the tokenizer with offsets."""
    from local_backend.data.chat_template import split_turns, to_messages
    from local_backend.data.encode import tokenize_batch, tokenize_segments

    def pieces() -> Iterator[Any]:
        return (
            split_turns(tokenizer, to_messages(row, "converse"), ["<|im_end|>"]) for row in rows
        )

    texts = [text for parts in pieces() for text, _ in parts]
    return (
        best(lambda: sum(len(ids) for ids, _ in tokenize_segments(pieces(), tokenizer))),
        best(lambda: sum(map(len, tokenize_batch(tokenizer, texts)))),
        best(lambda: sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))),
    )


def main() -> int:
    """A row for each example."""
    import contestant

    from local_backend.models.load_model import load_tokenizer
    from local_backend.models.weights import locate_weights

    tokenizer, _ = load_tokenizer(locate_weights("smollm2-135m", contestant.WEIGHTS))
    print("| records | all of it | tokenizer alone | tokenizer with offsets |")
    print("| --- | --- | --- | --- |")
    for name in ("aws-cli", "intents"):
        rows = [contestant.canonical(r) for r in contestant.records(name, 0, 480)] * TIMES
        cells = " | ".join(f"{speed / 1e6:.2f} M/s" for speed in speeds(tokenizer, rows))
        print(f"| {name}, {len(rows):,} | {cells} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
