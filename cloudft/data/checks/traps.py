"""Find what trains without an error, and is hardly what was meant: traps, one warning a file.

Lost characters and control tokens may be anywhere: every text is searched, whole blocks at once (a
block without certain bytes has none). A habit of a whole file shows in its first records; only what
most of these have is counted in all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cloudft.data.findings import Findings
from cloudft.data.formats.fast_path import RecordBatch
from cloudft.data.formats.record import Conversation, Record
from cloudft.data.sources.line_blocks import is_numpy_worthwhile

SAMPLE_RECORDS = 200
"""Records in which the habits of a file are searched."""
MIN_RECORDS = 2
"""Records that must have a habit: fewer prove nothing."""
MAX_LISTED_LINES = 3
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_REPLACEMENT_UTF8 = REPLACEMENT.encode()


@dataclass(frozen=True)
class TrapWarning:
    """One trap of a file, with the line of the first record that has it."""

    code: str
    message: str
    fix: str
    line: int


@dataclass
class _Count:
    """The records that have a trap: how many, the first lines, and an example."""

    records: int = 0
    lines: list[int] = field(default_factory=list)
    example: str = ""

    def add(self, line: int, example: str = "") -> None:
        """Count a record."""
        self.records += 1
        if len(self.lines) < MAX_LISTED_LINES:
            self.lines.append(line)
        self.example = self.example or example


@dataclass(frozen=True)
class _Habit:
    """Something that is a trap when at least `share` of a file's records have it.

    `match` returns what shows it, or "" for none, of a record's prompts and its answer.
    """

    code: str
    match: Callable[[Sequence[str], str], str]
    share: float
    message: str
    fix: str


# A backslash and an n as two characters where a line should end; LaTeX's \nabla and \neq are none.
_ESCAPED_LINE_END = re.compile(
    r"\\n(?!(abla|e|eq|ot|otin|u|ewline|ewcommand|oindent|onumber|ormal|mid|leq|geq)\b)"
)
_PLACEHOLDER = re.compile(r"<\|?(image|video|audio)(_\d+|_pad)?\|?>|\[img-\d+\]")
_TEMPLATE = re.compile(
    r"\[/?INST\]|<<SYS>>|<(start|end)_of_turn>|^\s*<s>|</s>\s*$|<bos>|<eos>|<\uff5c[\w\u2581]+\uff5c>"
)
_CONTROL_TOKEN = re.compile(r"<\|[A-Za-z][\w-]{0,40}\|>")
_EPOCH = re.compile(r"1\d{9}(\d{3})?(\.\d+)?")
_NUMBER = re.compile(r"-?\d{1,3}")
_PROMPT_SEPARATORS = ("\n\n###\n\n", "\n###\n", "\n\n###", " ->", "\n->", "\n\nIntent:\n\n")
_ANSWER_SEPARATORS = (" END", "\nEND", " ###", "\n###", "<END>", " <|endoftext|>")


def _find_escapes(prompts: Sequence[str], answer: str) -> str:
    texts = [*prompts, answer]
    has_escape = any("\\n" in text and _ESCAPED_LINE_END.search(text) for text in texts)
    return "\\n" if has_escape and not any("\n" in text for text in texts) else ""


def _find_separators(prompts: Sequence[str], answer: str) -> str:
    prompt = prompts[-1] if prompts else ""
    ends = [end for end in _PROMPT_SEPARATORS if prompt.endswith(end)][:1]
    ends += [end for end in _ANSWER_SEPARATORS if answer.rstrip(" ").endswith(end)][:1]
    return " and ".join(map(repr, ends))


def _find_placeholder(prompts: Sequence[str], answer: str) -> str:
    return _first_match(_PLACEHOLDER, [*prompts, answer])


def _find_template(prompts: Sequence[str], answer: str) -> str:
    return _first_match(_TEMPLATE, [*prompts, answer])


def _first_match(pattern: re.Pattern[str], texts: Iterable[str]) -> str:
    for text in texts:
        if ("<" in text or "[" in text) and (match := pattern.search(text)):
            return match[0].strip()
    return ""


def _find_epoch(prompts: Sequence[str], answer: str) -> str:
    return "a time" if _EPOCH.fullmatch(answer) else ""


_HABITS = (
    _Habit(
        "DoubledEscapes",
        _find_escapes,
        0.5,
        "'\\n' as two characters where lines should end: escaped twice",
        "decode the texts once more before they are written as JSON; a model learns the characters",
    ),
    _Habit(
        "CompletionSeparators",
        _find_separators,
        0.9,
        "texts end with {example}: separators of OpenAI's old completion models",
        "take them off: a chat model has tokens for the end of a turn, and learns to write these",
    ),
    _Habit(
        "MediaPlaceholders",
        _find_placeholder,
        0.01,
        "{example} as text, where a picture or a sound was: a text model never sees it",
        "take the records out, or give the pictures to a model that takes them (nova-lite), as"
        ' blocks: {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://BUCKET/KEY"}}}}',
    ),
    _Habit(
        "TemplatedTexts",
        _find_template,
        0.01,
        "{example} in texts: they are rendered with a chat template already",
        "write the turns as messages without it: the base model's own template is put around them",
    ),
    _Habit(
        "TimesAsAnswers",
        _find_epoch,
        1.0,
        "every answer is a number like a time (seconds or milliseconds since 1970)",
        "write the dates as dates: some readers of JSON turn ISO dates into such numbers",
    ),
)
_LOST = _Habit(
    "LostCharacters",
    _find_epoch,
    0.0,
    "U+FFFD in texts: characters that an earlier program could not decode, and are lost",
    "make the file anew from its source, decoded with the right encoding (often cp1252)",
)
_CONTROL = _Habit(
    "ControlTokens",
    _find_epoch,
    0.0,
    "{example} in texts: a control token, which is trained on as plain text",
    "write the turns as messages without it: the base model's own template is put around them",
)


class TrapDetector:
    """Takes the records of one file, singly or in blocks, and returns which traps it has."""

    def __init__(self) -> None:
        self._records = 0
        self._lost, self._control = _Count(), _Count()
        self._habits = {habit: _Count() for habit in _HABITS}
        self._numbers: dict[str, int] | None = {}
        self._first_line = 0
        self._escapes_less_than: bool | None = None

    def add_record(self, record: Record, line: int) -> None:
        """Search one record."""
        if isinstance(record, Conversation):
            prompts = list(record.system)
            for turn in record.turns[:-1]:
                prompts += turn.texts
            last = record.turns[-1]
            if last.role == "user":
                prompts, answer = [*prompts, *last.texts], ""
            else:
                answer = last.text
            texts = [*prompts, answer]
        else:
            prompts, answer, texts = [], "", [record.text]
        self._search((texts,), (line,))
        self._add_habits(prompts, answer if isinstance(record, Conversation) else texts[0], line)

    def add_batch(self, batch: RecordBatch, raw: bytes, lines: Sequence[int]) -> None:
        """Search a block of plain records.

        `raw` is what they were decoded from, `lines` has the line of each.
        """
        if self._escapes_less_than is None:
            # Some writers (Go, Gson) escape "<" everywhere.
            self._escapes_less_than = b"\\u003c" in raw
        if self._escapes_less_than or _may_hold_traps(raw, batch):
            rows = (
                zip(batch.prompts, batch.completions, strict=True)
                if batch.completions
                else ((text,) for text in batch.prompts)
            )
            self._search(rows, lines)
        if not self._habits and self._numbers is None:
            self._records += len(batch)
            return
        answers = batch.completions or batch.prompts
        for index, answer in enumerate(answers):
            if not self._habits and self._numbers is None:
                self._records += len(batch) - index
                return
            prompts = batch.prompts[index].split("\0") if batch.completions else ()
            self._add_habits(prompts, answer, lines[index])

    def _search(self, rows: Iterable[Sequence[str]], lines: Iterable[int]) -> None:
        """Count the records with lost characters and with control tokens."""
        for texts, line in zip(rows, lines, strict=False):
            if any(REPLACEMENT in text for text in texts):
                self._lost.add(line)
            if any("<|" in text for text in texts):
                found = next(filter(None, map(_CONTROL_TOKEN.search, texts)), None)
                if found and not _PLACEHOLDER.fullmatch(found[0]):
                    self._control.add(line, found[0])

    def _add_habits(self, prompts: Sequence[str], answer: str, line: int) -> None:
        """Count the habits that the file may still have."""
        self._records += 1
        for habit, count in self._habits.items():
            example = habit.match(prompts, answer)
            if example:
                count.add(line, example)
        if self._numbers is not None:
            self._first_line = self._first_line or line
            if _NUMBER.fullmatch(answer):
                self._numbers[answer] = self._numbers.get(answer, 0) + 1
            else:
                self._numbers = None
        if self._records == SAMPLE_RECORDS:
            self._habits = {
                habit: count
                for habit, count in self._habits.items()
                if count.records >= habit.share * self._records and count.records
            }

    def finish(self) -> Iterator[TrapWarning]:
        """Yield a warning for each trap."""
        for trap, count in ((_LOST, self._lost), (_CONTROL, self._control)):
            if count.records:
                yield self._warn(trap, count)
        for habit, count in self._habits.items():
            if count.records >= max(MIN_RECORDS, habit.share * self._records):
                yield self._warn(habit, count)
        if self._numbers and self._records >= MIN_RECORDS and _are_class_numbers(self._numbers):
            numbers = sorted(map(int, self._numbers))
            message = (
                f"every answer is one of the numbers {numbers[0]} to {numbers[-1]}: class numbers,"
                " whose names are lost?"
            )
            fix = "write the classes' names as answers; -1 and a number of its own mean no label"
            yield TrapWarning("NumbersAsAnswers", message, fix, self._first_line)

    def _warn(self, trap: _Habit, count: _Count) -> TrapWarning:
        lines = ", ".join(map(str, count.lines))
        more = ", ..." if count.records > len(count.lines) else ""
        share = f"{count.records} of {self._records} records (lines {lines}{more})"
        message = f"{share}: {trap.message.format(example=count.example[:60])}"
        return TrapWarning(trap.code, message, trap.fix, count.lines[0])


def warn_traps(findings: Findings, traps: TrapDetector, file: str) -> None:
    """Add a warning for each trap of a file."""
    for trap in traps.finish():
        findings.add(
            trap.code, trap.message, trap.fix, file=file, line=trap.line, severity="warning"
        )


def _are_class_numbers(numbers: Iterable[str]) -> bool:
    """Return whether numbers count from 0 (or -1) on without a gap: 0, 1, 2."""
    values = sorted(map(int, numbers))
    return (
        len(values) > 1
        and values[0] in (-1, 0)
        and values == list(range(values[0], values[0] + len(values)))
    )


def _may_hold_traps(raw: bytes, batch: RecordBatch) -> bool:
    """Return whether a text of a block may have lost characters or a control token.

    Most blocks are cleared by a search for single bytes, which is many times faster than decoding.
    """
    if b"\xef" in raw and _REPLACEMENT_UTF8 in raw:
        return True
    if b"<" in raw and b"|" in raw and _holds_control_tokens(raw):
        return True
    if b"\\" not in raw or not raw.isascii():
        return False
    # Escapes: \ufffd shows as a text that is not ASCII, as the raw line is.
    columns = (batch.prompts, batch.completions)
    return any(REPLACEMENT in "".join(c) for c in columns if not all(map(str.isascii, c)))


def _holds_control_tokens(raw: bytes) -> bool:
    if not is_numpy_worthwhile(raw):
        return b"<|" in raw
    import numpy as np

    codes = np.frombuffer(raw, np.uint8)
    return bool(((codes[:-1] == ord("<")) & (codes[1:] == ord("|"))).any())
