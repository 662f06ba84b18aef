"""Alpaca's instructions: `{"instruction", "input", "output"}`, the input optional."""

from __future__ import annotations

from cloudft.data.formats.record import Conversation, RawRecord
from cloudft.data.formats.record_format import (
    Keys,
    RecordFormat,
    describe_keys,
    get_text,
    make_pair,
)

NAME = "instruction"


def parse(value: RawRecord) -> Conversation:
    """Parse an instruction. Its input follows after a blank line, and may be empty or missing."""
    instruction = get_text(value, "instruction")
    context = get_text(value, "input", may_be_empty=True) if "input" in value else ""
    prompt = f"{instruction}\n\n{context}" if context.strip() else instruction
    return make_pair(NAME, prompt, get_text(value, "output"))


FORMAT = RecordFormat(
    name=NAME,
    keys=Keys(("instruction", "output"), ("input",)),
    parse=parse,
    describe=describe_keys("instruction", "output"),
)
