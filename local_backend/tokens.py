"""`python -m local_backend.tokens`: a child that says what a model makes of records.

The first line of standard input is a request as JSON:

    {"model": {"name", "weights"}, "supervised": true, "format": "converse", "preview": false}

Each further line is a canonical record. Standard output has `{"context": N, "chatTemplate":
"plain" | "the model's own"}`, then a line a record, in order: `{"tokens": N, "learned": N}`; with
`preview` `{"pieces": [{"id", "text", "learned"}, ...]}`, a piece a token. Or `{"error", "fix"}`.
Records are rendered and tokenised by the functions that training uses; no weights are loaded.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from local_backend.batches import tokenised
from local_backend.errors import TrainerError
from local_backend.model import load_tokenizer
from local_backend.report import quiet_libraries
from local_backend.template import messages_of, stop_tokens, turns
from local_backend.weights import locate

Say = Callable[[dict[str, Any]], None]


def tokenizer_of(request: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The tokenizer with its template, and what else is known of the model."""
    from transformers import AutoConfig

    source = locate(request["model"]["name"], request["model"]["weights"])
    try:
        tokenizer, plain = load_tokenizer(source)
        config = AutoConfig.from_pretrained(source).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TrainerError(f"The tokenizer of {source} can't be loaded: {reason}") from error
    facts = {
        "context": int(getattr(config, "max_position_embeddings", 0) or 2048),
        "chatTemplate": "plain" if plain else "the model's own",
        "stops": stop_tokens(tokenizer, generation_config(source)),
    }
    return tokenizer, facts


def generation_config(source: str) -> Any:
    """The model's generation settings; None when it has none."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(source)
    except OSError:
        return None


def conversations(
    tokenizer: Any, stops: list[int], request: dict[str, Any], lines: Iterator[str]
) -> Iterator[list[tuple[str, bool]]]:
    """Each record as pieces of text, learned and not, as training cuts it."""
    texts = [tokenizer.convert_ids_to_tokens(i) for i in stops]
    for line in lines:
        record = json.loads(line)
        if request["supervised"]:
            yield turns(tokenizer, messages_of(record, request["format"]), texts)
        else:
            yield [(record["input"], True)]


def answer(request: dict[str, Any], lines: Iterator[str], say: Say) -> None:
    """Say what becomes of each record."""
    tokenizer, facts = tokenizer_of(request)
    stops = facts.pop("stops")
    say(facts)
    end = [] if request["supervised"] else [tokenizer.eos_token_id]  # between packed documents
    pieces = conversations(tokenizer, stops, request, lines)
    for ids, learned in tokenised(pieces, tokenizer):
        ids, learned = [*ids, *end], [*learned, *([True] * len(end))]
        learned[0] = False  # there is nothing before it to be predicted from
        if request["preview"]:
            parts = zip(ids, tokenizer.batch_decode([[i] for i in ids]), learned, strict=True)
            say({"pieces": [{"id": i, "text": t, "learned": m} for i, t, m in parts]})
        else:
            say({"tokens": len(ids), "learned": sum(learned)})


def main() -> int:
    """Answer until standard input ends. What libraries print goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=replies)

    try:
        quiet_libraries()
        answer(json.loads(sys.stdin.readline()), iter(sys.stdin.readline, ""), say)
    except TrainerError as error:
        say({"error": error.message, "fix": error.fix})
        return 1
    finally:
        replies.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
