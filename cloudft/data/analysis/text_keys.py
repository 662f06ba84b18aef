"""Compare records by their texts: what counts as the same prompt, and as the same record."""

from __future__ import annotations

import unicodedata

from cloudft.data.formats.record import Conversation, Document, PreferencePair, Record

SEPARATOR = "\0"
"""Between the texts of one prompt, as in the batches of fast_path.py: no text has it as such."""


def split_record(record: Record) -> tuple[str, str]:
    """Return a record's prompt and its answer, each as one text.

    The prompt is all that a model reads before the last answer: system prompt, tools and turns. A
    record without an answer, and a document, is all prompt. Of a pair both answers are part of the
    prompt, and which one is preferred is the answer: another pair of the prompt is another record.
    """
    if isinstance(record, Document):
        return record.text, ""
    if isinstance(record, PreferencePair):
        prompt = [t for turn in record.turns[: record.prompt_length] for t in turn.all_texts]
        answers = record.answers()
        texts = [*record.system, *_tool_texts(record), *prompt, *sorted(answers)]
        return SEPARATOR.join(texts), answers[0]
    last = record.turns[-1]
    is_answered = last.role == "assistant"
    before = record.turns[:-1] if is_answered else record.turns
    texts = [*record.system, *_tool_texts(record), *(t for turn in before for t in turn.all_texts)]
    return SEPARATOR.join(texts), "\n".join(last.all_texts) if is_answered else ""


def _tool_texts(record: Conversation) -> list[str]:
    """Return the tools as JSON; nothing without any."""
    if not record.tools:
        return []
    import orjson

    return [orjson.dumps(record.tools).decode()]


def normalize_text(text: str) -> str:
    """Return the text as leakage compares it: NFC, without case, white space as single spaces."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return SEPARATOR.join([" ".join(part.split()) for part in text.casefold().split(SEPARATOR)])


def hash_text(text: str) -> int:
    """Return a 64-bit hash of the text (XXH3).

    Of ten million texts, two different ones have the same hash once in 400,000 sets.
    """
    from xxhash import xxh3_64_intdigest

    return xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))
