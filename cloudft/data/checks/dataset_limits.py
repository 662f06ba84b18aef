"""What a base model's documentation requires of the data: lengths, words, contents, counts.

The limits are data of the catalogue, each with its source; where a source is not sure, a limit
warns. The tokenizers of closed models are not public, so a length is judged by its characters:
Bedrock's data preparation page plans with 6 a token; real jobs have failed at 2.5. Beyond 6 a token
is an error, beyond 2.5 a warning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from cloudft.catalogue.model import Limits, Model
from cloudft.data.checks.content_limits import ContentLimits, MediaUse
from cloudft.data.checks.reserved_words import ReservedWords
from cloudft.data.checks.template_limits import TemplateLimits
from cloudft.data.checks.violation import LimitViolation
from cloudft.data.formats.chat_writers import FEATURE_NAMES
from cloudft.data.formats.fast_path import RecordBatch
from cloudft.data.formats.record import Conversation, Document, Record
from cloudft.data.formats.registry import encode_record
from cloudft.types import (
    VALIDATION,
    DataVolume,
    Severity,
    StagedFile,
    is_validation_role,
    role_field,
)

MAX_CHARACTERS_PER_TOKEN = 6
MIN_CHARACTERS_PER_TOKEN = 2.5
MAX_BYTES_PER_CHARACTER = 6
"""Bytes of a character in JSON: six for a control character (`\\u0001`)."""
MAX_BYTES_AROUND = 512
"""Bytes of a staged line of one question and one answer besides their texts."""


class DatasetLimits:
    """The limits of one model, customization type and batch size. Empty without `limits`.

    `format` is the format in which records are staged. `media` collects what a check has seen.
    """

    template: TemplateLimits | None = None
    """What the chat template renders, where cloudft's own trainer trains."""

    def __init__(
        self,
        limits: Limits | None = None,
        batch_size: int = 1,
        content: ContentLimits | None = None,
        format: str = "",
    ) -> None:
        self._limits, self._format = limits, format
        self._content = content or ContentLimits()
        self._reserved = ReservedWords(limits)
        self.media = MediaUse()
        self._token_caps = dict(_token_caps(limits, batch_size)) if limits else {}
        tightest = min(self._token_caps.values(), default=None)
        # Below these no record can break a limit of its length, whichever of its texts is counted.
        safe = [] if tightest is None else [int(tightest * MIN_CHARACTERS_PER_TOKEN)]
        if limits and limits.line_bytes_max:
            spare = limits.line_bytes_max - MAX_BYTES_AROUND
            safe.append(spare // MAX_BYTES_PER_CHARACTER)
        self._safe_characters = min(safe, default=None)

    @classmethod
    def for_model(cls, model: Model, customization_type: str, batch_size: int) -> DatasetLimits:
        """Return the limits that the catalogue has."""
        return cls(
            model.limits.get(customization_type),
            batch_size,
            ContentLimits.for_model(model, customization_type),
            model.formats.get(customization_type, ""),
        )

    def within_limits(self, batch: RecordBatch) -> bool:
        """Return whether no record of a block can break a limit: a cheap test of all at once.

        False proves nothing: such a block is checked record by record.
        """
        if self._safe_characters is not None and batch.max_characters > self._safe_characters:
            return False
        most = self._limits.system_texts_max if self._limits else None
        if most is not None and any(len(chat.system) > most for chat in batch.chats):
            return False
        return self._reserved.are_absent((batch.prompts, batch.completions))

    def check_record(self, record: Record) -> Iterator[LimitViolation]:
        """Yield the limits that one record breaks."""
        if self.template is not None and isinstance(record, Conversation):
            yield from self.template.check_record(record)
        if isinstance(record, Document):
            yield from self._check_length("record", "tokens", len(record.text))
            return
        yield from self._content.check_record(record, self._limits, self.media)
        if self._limits is None:
            return
        texts = [sum(map(len, turn.all_texts)) for turn in record.turns]
        # A prompt that is answered in training ends with the user.
        answer = texts.pop() if record.turns[-1].role == "assistant" else 0
        prompt = sum(map(len, record.system)) + sum(texts)
        yield from self._check_length("prompt", "input", prompt)
        yield from self._check_length("answer", "output", answer)
        yield from self._check_length("record", "tokens", prompt + answer)
        yield from self._check_line(record, prompt + answer)
        yield from self._check_turns(record)
        yield from self._reserved.check_record(record)

    def _check_line(self, record: Conversation, characters: int) -> Iterator[LimitViolation]:
        """Yield a violation if the staged line is too long."""
        assert self._limits is not None
        most = self._limits.line_bytes_max
        if most is None or not self._format:
            return
        if characters * MAX_BYTES_PER_CHARACTER + MAX_BYTES_AROUND * len(record.turns) <= most:
            return
        size = len(encode_record(record, self._format)[0])
        if size > most:
            source = self._limits.source_of("line_bytes_max")
            message = f"a staged line of {size} bytes; {most} at most ({source})"
            severity = self._severity("line_bytes_max")
            yield LimitViolation(severity, "LineTooLong", message, "shorten it, or split it")

    def _check_turns(self, record: Conversation) -> Iterator[LimitViolation]:
        """Yield a violation for more turns or texts than a record may have."""
        counts = (
            (
                "user_turns_max",
                sum(turn.role == "user" for turn in record.turns),
                "prompts in one record",
                "keep one question a record, or choose a Nova model, which takes more",
            ),
            (
                "system_texts_max",
                len(record.system),
                "system texts",
                "join them into one",
            ),
            (
                "turn_texts_max",
                max(len(turn.texts) for turn in record.turns),
                "texts in one turn",
                "join them into one",
            ),
        )
        for name, count, what, fix in counts:
            most = getattr(self._limits, name)
            if most is not None and count > most:
                assert self._limits is not None
                message = f"{count} {what}; {most} at most ({self._limits.source_of(name)})"
                yield LimitViolation(
                    self._severity(name), "TooManyTexts", message, fix, "/messages"
                )

    def _check_length(self, what: str, cap: str, characters: int) -> Iterator[LimitViolation]:
        limit = self._token_caps.get(cap)
        if limit is None or characters <= limit * MIN_CHARACTERS_PER_TOKEN:
            return
        assert self._limits is not None
        source = self._limits.source_of("tokens_per_record")
        if characters > limit * MAX_CHARACTERS_PER_TOKEN:
            message = (
                f"a {what} of {characters} characters is longer than {limit} tokens ({source})"
            )
            severity = self._severity("tokens_per_record")
            yield LimitViolation(severity, "OverTokenLimit", message, "shorten it, or split it")
        else:
            message = (
                f"a {what} of {characters} characters may be longer than {limit} tokens ({source})"
            )
            fix = "count them with the model's tokenizer (about 4 characters a token in English)"
            yield LimitViolation("warning", "NearTokenLimit", message, fix)

    def check_dataset(self, volumes: Mapping[str, DataVolume]) -> Iterator[LimitViolation]:
        """Yield the limits that the whole dataset breaks.

        These are the numbers of records of train and validation, alone and in sum, the sizes of
        staged files, and the kinds of media.
        """
        if len(self.media.kinds) > 1:
            kinds = " and ".join(FEATURE_NAMES[kind] for kind in sorted(self.media.kinds))
            fix = "keep one kind, and train on the other in a job of its own"
            yield LimitViolation(
                "error", "MixedMedia", f"{kinds} in one dataset", fix, "data.train"
            )
        if self._limits is None:
            return
        yield from self._check_counts(volumes)
        for role, file in volumes.items():
            kind = VALIDATION if is_validation_role(role) else role
            most = self._role_limit(kind, "bytes_max")
            if most and isinstance(file, StagedFile) and file.bytes > most:
                yield self._too_much(f"{file.bytes} bytes staged", most, f"{kind}_bytes_max", role)
        if self._limits.ignores_validation and any(map(is_validation_role, volumes)):
            source = self._limits.source_of("ignores_validation")
            message = f"validation data is not used in this training ({source})"
            fix = "leave it out: it is not sent; evaluation reads data.test"
            yield LimitViolation("warning", "ValidationNotUsed", message, fix, "data.validation")

    def _check_counts(self, volumes: Mapping[str, DataVolume]) -> Iterator[LimitViolation]:
        """Yield the limits on the number of records that are broken."""
        limits = self._limits
        assert limits is not None
        counts: Counter[str] = Counter()
        for role, volume in volumes.items():
            if role != "test":  # AWS states one limit for the validation data, not one for each set
                counts[VALIDATION if is_validation_role(role) else role] += volume.records
        total = sum(counts.values())
        if limits.records_min and total < limits.records_min:
            yield self._too_few(f"{total} records", limits.records_min, "records_min", "train")
        for role in ("train", "validation"):
            fewest, most = (self._role_limit(role, f"records_{end}") for end in ("min", "max"))
            what = f"{counts.get(role)} {role} records"
            if fewest and role in counts and counts[role] < fewest:
                yield self._too_few(what, fewest, f"{role}_records_min", role)
            if most and counts.get(role, 0) > most:
                yield self._too_much(what, most, f"{role}_records_max", role)
        if limits.records_max and total > limits.records_max:
            yield self._too_much(f"{total} records", limits.records_max, "records_max", "train")

    def _role_limit(self, role: str, name: str) -> int | None:
        limit: int | None = getattr(self._limits, f"{role}_{name}", None)
        return limit

    def _too_few(self, what: str, minimum: int, name: str, role: str) -> LimitViolation:
        assert self._limits is not None
        source = self._limits.source_of(name)
        message = f"{what}; the model takes {minimum} at least ({source})"
        code, fix = "TooFewRecordsForModel", "give more data"
        return LimitViolation(self._severity(name), code, message, fix, role_field(role))

    def _too_much(self, what: str, maximum: int, name: str, role: str) -> LimitViolation:
        assert self._limits is not None
        source = self._limits.source_of(name)
        message = f"{what}; the model takes {maximum} at most ({source})"
        code = "TooMuchDataForModel"
        fix = "give less data (`cloudft data dedupe FILE --out NEW` removes duplicates)"
        return LimitViolation(self._severity(name), code, message, fix, role_field(role))

    def _severity(self, limit: str) -> Severity:
        assert self._limits is not None
        return "warning" if limit in self._limits.unsure else "error"


def _token_caps(limits: Limits, batch_size: int) -> Iterator[tuple[str, int]]:
    """Yield the limits on the tokens of a whole record, of its prompt, and of its answer."""
    per_record = limits.tokens_per_record
    for max_batch_size, tokens in sorted(limits.tokens_by_batch.items(), reverse=True):
        if batch_size <= max_batch_size:
            per_record = tokens
    pairs = (
        ("tokens", per_record),
        ("input", limits.input_tokens_max),
        ("output", limits.output_tokens_max),
    )
    yield from ((name, value) for name, value in pairs if value is not None)
