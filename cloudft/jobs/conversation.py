"""Hold a conversation with a job's model: its turns, and what of them fits the model's context."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloudft.catalogue import is_text_only
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import BadRecord, Document, Record, Turn
from cloudft.data.formats.record import Conversation as ConversationRecord
from cloudft.data.formats.registry import encode_record, find_format
from cloudft.errors import TrainerError, UsageError
from cloudft.inference import Message, Prompt, SupportsTokens
from cloudft.storage.store import JobRecord

ANY_TURNS_FORMAT = "messages"
"""Format of a saved conversation where the job's own holds one question and answer only."""
TEXT_FORMAT = "text"


@dataclass
class Conversation:
    """A system message, and turns of text: those of the user and of the assistant alternate.

    After continued pre-training a model continues raw text (`is_raw`): each text is by itself.
    """

    system: str = ""
    turns: list[Message] = field(default_factory=list)
    is_raw: bool = False

    @classmethod
    def with_job(cls, record: JobRecord, system: str = "") -> Conversation:
        """Return an empty conversation with a job's model. Raise UsageError for a system message
        to a model that continues text.
        """
        is_raw = is_text_only(record.customization_type)
        if is_raw and system:
            raise UsageError(
                f"the model of {record.id} continues text and takes no system message",
                fix="leave out the system message.",
            )
        return cls(system, is_raw=is_raw)

    def add(self, role: str, text: str) -> None:
        """Append a turn."""
        self.turns.append({"role": role, "content": text})

    def undo(self) -> bool:
        """Remove the last question with its answer; return False where there is none."""
        has_turns = bool(self.turns)
        while self.turns and self.turns.pop()["role"] != "user":
            pass
        return has_turns

    def to_prompt(self) -> Prompt:
        """Return what the model is to answer: all turns, or the last text."""
        if self.is_raw:
            return Prompt(text=str(self.turns[-1]["content"]))
        head = [{"role": "system", "content": self.system}] if self.system else []
        return Prompt([*head, *self.turns])

    def drop_oldest(self, session: SupportsTokens, context: int, new_tokens: int) -> int:
        """Drop the oldest questions with their answers until the rest fits; return how many.

        The rest leaves room for `new_tokens` in the model's context, or for half of the context
        where that is less. The last question stays.
        """
        dropped = 0
        room = context - min(new_tokens, context // 2)
        while len(self.turns) > 2 and not self._fits(session, room):
            del self.turns[:2]
            dropped += 1
        return dropped

    def _fits(self, session: SupportsTokens, room: int) -> bool:
        try:
            return session.count_tokens([self.to_prompt()])[0] <= room
        except TrainerError:  # it fills the context alone
            return False

    def to_line(self, format_name: str) -> tuple[bytes, str]:
        """Return the conversation as a JSON line, and the name of its format.

        That is the given one, or `messages` where it can't hold so many turns. Raise UsageError for
        a conversation that does not end with an answer.
        """
        if not self.turns or self.turns[-1]["role"] != "assistant":
            raise UsageError("there is no answer to save yet", fix="ask something first.")
        return encode_turns(self.system, self.turns, format_name, is_raw=self.is_raw)


def data_format(record: JobRecord) -> str:
    """Return the format that a job's own training files are in, so that lines can go beside them.

    It is the staged format where the files' own can't be written.
    """
    shapes = [one.get("shape", "") for one in record.manifest.get("sources", ())]
    known = find_format(str(shapes[0])) if shapes else None
    if known is not None and known.write is not None:
        return known.name
    return str(record.manifest.get("format", ANY_TURNS_FORMAT))


def encode_turns(
    system: str, turns: Sequence[Message], format_name: str, *, is_raw: bool
) -> tuple[bytes, str]:
    """Return turns as a JSON line of a format, or of one that holds them, and its name.

    Of a model that continues text, the last text and what follows it are one document.
    """
    texts = [str(turn["content"]) for turn in turns]
    if is_raw:
        return encode_record(Document("chat", "".join(texts[-2:])), TEXT_FORMAT)[0], TEXT_FORMAT
    parts = tuple(Turn(str(turn["role"]), (text,)) for turn, text in zip(turns, texts, strict=True))
    record = ConversationRecord("chat", (system,) if system else (), parts)
    known = find_format(format_name)
    if known is not None and known.write is not None and known.is_labeled:
        with contextlib.suppress(BadRecord):
            line = encode_record(record, format_name)[0]
            # A pair holds a system message as a part of its prompt: that is another conversation.
            if _is_same(parse_record(json.loads(line), {}), record):
                return line, format_name
    return encode_record(record, ANY_TURNS_FORMAT)[0], ANY_TURNS_FORMAT


def _is_same(read: Record, written: ConversationRecord) -> bool:
    return isinstance(read, ConversationRecord) and (
        (read.system, read.turns) == (written.system, written.turns)
    )
