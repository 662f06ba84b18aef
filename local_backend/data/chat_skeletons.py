"""Split chats of text alone with one rendering each.

Splitting a chat needs two renderings for each reply (chat_template.py). But most templates put the
texts of a chat between marks that follow from the roles alone. So for each sequence of roles a
made-up chat is split, and its texts are replaced by those of the record. That is right if the whole
record, rendered by the template, is the made-up chat rendered with its texts replaced: this is
compared for every record. Where it differs (a template that trims texts, or looks into them), the
record is split in the complete way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from local_backend.data.chat_messages import Chat, Message

MAX_SKELETONS = 256
"""Sequences of roles that are remembered; records of others are split in the complete way."""
PLACE = re.compile(r"qz(\d+)zq")
"""What the texts of the made-up chat are: words that no template has."""
Roles = tuple[str, ...]


@dataclass(frozen=True)
class _Template:
    """A text with places for the messages of a chat."""

    form: str
    places: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> _Template:
        places = tuple(int(match[1]) for match in PLACE.finditer(text))
        return cls(PLACE.sub("%s", text.replace("%", "%%")), places)

    def fill(self, contents: Sequence[str]) -> str:
        return self.form % tuple([contents[place] for place in self.places])


@dataclass(frozen=True)
class _Skeleton:
    whole: _Template
    pieces: tuple[_Template, ...]


class Skeletons:
    """The skeletons of one template.

    `split` returns the texts of a chat's pieces in the complete way, `render` a finished chat.
    """

    def __init__(
        self, split: Callable[[Chat], Sequence[str]], render: Callable[[Chat], str]
    ) -> None:
        self._split = split
        self._render = render
        self._known: dict[Roles, _Skeleton | None] = {}

    def split(self, chat: Chat) -> list[str] | None:
        """Return the pieces of a chat of text alone; None if it has to be split completely.

        Raise TrainerError if the template refuses the chat.
        """
        skeleton = self._find(tuple([message["role"] for message in chat.messages]))
        if skeleton is None:
            return None
        contents = [message["content"] for message in chat.messages]
        if self._render(chat) != skeleton.whole.fill(contents):
            return None
        return [piece.fill(contents) for piece in skeleton.pieces]

    def _find(self, roles: Roles) -> _Skeleton | None:
        if roles not in self._known:
            if len(self._known) >= MAX_SKELETONS:
                return None
            self._known[roles] = self._make(roles)
        return self._known[roles]

    def _make(self, roles: Roles) -> _Skeleton | None:
        messages: list[Message] = [
            {"role": role, "content": f"qz{number}zq"} for number, role in enumerate(roles)
        ]
        chat = Chat(messages)
        whole = _Template.of(self._render(chat))
        pieces = tuple(_Template.of(piece) for piece in self._split(chat))
        # Each text once, in the record and in its pieces: a template that leaves one out, or
        # writes it twice, is not one of these.
        every = tuple(range(len(roles)))
        in_pieces = tuple(place for piece in pieces for place in piece.places)
        return _Skeleton(whole, pieces) if whole.places == every == in_pieces else None
