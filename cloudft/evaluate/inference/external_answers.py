"""Answers that were made elsewhere: a file with what base and tuned model said to each record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from cloudft.errors import UsageError
from cloudft.evaluate.inference.cached_inference import VARIANTS, ModelAnswer

FIX = (
    'give a line a record, in the order of the held-out data: {"base": "...", "tuned": "..."};'
    " what `cloudft generate --file DATA --base --output json` prints will do."
)


def load_external_answers(path: Path, count: int) -> dict[str, list[ModelAnswer]]:
    """The answers of `count` records, by variant. Raises UsageError that names the line."""
    rows = _load_rows(path)
    if len(rows) != count:
        raise UsageError(
            f"there are {len(rows)} answers for {count} held-out records", file=str(path), fix=FIX
        )
    return {
        variant: [_parse_answer(row, variant, path, line) for line, row in enumerate(rows, 1)]
        for variant in VARIANTS
    }


def _load_rows(path: Path) -> Sequence[Any]:
    """One JSON array, or JSONL."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the answers can't be read: {error.strerror}", file=str(path), fix=FIX
        ) from error
    if content.lstrip().startswith(b"["):
        return [*_parse_json(content, path, None)]
    lines = content.splitlines()
    return [_parse_json(line, path, number) for number, line in enumerate(lines, 1) if line.strip()]


def _parse_json(text: bytes, path: Path, line: int | None) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"no JSON: {error}", file=str(path), line=line, fix=FIX) from None


def _parse_answer(row: Any, variant: str, path: Path, line: int) -> ModelAnswer:
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
    more: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
    return ModelAnswer(text, int(more.get("tokens", 0)), str(more.get("finishReason", "stop")))
