"""Keep special tokens that stand in a user's text from being read as special tokens.

A tokenizer reads `<|im_end|>` as the end of a turn wherever it stands. In a message it is a word
about that mark: as a token it would end the turn, or train the model to end one in the middle of an
answer. So each is replaced by a mark before the chat template is rendered, and the tokenizer
(text_tokens.py) makes plain text of the marks again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from local_backend.data.chat_messages import Chat

OPENING, CLOSING = "\ufdd0", "\ufdd1"
"""Noncharacters of Unicode, which no text is meant to have (Unicode 17, section 23.7)."""
FIRST_CODE = 0xE000
"""Private use: what is between the two is the number of a special token."""
COMPARED_KEYS = frozenset({"role", "type"})
"""Keys of messages and tools whose values are words of the format, and no text of the user."""
MARK = re.compile(f"{OPENING}(.){CLOSING}")
REASONING_TAGS = frozenset({"<think>", "</think>", "[THINK]", "[/THINK]"})
"""Read as reasoning in an answer (chat_template.py), special tokens or not."""


class LiteralTexts:
    """Replaces the special tokens of one tokenizer by marks, and back."""

    def __init__(self, special_tokens: Iterable[str]) -> None:
        tokens = sorted(set(special_tokens) - REASONING_TAGS - {""}, key=lambda t: (-len(t), t))
        self._tokens = [OPENING, CLOSING, *tokens]
        self._codes = {token: chr(FIRST_CODE + i) for i, token in enumerate(self._tokens)}
        self._pattern = re.compile("|".join(map(re.escape, self._tokens)))
        self._template_marks = re.compile(
            "|".join(map(re.escape, [*self._tokens, *sorted(REASONING_TAGS)]))
        )
        # One search for all first characters, because most texts have none of them.
        first = sorted({token[0] for token in self._tokens} | {tag[0] for tag in REASONING_TAGS})
        self._begins = re.compile(f"[{''.join(map(re.escape, first))}]").search

    def has_mark_of_template(self, text: str) -> bool:
        """Return whether the text has a special token or a reasoning tag in it."""
        return self._begins(text) is not None and self._template_marks.search(text) is not None

    def has_special(self, text: str) -> bool:
        """Return whether the text has a special token in it."""
        return self._begins(text) is not None and self._pattern.search(text) is not None

    def mark(self, text: str) -> str:
        """Return the text with a mark for each special token."""
        if not self.has_special(text):
            return text
        return self._pattern.sub(lambda m: f"{OPENING}{self._codes[m[0]]}{CLOSING}", text)

    def mark_chat(self, chat: Chat) -> Chat:
        """Return a chat with marks in all of its texts: contents, reasoning, calls, tools."""
        messages = [_map_texts(message, self, is_message=True) for message in chat.messages]
        return replace(chat, messages=messages, tools=_map_texts(chat.tools, self))

    def unmark(self, text: str) -> str:
        """Return the text with the special tokens again, which are text alone in it."""
        return MARK.sub(lambda m: self._tokens[ord(m[1]) - FIRST_CODE], text)

    def unmark_in_two(self, text: str) -> list[str]:
        """Return the text as `unmark` does, cut within each special token."""
        pieces = [""]
        for number, piece in enumerate(MARK.split(text)):
            if number % 2:
                token = self._tokens[ord(piece) - FIRST_CODE]
                pieces[-1] += token[:1]
                pieces.append(token[1:])
            else:
                pieces[-1] += piece
        return pieces


def has_marks(text: str) -> bool:
    """Return whether a rendered text has marks in it."""
    return OPENING in text


def _map_texts(value: Any, literal: LiteralTexts, *, is_message: bool = False) -> Any:
    """Return a JSON value with marks in its texts and keys, but not in what templates compare."""
    if isinstance(value, str):
        return literal.mark(value)
    if isinstance(value, dict):
        return {
            (key if is_message else literal.mark(key)): (
                item if key in COMPARED_KEYS else _map_texts(item, literal)
            )
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_map_texts(item, literal) for item in value]
    return value
