"""Log-probabilities of an answer's tokens, in the two forms of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloudft.serving.engine import TokenLogprob


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return the form of chat completions. Texts of partial characters have their bytes."""
    return {
        "content": [
            {**_chat_token(token), "top_logprobs": [_chat_token(one) for one in token.top]}
            for token in tokens
        ],
        "refusal": None,
    }


def _chat_token(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.data)}


class LegacyLogprobs:
    """Log-probabilities in the form of `/v1/completions`, part by part of a stream.

    `text_offset` counts characters of the whole answer, from those that it begins with (`echo`).
    """

    def __init__(self, offset: int = 0) -> None:
        self._offset = offset

    def add(self, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
        """Return the form of the next tokens."""
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token.text)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{one.text: one.logprob for one in token.top} for token in tokens],
            "text_offset": offsets,
        }
