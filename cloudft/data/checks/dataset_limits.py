"""What a base model's documentation asks of the data: lengths, words, numbers of records.

The limits are data of the catalogue, each with its source; where that is not sure, a limit warns.
Tokens are not known here, so a length is judged by its characters (Bedrock's data preparation page
plans with 6 a token; real jobs have failed at 2.5): beyond 6 a token it is an error, beyond 2.5 a
warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cloudft.catalogue.model import Limits, Model
from cloudft.data.formats.fast_path import RecordBatch
from cloudft.data.formats.record import Conversation, Document, json_pointer
from cloudft.types import DataVolume, Severity, StagedFile

MAX_CHARACTERS_PER_TOKEN = 6
MIN_CHARACTERS_PER_TOKEN = 2.5


@dataclass(frozen=True)
class LimitViolation:
    """One thing that breaks a rule. `field` is a JSON pointer, or a key of the job file."""

    severity: Severity
    code: str
    message: str
    fix: str
    field: str | None = None


class DatasetLimits:
    """The rules of one model, customization type and batch size. Without limits, no rules."""

    def __init__(self, limits: Limits | None = None, batch_size: int = 1) -> None:
        self._limits = limits
        self._reserved = tuple(word.lower() for word in limits.reserved) if limits else ()
        self._caps = dict(_token_caps(limits, batch_size)) if limits else {}
        tightest = min(self._caps.values(), default=None)
        self._harmless = None if tightest is None else int(tightest * MIN_CHARACTERS_PER_TOKEN)

    @classmethod
    def for_model(cls, model: Model, customization_type: str, batch_size: int) -> DatasetLimits:
        """The rules that stand in the catalogue."""
        return cls(model.limits.get(customization_type), batch_size)

    def within_limits(self, columns: RecordBatch) -> bool:
        """True when no record of a block can break a rule. A cheap look at all of them at once."""
        if self._harmless is not None and columns.max_characters > self._harmless:
            return False
        if not self._reserved:
            return True
        asked = "\0".join(columns.prompts).lower()
        return not any(word in asked for word in self._reserved)

    def check_record(self, record: Conversation | Document) -> Iterator[LimitViolation]:
        """What is wrong with one record."""
        if self._limits is None:
            return
        if isinstance(record, Document):
            yield from self._length("record", "tokens", len(record.text), None)
            return
        asked = sum(map(len, record.system))
        asked += sum(len(text) for _, texts in record.turns[:-1] for text in texts)
        answered = sum(map(len, record.turns[-1][1]))
        yield from self._length("prompt", "input", asked, None)
        yield from self._length("answer", "output", answered, None)
        yield from self._length("record", "tokens", asked + answered, None)
        yield from self._words(record)

    def _length(
        self, what: str, cap: str, found: int, field: str | None
    ) -> Iterator[LimitViolation]:
        limit = self._caps.get(cap)
        if limit is None or found <= limit * MIN_CHARACTERS_PER_TOKEN:
            return
        assert self._limits is not None
        source = self._limits.source
        if found > limit * MAX_CHARACTERS_PER_TOKEN:
            message = f"a {what} of {found} characters is longer than {limit} tokens ({source})"
            severity = self._severity("tokens_per_record")
            yield LimitViolation(
                severity, "OverTokenLimit", message, "shorten it, or split it", field
            )
        else:
            message = f"a {what} of {found} characters may be longer than {limit} tokens ({source})"
            fix = "count them with the model's tokenizer (about 4 characters a token in English)"
            yield LimitViolation("warning", "NearTokenLimit", message, fix, field)

    def _words(self, record: Conversation) -> Iterator[LimitViolation]:
        """Reserved words in what the model is asked."""
        texts = [(("system", i), text) for i, text in enumerate(record.system)]
        for turn, (role, parts) in enumerate(record.turns):
            if role == "user":
                texts += [(("messages", turn), part) for part in parts]
        for place, text in texts:
            lower = text.lower()
            for word in self._reserved:
                if word in lower:
                    assert self._limits is not None
                    message = f"the prompt has the reserved word {word!r} ({self._limits.source})"
                    fix = "write it otherwise: the job fails on it, wherever it stands"
                    yield LimitViolation(
                        "error", "ReservedWord", message, fix, json_pointer(*place)
                    )
                    break

    def check_dataset(self, volumes: Mapping[str, DataVolume]) -> Iterator[LimitViolation]:
        """What is wrong with the number of records: train's and validation's, alone and in sum.

        And with the size of staged files.
        """
        limits = self._limits
        if limits is None:
            return
        counts = {role: volume.records for role, volume in volumes.items() if role != "test"}
        total = sum(counts.values())
        if limits.records_min and total < limits.records_min:
            yield self._few(total, limits.records_min)
        for role, most, name in (
            ("train", limits.train_records_max, "train_records_max"),
            ("validation", limits.validation_records_max, "validation_records_max"),
        ):
            if most and counts.get(role, 0) > most:
                yield self._many(f"{counts[role]} {role} records", most, name, f"data.{role}")
        if limits.records_max and total > limits.records_max:
            yield self._many(f"{total} records", limits.records_max, "records_max", "data.train")
        for role, most, name in (
            ("train", limits.train_bytes_max, "train_bytes_max"),
            ("validation", limits.validation_bytes_max, "validation_bytes_max"),
        ):
            file = volumes.get(role)
            if most and isinstance(file, StagedFile) and file.bytes > most:
                yield self._many(f"{file.bytes} bytes staged", most, name, f"data.{role}")

    def _few(self, found: int, least: int) -> LimitViolation:
        assert self._limits is not None
        message = f"{found} records; the model takes {least} at least ({self._limits.source})"
        severity = self._severity("records_min")
        return LimitViolation(
            severity, "TooFewRecordsForModel", message, "give more data", "data.train"
        )

    def _many(self, found: str, most: int, name: str, field: str) -> LimitViolation:
        assert self._limits is not None
        message = f"{found}; the model takes {most} at most ({self._limits.source})"
        fix = "give less data (`cloudft data dedupe FILE --out NEW` may find what is not missed)"
        return LimitViolation(self._severity(name), "TooMuchDataForModel", message, fix, field)

    def _severity(self, limit: str) -> Severity:
        assert self._limits is not None
        return "warning" if limit in self._limits.unsure else "error"


def _token_caps(limits: Limits, batch_size: int) -> Iterator[tuple[str, int]]:
    """The limits on tokens: of a whole record, of what is asked, of what is answered."""
    per_record = limits.tokens_per_record
    for greatest, tokens in sorted(limits.tokens_by_batch.items(), reverse=True):
        if batch_size <= greatest:
            per_record = tokens
    pairs = (
        ("tokens", per_record),
        ("input", limits.input_tokens_max),
        ("output", limits.output_tokens_max),
    )
    yield from ((name, value) for name, value in pairs if value is not None)
