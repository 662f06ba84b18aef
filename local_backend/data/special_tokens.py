"""What a tokenizer's special tokens are, and where a text may be cut at them.

The library `tokenizers` splits a text at its special tokens before it does anything else
(added_vocabulary.rs), and tokenizes what lies between two of them by itself. So a text that is cut
before a special token has the same tokens, if that token takes no white space before it, is
no part of a longer one, and is matched as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerBase


class SpecialTokens:
    """The special tokens of one tokenizer: `ids` by text, and `numbers`, those of known texts."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        added: dict[int, AddedToken] = (
            tokenizer.backend_tokenizer.get_added_tokens_decoder()
            if tokenizer.is_fast
            else tokenizer.added_tokens_decoder
        )
        self._by_text = {token.content: token for token in added.values() if token.special}
        self.ids = {token.content: i for i, token in added.items() if token.special}
        self.numbers = frozenset(self.ids.values()) - {tokenizer.unk_token_id}
        everything = [token.content for token in added.values()]
        self._cut = frozenset(
            text
            for text, token in self._by_text.items()
            if tokenizer.is_fast and _is_cut_exactly(token, everything)
        )
        self._end = tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id or 0)
        self._pattern = re.compile(
            "|".join(map(re.escape, sorted(self.ids, key=len, reverse=True)))
        )
        self._openers: dict[str, re.Pattern[str] | None] = {}

    def opener_pattern(self, template: str) -> re.Pattern[str] | None:
        """Return a pattern of the places before which the template may begin a turn; None if none.

        Those are the special tokens that the template writes, without the one that ends a turn.
        """
        if template not in self._openers:
            openers = [t for t in sorted(self._cut) if t in template and t != self._end]
            pattern = f"(?={'|'.join(map(re.escape, openers))})"
            self._openers[template] = re.compile(pattern) if openers else None
        return self._openers[template]

    def find_end(self, text: str) -> str | None:
        """Return the special token at the end of a text, if the text can be cut after it."""
        at = max(text.rfind(token[0]) for token in self._cut) if self._cut else -1
        if at < 0:
            return None
        return text[at:] if text[at:] in self._cut else None

    def split(self, text: str) -> Iterator[tuple[str, str]]:
        """Yield what lies between special tokens, and the token after it ("" at the end).

        White space that a token takes is left out.
        """
        at, strips = 0, False
        for match in self._pattern.finditer(text) if self.ids else ():
            token = self._by_text[match[0]]
            stretch = text[at : match.start()]
            stretch = stretch.lstrip() if strips else stretch
            yield stretch.rstrip() if token.lstrip else stretch, match[0]
            at, strips = match.end(), token.rstrip
        yield text[at:].lstrip() if strips else text[at:], ""


def _is_cut_exactly(token: AddedToken, everything: list[str]) -> bool:
    """Return whether a text can be cut before and after this token without changing its tokens."""
    text = token.content
    if token.lstrip or token.rstrip or token.single_word or token.normalized:
        return False
    return not any(_begins_before(other, text) for other in everything if other != text)


def _begins_before(other: str, text: str) -> bool:
    """Return whether `other` may be found in place of `text`: from before it, or longer than it."""
    return text in other or any(text.startswith(other[at:]) for at in range(1, len(other)))
