"""`python -m local_backend.data.tokenize_records`: a child that says what a model makes of records.

The first line of standard input is a request as JSON:

    {"model": {"name", "weights"}, "supervised": true, "format": "converse", "preview": false}

Each further line is a canonical record. Standard output has `{"context": N, "chatTemplate":
"plain" | "the model's own"}`, then a line a record, in order: `{"tokens": N, "learned": N}`; with
`preview` `{"pieces": [{"id", "text", "learned"}, ...]}`, a piece a token; their texts one after
another are what the model is given. Or `{"error", "fix"}`.
Records are rendered and tokenised by the functions that training uses; no weights are loaded.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from local_backend.data.batches import tokenize_segments
from local_backend.data.chat_template import Segment, find_stop_tokens, split_turns, to_messages
from local_backend.errors import TrainerError
from local_backend.models.load_model import load_tokenizer
from local_backend.models.weights import locate_weights
from local_backend.process_exit import exit_now
from local_backend.progress import silence_libraries

Reply = Callable[[dict[str, Any]], None]


def load_tokenizer_facts(request: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The tokenizer with its template, and what else is known of the model."""
    from transformers import AutoConfig

    source = locate_weights(request["model"]["name"], request["model"]["weights"])
    try:
        tokenizer, plain = load_tokenizer(source)
        config = AutoConfig.from_pretrained(source).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TrainerError(f"The tokenizer of {source} can't be loaded: {reason}") from error
    facts = {
        "context": int(getattr(config, "max_position_embeddings", 0) or 2048),
        "chatTemplate": "plain" if plain else "the model's own",
        "stops": find_stop_tokens(tokenizer, read_generation_config(source)),
    }
    return tokenizer, facts


def read_generation_config(source: str) -> Any:
    """The model's generation settings; None when it has none."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(source)
    except OSError:
        return None


def render_segments(
    tokenizer: Any, stops: list[int], request: dict[str, Any], lines: Iterable[bytes]
) -> Iterator[list[Segment]]:
    """Each record as pieces of text, learned and not, as training cuts it."""
    texts = [tokenizer.convert_ids_to_tokens(i) for i in stops]
    for line in lines:
        record = json.loads(line)
        if request["supervised"]:
            yield split_turns(tokenizer, to_messages(record, request["format"]), texts)
        else:
            yield [(record["input"], True)]


def split_token_texts(tokenizer: Any, text: str) -> list[str]:
    """The part of `text` that each of its tokens stands for.

    Of several tokens that make one character, the first has it. Joined they are the text, white
    space that a tokenizer drops included; one without offsets gives its own words for them.
    """
    if not tokenizer.is_fast:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return [str(part) for part in tokenizer.convert_ids_to_tokens(ids)]
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in found["offset_mapping"]]
    parts, at = [], 0
    for end in [*ends[:-1], len(text)] if ends else []:
        parts.append(text[at:end])
        at = max(at, end)
    return parts


def reply_to(request: dict[str, Any], lines: Iterable[bytes], say: Reply) -> None:
    """Say what becomes of each record."""
    tokenizer, facts = load_tokenizer_facts(request)
    stops = facts.pop("stops")
    say(facts)
    end = [] if request["supervised"] else [tokenizer.eos_token_id]  # between packed documents
    records = render_segments(tokenizer, stops, request, lines)
    if request["preview"]:
        for pieces in records:
            say({"pieces": preview_tokens(tokenizer, pieces, end)})
        return
    for ids, learned in tokenize_segments(records, tokenizer):
        ids, learned = complete_record(ids, learned, end)
        say({"tokens": len(ids), "learned": sum(learned)})


def preview_tokens(tokenizer: Any, pieces: list[Segment], end: list[int]) -> list[dict[str, Any]]:
    """One record, token by token."""
    [(ids, learned)] = tokenize_segments([pieces], tokenizer)
    ids, learned = complete_record(ids, learned, end)
    texts = [part for text, _ in pieces for part in split_token_texts(tokenizer, text)]
    texts += tokenizer.convert_ids_to_tokens(end)
    parts = zip(ids, texts, learned, strict=True)
    return [{"id": i, "text": text, "learned": mark} for i, text, mark in parts]


def complete_record(
    ids: list[int], learned: list[bool], end: list[int]
) -> tuple[list[int], list[bool]]:
    """A record's tokens and the one behind it; the first has nothing to be predicted from."""
    ids, learned = [*ids, *end], [*learned, *([True] * len(end))]
    learned[:1] = [False] * len(learned[:1])
    return ids, learned


def main() -> int:
    """Answer until standard input ends. What libraries print goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=replies)

    try:
        silence_libraries()
        lines = sys.stdin.buffer
        reply_to(json.loads(lines.readline()), lines, say)
    except TrainerError as error:
        say({"error": error.message, "fix": error.fix})
        return 1
    finally:
        replies.flush()
    return 0


if __name__ == "__main__":
    exit_now(main())
