"""Find inputs that one file gives two answers: annotators who disagree, a row for each."""

from __future__ import annotations

from dataclasses import dataclass, field

import xxhash

from cloudft.data.formats.record import Conversation, Record


@dataclass
class LabelConflicts:
    """The inputs of one file so far, each with the hash of its answer and its line."""

    _answers: dict[int, tuple[int, int]] = field(default_factory=dict)

    def find(self, record: Record, line: int) -> int | None:
        """Return the line where the record's input has another answer; None if none has."""
        if not isinstance(record, Conversation):
            return None
        *prompts, answer = record.turns
        texts = [*record.system, *(text for turn in prompts for text in turn.all_texts)]
        key = xxhash.xxh3_64_intdigest("\0".join(texts).encode("utf-8", "surrogatepass"))
        label = xxhash.xxh3_64_intdigest(answer.text.encode("utf-8", "surrogatepass"))
        first, first_line = self._answers.setdefault(key, (label, line))
        return None if first == label else first_line
