"""The fast path for chats: blocks of plain conversations, as OpenAI's or Bedrock's API has them.

Each line is decoded into structs that allow texts alone, and in which roles alternate; any other
line makes the whole block be read line by line (see fast_path.py, which holds the two equal).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec

from cloudft.data.formats.record import Conversation, Turn

StructT = TypeVar("StructT", bound=msgspec.Struct)


def record_decoder(struct: type[StructT]) -> Callable[[bytes, bool], list[StructT]]:
    """Return a function that decodes records: lines, or an array's elements without its brackets.

    Values one after another count as lines, even without line ends between. It raises
    msgspec.DecodeError.
    """
    decoder = msgspec.json.Decoder(struct)
    array_decoder = msgspec.json.Decoder(list[struct])  # type: ignore[valid-type]

    def decode(raw: bytes, in_array: bool) -> list[StructT]:
        if in_array:
            return array_decoder.decode(b"".join((b"[", raw, b"]")))
        return decoder.decode_lines(raw)

    return decode


class _TextMessage(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant"]
    content: str


class _TextChat(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    messages: list[_TextMessage]


class _Block(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    text: str


class _BlockMessage(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    role: Literal["user", "assistant"]
    content: list[_Block]


class _BlockChat(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    messages: list[_BlockMessage]
    schemaVersion: str | msgspec.UnsetType = msgspec.UNSET
    system: list[_Block] | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True)
class PlainChat:
    """A conversation of texts alone: its system texts, and the texts of each turn."""

    system: tuple[str, ...]
    turns: Sequence[tuple[str, ...]]

    def texts(self) -> list[str]:
        """Return all texts, in order."""
        return [*self.system, *(text for turn in self.turns for text in turn)]

    def to_conversation(self, format: str) -> Conversation:
        """Return it as parsing it singly would."""
        roles = ("user", "assistant")
        turns = tuple([Turn(roles[i % 2], texts) for i, texts in enumerate(self.turns)])
        return Conversation(format, self.system, turns)


@dataclass(frozen=True)
class DecodedChats:
    """The chats of a block, and how many quotes their JSON has if no key is repeated."""

    chats: list[PlainChat]
    quotes: int


Decode = Callable[[bytes, bool], "DecodedChats | None"]
"""Takes lines, or an array's elements without its brackets if the second argument is true."""
_decode_text = record_decoder(_TextChat)
_decode_blocks = record_decoder(_BlockChat)


def decode_text_chats(raw: bytes, in_array: bool = False) -> DecodedChats | None:
    """Return OpenAI's chats; None if one has more than texts in alternating turns."""
    chats, quotes = [], 0
    for record in _decode_text(raw, in_array):
        messages = record.messages
        quotes += 2 + 8 * len(messages)  # "messages"; "role", its value, "content", its value
        has_system = bool(messages) and messages[0].role == "system"
        turns = messages[1:] if has_system else messages
        if not _alternate([turn.role for turn in turns]):
            return None
        system = (messages[0].content,) if has_system else ()
        chats.append(PlainChat(system, [(turn.content,) for turn in turns]))
    return DecodedChats(chats, quotes)


def decode_block_chats(raw: bytes, in_array: bool = False) -> DecodedChats | None:
    """Return Bedrock's conversations; None if one has more than texts in alternating turns."""
    chats, quotes = [], 0
    for record in _decode_blocks(raw, in_array):
        messages = record.messages
        if not _alternate([turn.role for turn in messages]):
            return None
        quotes += 2 + 6 * len(messages)
        system: tuple[str, ...] = ()
        if record.system is not msgspec.UNSET:
            system = tuple([block.text for block in record.system])
            quotes += 2
            if not system:
                return None
        quotes += 4 * (record.schemaVersion is not msgspec.UNSET)
        turns = [tuple([block.text for block in turn.content]) for turn in messages]
        if not all(turns):
            return None
        quotes += 4 * (len(system) + sum(map(len, turns)))
        chats.append(PlainChat(system, turns))
    return DecodedChats(chats, quotes)


def _alternate(roles: Sequence[str]) -> bool:
    """Return whether turns begin with the user, alternate, and end with the assistant."""
    if len(roles) == 2:  # most chats
        return roles[0] == "user" and roles[1] == "assistant"
    half = len(roles) // 2
    return bool(roles) and list(roles) == ["user", "assistant"] * half and len(roles) % 2 == 0


CHAT_DECODERS: dict[str, Decode] = {
    "messages": decode_text_chats,
    "converse": decode_block_chats,
}
"""By the name of the format that parsing such a record singly finds."""
CONTENT_TYPES: dict[str, type] = {"messages": str, "converse": list}
"""The type of a message's content that each decoder takes."""
