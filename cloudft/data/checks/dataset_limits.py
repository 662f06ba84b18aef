"""What a base model's documentation requires of the data: lengths, reserved words, record counts.

The limits are data of the catalogue, each with its source; where a source is not sure, a limit
warns. The tokenizers of closed models are not public, so a length is judged by its characters:
Bedrock's data preparation page plans with 6 a token; real jobs have failed at 2.5. Beyond 6 a token
is an error, beyond 2.5 a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloudft.catalogue.model import Limits, Model
from cloudft.data.checks.template_limits import TemplateLimits
from cloudft.data.checks.violation import LimitViolation
from cloudft.data.formats.fast_path import RecordBatch
from cloudft.data.formats.record import Conversation, Document, Record, json_pointer
from cloudft.types import DataVolume, Severity, StagedFile

MAX_CHARACTERS_PER_TOKEN = 6
MIN_CHARACTERS_PER_TOKEN = 2.5


class DatasetLimits:
    """The limits of one model, customization type and batch size. Empty without `limits`."""

    template: TemplateLimits | None = None
    """What the chat template renders, where cloudft's own trainer trains."""

    def __init__(self, limits: Limits | None = None, batch_size: int = 1) -> None:
        self._limits = limits
        self._reserved = tuple(word.lower() for word in limits.reserved) if limits else ()
        self._token_caps = dict(_token_caps(limits, batch_size)) if limits else {}
        tightest = min(self._token_caps.values(), default=None)
        # Below this no record can break any token limit, whichever of its texts is counted.
        self._safe_characters = (
            None if tightest is None else int(tightest * MIN_CHARACTERS_PER_TOKEN)
        )

    @classmethod
    def for_model(cls, model: Model, customization_type: str, batch_size: int) -> DatasetLimits:
        """Return the limits that the catalogue has."""
        return cls(model.limits.get(customization_type), batch_size)

    def within_limits(self, batch: RecordBatch) -> bool:
        """Return whether no record of a block can break a limit: a cheap test of all at once.

        False proves nothing: such a block is checked record by record.
        """
        if self._safe_characters is not None and batch.max_characters > self._safe_characters:
            return False
        if not self._reserved:
            return True
        prompts = "\0".join(batch.prompts).lower()  # NUL: no word may span two prompts
        return not any(word in prompts for word in self._reserved)

    def check_record(self, record: Record) -> Iterator[LimitViolation]:
        """Yield the limits that one record breaks."""
        if self.template is not None and isinstance(record, Conversation):
            yield from self.template.check_record(record)
        if self._limits is None:
            return
        if isinstance(record, Document):
            yield from self._check_length("record", "tokens", len(record.text))
            return
        prompt = sum(map(len, record.system))
        prompt += sum(len(text) for turn in record.turns[:-1] for text in turn.all_texts)
        answer = sum(map(len, record.turns[-1].all_texts))
        yield from self._check_length("prompt", "input", prompt)
        yield from self._check_length("answer", "output", answer)
        yield from self._check_length("record", "tokens", prompt + answer)
        yield from self._check_reserved_words(record)

    def _check_length(self, what: str, cap: str, characters: int) -> Iterator[LimitViolation]:
        limit = self._token_caps.get(cap)
        if limit is None or characters <= limit * MIN_CHARACTERS_PER_TOKEN:
            return
        assert self._limits is not None
        source = self._limits.source
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

    def _check_reserved_words(self, record: Conversation) -> Iterator[LimitViolation]:
        """Yield a violation for each text of the prompt that has a reserved word."""
        texts = [(("system", i), text) for i, text in enumerate(record.system)]
        for index, turn in enumerate(record.turns):
            if turn.role == "user":
                texts += [(("messages", index), text) for text in turn.all_texts]
        for path, text in texts:
            lower = text.lower()
            for word in self._reserved:
                if word in lower:
                    assert self._limits is not None
                    message = f"the prompt has the reserved word {word!r} ({self._limits.source})"
                    fix = "write it differently: the job fails on it anywhere in a prompt"
                    field = json_pointer(*path)
                    yield LimitViolation("error", "ReservedWord", message, fix, field)
                    break

    def check_dataset(self, volumes: Mapping[str, DataVolume]) -> Iterator[LimitViolation]:
        """Yield the limits that the whole dataset breaks.

        These are the numbers of records of train and validation, alone and in sum, and the sizes of
        staged files.
        """
        limits = self._limits
        if limits is None:
            return
        counts = {role: volume.records for role, volume in volumes.items() if role != "test"}
        total = sum(counts.values())
        if limits.records_min and total < limits.records_min:
            yield self._too_few(total, limits.records_min)
        for role, max_records, name in (
            ("train", limits.train_records_max, "train_records_max"),
            ("validation", limits.validation_records_max, "validation_records_max"),
        ):
            if max_records and counts.get(role, 0) > max_records:
                what = f"{counts[role]} {role} records"
                yield self._too_much(what, max_records, name, f"data.{role}")
        if limits.records_max and total > limits.records_max:
            what = f"{total} records"
            yield self._too_much(what, limits.records_max, "records_max", "data.train")
        for role, max_bytes, name in (
            ("train", limits.train_bytes_max, "train_bytes_max"),
            ("validation", limits.validation_bytes_max, "validation_bytes_max"),
        ):
            file = volumes.get(role)
            if max_bytes and isinstance(file, StagedFile) and file.bytes > max_bytes:
                what = f"{file.bytes} bytes staged"
                yield self._too_much(what, max_bytes, name, f"data.{role}")

    def _too_few(self, count: int, minimum: int) -> LimitViolation:
        assert self._limits is not None
        message = f"{count} records; the model takes {minimum} at least ({self._limits.source})"
        severity = self._severity("records_min")
        return LimitViolation(
            severity, "TooFewRecordsForModel", message, "give more data", "data.train"
        )

    def _too_much(self, what: str, maximum: int, name: str, field: str) -> LimitViolation:
        assert self._limits is not None
        message = f"{what}; the model takes {maximum} at most ({self._limits.source})"
        fix = "give less data (`cloudft data dedupe FILE --out NEW` removes duplicates)"
        return LimitViolation(self._severity(name), "TooMuchDataForModel", message, fix, field)

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
