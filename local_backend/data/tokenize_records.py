"""Show how a model tokenizes records: `python -m local_backend.data.tokenize_records`.

The first line of standard input is a request as JSON:

    {"model": {"name", "weights"}, "customizationType": "FINE_TUNING", "format": "converse",
     "preview": false, "features": false}

Each further line is a canonical record. Standard output has `{"context": N, "chatTemplate": "plain"
| "the model's own", "writesDate": bool}`, with `features` also what the template renders of tools
and reasoning (template_support.py), then one line for each record, in order: `{"tokens": N,
"learned": N}`, with `"longest": N` for a record of several sequences, and `"lastTurnOnly": true` if
earlier answers are not learned, or `{"problem", "fix"}` for a record that the template refuses;
with `preview` `{"pieces": [{"id", "text", "learned"}, ...]}`, one piece for each token, and
`{"rows": [PIECES, ...]}` with those of each sequence where there are several, each as soon as its
record is read; the first line then has `specialIds`, the ids of the special tokens. The texts of
the pieces, concatenated, are what the model is given. On failure `{"error", "fix"}`. Records are
rendered and tokenized by the functions that training uses; no weights are loaded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from local_backend.data.chat_template import RecordFormat, find_stop_tokens
from local_backend.data.prepared_tokenizer import keep_prepared, read_prepared
from local_backend.data.special_tokens import SpecialTokens
from local_backend.data.template_date import writes_date
from local_backend.data.template_support import supported_features
from local_backend.data.text_tokens import Segment, Tokens, text_tokenizer, tokenize_segments
from local_backend.errors import TrainerError
from local_backend.job_dir import ModelRequest
from local_backend.libraries import hide_torch, silence_libraries
from local_backend.models.load_tokenizer import load_tokenizer
from local_backend.models.weights import locate_tokenizer
from local_backend.process_exit import exit_now
from local_backend.replies import Reply, ReplyWriter
from local_backend.training.objectives import Objective, find_objective

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase


class _TokenizeRequest(TypedDict):
    model: ModelRequest
    customizationType: str
    format: str
    preview: bool


class TokenizeRequest(_TokenizeRequest, total=False):
    """The first line of standard input."""

    features: bool


@dataclass(frozen=True)
class TokenizerFacts:
    """A model's tokenizer, and what else records and replies need of the model."""

    tokenizer: PreTrainedTokenizerBase
    uses_plain_template: bool
    context_length: int
    stop_ids: list[int]


def load_tokenizer_facts(model: ModelRequest) -> TokenizerFacts:
    """Return the tokenizer with its template, and the facts of the model that replies need.

    That of a folder is kept for the next time. Raise TrainerError if it can't be loaded.
    """
    # With torch, if it is to be converted.
    source, config_source = locate_tokenizer(model["name"], model["weights"])
    hide_torch()
    folder = Path(source)
    kept = read_prepared(folder, lambda: load_tokenizer(source)[0]) if folder.is_dir() else None
    if kept is not None:
        return TokenizerFacts(kept[0], **kept[1])
    facts = _load_with_transformers(source, config_source)
    if folder.is_dir():
        others = {key: value for key, value in vars(facts).items() if key != "tokenizer"}
        keep_prepared(folder, facts.tokenizer, others)
    return facts


def _load_with_transformers(source: str, config_source: str) -> TokenizerFacts:
    silence_libraries()
    from transformers import AutoConfig

    try:
        tokenizer, is_plain = load_tokenizer(source)
        config = AutoConfig.from_pretrained(config_source).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TrainerError(
            f"The tokenizer of {source} can't be loaded: {reason}",
            fix="save the model's tokenizer again with save_pretrained, or choose another model.",
        ) from error
    return TokenizerFacts(
        tokenizer,
        is_plain,
        int(getattr(config, "max_position_embeddings", 0) or 2048),
        find_stop_tokens(tokenizer, read_generation_config(config_source)),
    )


def read_generation_config(source: str) -> GenerationConfig | None:
    """Return the model's generation settings; None if it has none."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(source)
    except OSError:
        return None


class RecordRenderer:
    """Renders records as training splits them, and remembers what is particular about some."""

    def __init__(self, objective: Objective, record_format: RecordFormat) -> None:
        self._objective, self._format = objective, record_format
        self.problems: dict[int, TrainerError] = {}
        """The refusals, by the number of their record."""
        self.last_turn_only: set[int] = set()

    def render(self, lines: Iterable[bytes]) -> Iterator[list[Segment]]:
        """Yield each sequence of each record as segments, with and without loss."""
        for number, line in enumerate(lines):
            before = self._format.last_turn_only
            try:
                rows = self._objective.render_rows(json.loads(line), self._format)
            except TrainerError as problem:
                self.problems[number] = problem
                rows = [[]] * self._objective.rows_per_record
            yield from rows
            if self._format.last_turn_only > before:
                self.last_turn_only.add(number)


def reply_to(request: TokenizeRequest, lines: Iterable[bytes], reply: Reply) -> None:
    """Write the model's facts, then a reply for each record."""
    objective = find_objective(request["customizationType"])
    facts = load_tokenizer_facts(request["model"])
    tokenizer = facts.tokenizer
    described = describe(facts, with_features=request.get("features", False))
    if request["preview"]:
        described["specialIds"] = sorted(SpecialTokens(tokenizer).numbers)
    reply(described)
    stop_texts = [str(tokenizer.convert_ids_to_tokens(i)) for i in facts.stop_ids]
    record_format = RecordFormat(request["format"], tokenizer, stop_texts)
    if request["preview"]:
        for line in lines:
            previews = [
                preview_tokens(tokenizer, segments, objective)
                for segments in objective.render_rows(json.loads(line), record_format)
            ]
            several = {"rows": previews} if len(previews) > 1 else {}
            reply({"pieces": previews[0], **several})
        return
    renderer = RecordRenderer(objective, record_format)
    encoded = tokenize_segments(renderer.render(lines), tokenizer)
    for number, rows in enumerate(_in_groups(encoded, objective.rows_per_record)):
        problem = renderer.problems.pop(number, None)
        if problem is not None:
            reply({"problem": problem.message, "fix": problem.fix})
            continue
        completed = [objective.complete(ids, mask, tokenizer) for ids, mask in rows]
        lengths = [len(ids) for ids, _ in completed]
        counted: dict[str, object] = {
            "tokens": sum(lengths),
            "learned": sum(sum(mask) for _, mask in completed),
        }
        counted |= {"longest": max(lengths)} if len(lengths) > 1 else {}
        reply(counted | ({"lastTurnOnly": True} if number in renderer.last_turn_only else {}))


def _in_groups(rows: Iterator[Tokens], size: int) -> Iterator[tuple[Tokens, ...]]:
    """Yield the sequences of each record."""
    return zip(*[rows] * size, strict=True)


def describe(facts: TokenizerFacts, *, with_features: bool) -> dict[str, object]:
    """Return what is said of the model before its records."""
    template: object = facts.tokenizer.chat_template
    named = template.values() if isinstance(template, dict) else [template]
    described: dict[str, object] = {
        "context": facts.context_length,
        "chatTemplate": "plain" if facts.uses_plain_template else "the model's own",
        "writesDate": any(isinstance(text, str) and writes_date(text) for text in named),
    }
    if with_features:
        described["features"] = supported_features(facts.tokenizer)
    return described


class TokenPreview(TypedDict):
    """One token of a previewed record."""

    id: int
    text: str
    learned: bool


def preview_tokens(
    tokenizer: PreTrainedTokenizerBase, segments: list[Segment], objective: Objective
) -> list[TokenPreview]:
    """Return one record token by token."""
    begin, end = objective.begin_tokens(tokenizer), objective.end_tokens(tokenizer)
    pieces = text_tokenizer(tokenizer).explain(segments)
    ids, loss_mask = objective.complete(
        [token for token, _, _ in pieces], [has_loss for _, _, has_loss in pieces], tokenizer
    )
    texts = [
        *tokenizer.convert_ids_to_tokens(begin),
        *[text for _, text, _ in pieces],
        *tokenizer.convert_ids_to_tokens(end),
    ]
    return [
        {"id": token, "text": text, "learned": has_loss}
        for token, text, has_loss in zip(ids, texts, loss_mask, strict=True)
    ]


def main() -> int:
    """Reply until standard input ends. Send the output of libraries to standard error."""
    lines = sys.stdin.buffer
    request: TokenizeRequest = json.loads(lines.readline())
    # Counts are thousands of replies, which the end flushes; a preview is waited for.
    with ReplyWriter(flush_each=request["preview"]) as reply:
        reply_to(request, lines, reply)
    return reply.status


if __name__ == "__main__":
    exit_now(main())
