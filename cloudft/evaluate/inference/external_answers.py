"""Read answers that another tool generated: a file with both models' answer to each record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from cloudft.errors import UsageError
from cloudft.evaluate.inference.cached_inference import (
    UNKNOWN_FINISH,
    VARIANTS,
    ModelAnswer,
    Variant,
)

FIX = (
    'write one line per record, in the order of the held-out data: {"base": "...", "tuned":'
    ' "..."}; the output of `cloudft generate --file DATA --base --output json` also works.'
)


def load_external_answers(path: Path, count: int) -> dict[Variant, list[ModelAnswer]]:
    """Return the answers to `count` records, by variant. Raises UsageError that names the line."""
    rows = _load_rows(path)
    if len(rows) != count:
        raise UsageError(
            f"the file has {len(rows)} answers for {count} held-out records",
            file=str(path),
            fix=FIX,
        )
    return {
        variant: [_parse_answer(row, variant, path, line) for line, row in enumerate(rows, 1)]
        for variant in VARIANTS
    }


def _load_rows(path: Path) -> Sequence[object]:
    """Return the rows of a JSON array or of JSONL."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"can't read the answers: {error.strerror}", file=str(path), fix=FIX
        ) from error
    if content.lstrip().startswith(b"["):
        rows = _parse_json(content, path, None)
        assert isinstance(rows, list)  # the text begins with a bracket
        return rows
    lines = content.splitlines()
    return [_parse_json(line, path, number) for number, line in enumerate(lines, 1) if line.strip()]


def _parse_json(text: bytes, path: Path, line: int | None) -> object:
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"invalid JSON: {error}", file=str(path), line=line, fix=FIX) from None
    return value


def _parse_answer(row: object, variant: Variant, path: Path, line: int) -> ModelAnswer:
    value = row.get(variant) if isinstance(row, Mapping) else None
    text = value.get("text") if isinstance(value, Mapping) else value
    if not isinstance(text, str):
        raise UsageError(
            f"record {line} has no answer of the {variant} model",
            file=str(path),
            line=line,
            field=variant,
            fix=FIX,
        )
    fields = value if isinstance(value, Mapping) else {}
    tokens = fields.get("tokens", 0)
    if not isinstance(tokens, int) or tokens < 0:
        raise UsageError(
            f"record {line} has no number of tokens: {str(tokens)[:40]!r}",
            file=str(path),
            line=line,
            field=f"{variant}.tokens",
            fix="write the number of the answer's tokens, or leave the key out.",
        )
    finish_reason = str(fields.get("finishReason", UNKNOWN_FINISH))
    return ModelAnswer(text, tokens, finish_reason)
