"""Estimate numbers of tokens where no tokenizer is at hand."""

from __future__ import annotations

CHARACTERS_PER_TOKEN = 6
TOKEN_ESTIMATE_RULE = (
    "estimate: characters / 6, Bedrock's planning rule; common English text has nearer 4"
)
"""What every estimate says about itself."""


def estimate_tokens(characters: int) -> int:
    """Return the tokens of so many characters, rounded up (see `TOKEN_ESTIMATE_RULE`)."""
    return -(-characters // CHARACTERS_PER_TOKEN)
