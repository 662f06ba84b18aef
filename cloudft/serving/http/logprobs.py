"""Log-probabilities of an answer's tokens, in the two forms of OpenAI's API."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cloudft.serving.engine import ScoredPrompt, TokenLogprob


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

    def add_prompt(self, prompt: ScoredPrompt, echo: str) -> dict[str, Any]:
        """Return the form of the prompt's tokens, whose text is `echo`.

        The first token follows nothing and has no score. A token that the text does not have (BOS)
        takes none of its characters.
        """
        written = self.add(prompt.tokens)
        pieces = [prompt.first.encode(), *(token.data for token in prompt.tokens)]
        self._offset = len(echo)
        return {
            "tokens": [prompt.first, *written["tokens"]],
            "token_logprobs": [None, *written["token_logprobs"]],
            "top_logprobs": [None, *written["top_logprobs"]],
            "text_offset": list(_offsets(pieces, echo.encode())),
        }

    def add(self, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
        """Return the form of the next tokens."""
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token.text)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [_by_text(token.top) for token in tokens],
            "text_offset": offsets,
        }


def _by_text(tokens: Iterable[TokenLogprob]) -> dict[str, float]:
    """Return the probabilities by text; of several tokens with one text, that of the likeliest."""
    found: dict[str, float] = {}
    for token in tokens:
        found.setdefault(token.text, token.logprob)
    return found


def _offsets(pieces: Iterable[bytes], text: bytes) -> Iterator[int]:
    """Yield the index of the character of `text` (UTF-8) that each piece of it begins with."""
    position = characters = 0
    for piece in pieces:
        yield characters
        # SentencePiece puts a space before a text that has none.
        found = next(
            (one for one in (piece, piece.lstrip(b" ")) if text.startswith(one, position)), b""
        )
        characters += sum(byte & 0xC0 != 0x80 for byte in found)
        position += len(found)
