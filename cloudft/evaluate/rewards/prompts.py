"""Prompts of a reinforcement job with what the grader gets beside the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudft.data.findings import Findings
from cloudft.data.formats import reinforcement
from cloudft.data.formats.record import Document, PromptWithReference
from cloudft.data.records import LocatedRecord, read_records
from cloudft.data.sources.source_files import SourceResolver
from cloudft.errors import CheckFailed, UsageError
from cloudft.grading import GradingSample
from cloudft.inference import Prompt
from cloudft.jobs.prompts import prompt_of_record
from cloudft.spec.load import LoadedJob

NOT_METADATA = ("id", "messages", "system", "tools", "schemaVersion")
"""Keys of a record that are no metadata for the grader, as in local_backend/grading/shapes.py."""


@dataclass(frozen=True)
class GradedPrompt:
    """A prompt, and how a grader gets it: messages in OpenAI's form, and metadata."""

    file: str
    line: int
    prompt: Prompt
    messages: tuple[Mapping[str, Any], ...]
    metadata: Mapping[str, Any]

    def sample(self, answer: str, number: int) -> GradingSample:
        """Return an answer as the grader gets it. Its id names the record and the number."""
        messages = [*self.messages, {"role": "assistant", "content": answer}]
        return GradingSample(f"{self.file}:{self.line}#{number}", messages, self.metadata)


def prompt_for_grader(located: LocatedRecord) -> GradedPrompt:
    """Return a record of a reinforcement job as its prompt for the model and for the grader."""
    record = located.record
    assert isinstance(record, PromptWithReference)
    value = reinforcement.write(record)
    messages = value["messages"]
    assert isinstance(messages, list)
    metadata = {key: item for key, item in value.items() if key not in NOT_METADATA}
    prompt = prompt_of_record(record, raw=False).prompt
    return GradedPrompt(located.file, located.line, prompt, tuple(messages), metadata)


def read_prompts(job: LoadedJob, limit: int) -> tuple[list[GradedPrompt], int]:
    """Return `limit` prompts of the job's training data, evenly spread, and how many it has.

    Raise CheckFailed with every error of the data, UsageError where there are none.
    """
    findings = Findings()
    data = job.spec.data
    sources = SourceResolver(job.base_dir, findings).resolve("data.train", data.train, "train")
    columns = {str(key): value for key, value in data.columns.items()}
    records = []
    for one in read_records(sources, findings, columns, target=reinforcement.NAME):
        if isinstance(one.record, Document):
            fix = "use prompts with a reference_answer, or records with an answer."
            findings.add("WrongTask", "a text without turns", fix, file=one.file, line=one.line)
        else:
            record = reinforcement.to_prompt_with_reference(one.record)
            records.append(LocatedRecord(one.file, one.line, record))
    if findings.count_errors():
        listed = findings.all()
        raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)
    if not records:
        raise UsageError("there are no prompts in data.train", fix="name files with records.")
    return [prompt_for_grader(one) for one in spread(records, limit)], len(records)


def spread(records: Sequence[LocatedRecord], limit: int) -> list[LocatedRecord]:
    """Return at most `limit` records, evenly spread."""
    if limit >= len(records):
        return list(records)
    return [records[index * len(records) // limit] for index in range(limit)]
