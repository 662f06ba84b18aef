"""The bytes that each token of a tokenizer stands for."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SENTENCEPIECE_SPACE = "\u2581"


class TokenBytes:
    """Returns the bytes of tokens: byte-level ones, and those of SentencePiece."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        decoder = json.loads(backend.to_str()).get("decoder") if backend is not None else None
        self._is_byte_level = "ByteLevel" in json.dumps(decoder)
        self._added = {int(i) for i in tokenizer.added_tokens_decoder}

    def __call__(self, token: int) -> bytes:
        """Return the bytes of a token."""
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if not isinstance(piece, str):  # a row of the embedding that no token has
            return b""
        if token in self._added:
            return piece.encode()
        if self._is_byte_level:
            table = _byte_of_character()
            if all(character in table for character in piece):
                return bytes(table[character] for character in piece)
        match = BYTE_TOKEN.fullmatch(piece)
        if match:
            return bytes([int(match[1], 16)])
        return piece.replace(SENTENCEPIECE_SPACE, " ").encode()


@lru_cache(maxsize=1)
def _byte_of_character() -> dict[str, int]:
    """Return GPT-2's table: printable bytes stand for themselves, the others follow from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + at): byte for at, byte in enumerate(others)}
