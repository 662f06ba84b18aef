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
        self._can_cut = tokenizer.is_fast
        self._added = [token.content for token in added.values()]
        self._by_text = {token.content: token for token in added.values() if token.special}
        self.ids = {token.content: i for i, token in added.items() if token.special}
        self.numbers = frozenset(self.ids.values()) - {tokenizer.unk_token_id}
        self._first_characters = {text[0] for text in self.ids if text}
        self._end = tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id or 0)
        longest_first = sorted(self.ids, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        self._openers: dict[str, re.Pattern[str] | None] = {}
        self._is_cut_token: dict[str, bool] = {}

    def opener_pattern(self, template: str) -> re.Pattern[str] | None:
        """Return a pattern of the places before which the template may begin a turn; None if none.

        Those are the special tokens that the template writes, without the one that ends a turn.
        """
        if template not in self._openers:
            written = [t for t in sorted(self.ids) if t and t in template and t != self._end]
            openers = [text for text in written if self._is_cut_exactly(text)]
            pattern = f"(?={'|'.join(map(re.escape, openers))})"
            self._openers[template] = re.compile(pattern) if openers else None
        return self._openers[template]

    def find_end(self, text: str) -> str | None:
        """Return the special token at the end of a text, if the text can be cut after it."""
        at = max(map(text.rfind, self._first_characters), default=-1)
        end = text[at:] if at >= 0 else ""
        return end if end in self.ids and self._is_cut_exactly(end) else None

    def _is_cut_exactly(self, text: str) -> bool:
        """Return whether a text can be cut before and after this token without changing tokens."""
        if text not in self._is_cut_token:
            token = self._by_text[text]
            takes_more = token.lstrip or token.rstrip or token.single_word or token.normalized
            self._is_cut_token[text] = (
                self._can_cut
                and not takes_more
                and not any(_begins_before(other, text) for other in self._added if other != text)
            )
        return self._is_cut_token[text]

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


def _begins_before(other: str, text: str) -> bool:
    """Return whether `other` may be found in place of `text`: from before it, or longer than it."""
    return text in other or any(text.startswith(other[at:]) for at in range(1, len(other)))
