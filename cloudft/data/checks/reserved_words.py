"""Words that a base model's training data may not have: in any text, as AWS's validators look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudft.catalogue.model import Limits
from cloudft.data.checks.violation import LimitViolation
from cloudft.data.formats.record import Conversation, Reasoning, json_pointer

MIN_CHARACTERS_PER_ANCHOR = 64
"""Characters for each last character of a word above which its occurrences are found one by one."""


class ReservedWords:
    """The reserved words of one model. Empty without limits."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits
        any_case = () if limits is None else (*limits.reserved, *limits.reserved_unsure)
        self._any_case = tuple(word.lower() for word in any_case)
        self._exact = () if limits is None else limits.reserved_exact
        self._by_last_character: dict[str, tuple[str, ...]] = {}
        for word in self._any_case:
            others = self._by_last_character.get(word[-1], ())
            self._by_last_character[word[-1]] = (*others, word)
        self._longest = max(map(len, self._any_case), default=0)

    def are_absent(self, columns: Sequence[Sequence[str]]) -> bool:
        """Return True if no text of some columns of texts has a word: one test of all at once."""
        if not self._any_case and not self._exact:
            return True
        # NUL: no word may span two texts.
        joined = "\0".join(["\0".join(column) for column in columns])
        # In a format that has exact words, the texts of a turn are joined by line ends.
        lines = joined.replace("\0", "\n") if self._exact else ""
        if any(word in lines for word in self._exact):
            return False
        lower = ""
        for last, words in self._by_last_character.items():
            count = joined.count(last)
            if count * MIN_CHARACTERS_PER_ANCHOR > len(joined):
                lower = lower or joined.lower()
                if any(word in lower for word in words):
                    return False
            elif count and self._find_ending(joined, last, words):
                return False
        return True

    def _find_ending(self, text: str, last: str, words: tuple[str, ...]) -> bool:
        """Return whether one of the words ends where `last` is: faster than a search for each."""
        end = text.find(last)
        while end >= 0:
            if text[max(0, end + 1 - self._longest) : end + 1].lower().endswith(words):
                return True
            end = text.find(last, end + 1)
        return False

    def check_record(self, record: Conversation) -> Iterator[LimitViolation]:
        """Yield a violation for each text with a reserved word: the first that it has."""
        limits = self._limits
        if limits is None or not (self._any_case or self._exact):
            return
        for what, text, field in _texts_of(record):
            lower = text.lower()
            for word in (*limits.reserved, *limits.reserved_unsure):
                if word.lower() in lower:
                    yield self._violation(what, word, field)
                    break
        if self._exact:
            yield from self._check_exact(record)

    def _check_exact(self, record: Conversation) -> Iterator[LimitViolation]:
        # Texts are joined by line ends in the format that has such words (claude-messages).
        texts = [("system prompt", "\n".join(record.system), json_pointer("system"))]
        texts += [
            (_role_name(turn.role), turn.text, json_pointer("messages", index))
            for index, turn in enumerate(record.turns)
        ]
        for what, text, field in texts:
            for word in self._exact:
                if word in text:
                    yield self._violation(what, word, field)
                    break

    def _violation(self, what: str, word: str, field: str) -> LimitViolation:
        limits = self._limits
        assert limits is not None
        if word in limits.reserved_unsure:
            source = limits.source_of("reserved_unsure")
            message = f"the {what} has the word {word!r}, which may be reserved ({source})"
            fix = "write it differently if the job fails on it"
            return LimitViolation("warning", "ReservedWord", message, fix, field)
        name = "reserved_exact" if word in self._exact else "reserved"
        message = f"the {what} has the reserved word {word!r} ({limits.source_of(name)})"
        fix = f"write it differently, such as {_other_spelling(word)!r}: the job fails on it"
        return LimitViolation("error", "ReservedWord", message, fix, field)


def _texts_of(record: Conversation) -> Iterator[tuple[str, str, str]]:
    """Yield what each text is, the text, and a JSON pointer to it."""
    for index, text in enumerate(record.system):
        yield "system prompt", text, json_pointer("system", index)
    for index, (role, content, _) in enumerate(record.turns):
        for block in content:
            if isinstance(block, str):
                yield _role_name(role), block, json_pointer("messages", index)
            elif isinstance(block, Reasoning):
                yield "reasoning", block.text, json_pointer("messages", index)


def _role_name(role: str) -> str:
    return "answer" if role == "assistant" else "prompt"


def _other_spelling(word: str) -> str:
    """Return the word as it is not reserved: `User -`, `(image)`."""
    name = word.strip().strip("<>[]:")
    return f"{name} -" if word.endswith(":") else f"({name})"
