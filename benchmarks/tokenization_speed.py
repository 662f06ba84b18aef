"""Measure tokenization in tokens per second, as a job does it and with the tokenizer alone.

    python benchmarks/tokenization_speed.py

The records of an example, twenty times with another number in each, through the model's chat
template and tokenizer as in a job; and the tokenizer alone on the finished texts, with offsets (as
transformers calls it) and without. Best of three rounds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from smallest import ROOT, build_parser

sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "train")]
RECORDS, REPEATS, ROUNDS = 480, 20, 3


def measure_best(work: Callable[[], int], rounds: int) -> float:
    """Return the tokens per second of the fastest round; `work` returns its number of tokens."""
    speeds = []
    for _ in range(rounds):
        started = time.perf_counter()
        speeds.append(work() / (time.perf_counter() - started))
    return max(speeds)


def number_texts(record: Any, number: int) -> Any:
    """Return a record whose texts are those of no other repetition."""
    messages = [
        {**turn, "content": [{"text": f"{block['text']} {number}"} for block in turn["content"]]}
        for turn in record["messages"]
    ]
    return {**record, "messages": messages}


def measure_speeds(tokenizer: Any, rows: Sequence[Any], rounds: int) -> tuple[float, ...]:
    """Return the speeds of the complete way, of the tokenizer, and of it with offsets."""
    from local_backend.data.chat_messages import to_chat
    from local_backend.data.chat_template import split_turns
    from local_backend.data.text_tokens import encode_texts, tokenize_segments

    def segments() -> Iterator[Any]:
        return (split_turns(tokenizer, to_chat(row, "converse"), ["<|im_end|>"]) for row in rows)

    texts = [text for turns in segments() for text, _ in turns]

    def complete() -> int:
        return sum(len(ids) for ids, _ in tokenize_segments(segments(), tokenizer))

    def alone() -> int:
        return sum(map(len, encode_texts(tokenizer, texts)))

    def with_offsets() -> int:
        return sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))

    return tuple(measure_best(work, rounds) for work in (complete, alone, with_offsets))


def main() -> int:
    """Print a row for each example."""
    import contestant

    from local_backend.models.load_tokenizer import load_tokenizer
    from local_backend.models.weights import locate_weights

    is_smallest = build_parser(__doc__).parse_args().smallest
    count, repeats, rounds = (4, 1, 1) if is_smallest else (RECORDS, REPEATS, ROUNDS)
    tokenizer, _ = load_tokenizer(locate_weights("smollm2-135m", contestant.WEIGHTS))
    print("| records | complete | tokenizer only | tokenizer with offsets |")
    print("| --- | --- | --- | --- |")
    for name in ("aws-cli", "intents"):
        records = [contestant.canonical(r) for r in contestant.records(name, 0, count)]
        rows = [number_texts(r, repeat) for repeat in range(repeats) for r in records]
        speeds = measure_speeds(tokenizer, rows, rounds)
        cells = " | ".join(f"{speed / 1e6:.2f} M/s" for speed in speeds)
        print(f"| {name}, {len(rows):,} | {cells} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
