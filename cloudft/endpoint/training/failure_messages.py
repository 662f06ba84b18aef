"""Translate findings of cloudft's data checks into Bedrock's failure messages of a job.

Source of the messages: Bedrock user guide, "Troubleshoot model customization", and public threads
about failed jobs. A finding for which no message of Bedrock is known keeps its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath

from cloudft import catalogue
from cloudft.data.sources.json_layout import detect_layout
from cloudft.data.sources.line_blocks import SMALL_FILE
from cloudft.endpoint.training.run import TrainingRequest, training_uri, validator_uris
from cloudft.errors import CheckFailed
from cloudft.types import Finding

RECORD_SHAPES = {
    "prompt-completion": '{"prompt": "<prompt text>", "completion": "<expected generated text>"}',
    "input": '{"input": "<input text>"}',
    "converse": '{"messages": [{"role": "user", "content": [{"text": "<text>"}]}, {"role":'
    ' "assistant", "content": [{"text": "<text>"}]}]}',
    "distillation": '{"messages": [{"role": "user", "content": [{"text": "<text>"}]}]}',
    "claude-messages": '{"messages": [{"role": "user", "content": "<text>"}, {"role":'
    ' "assistant", "content": "<text>"}]}',
    "reinforcement": '{"messages": [{"role": "user", "content": "<text>"}],'
    ' "reference_answer": "<answer>"}',
}
"""The form of a record, as Bedrock's message shows it, by the record format. The first is quoted
from a failed job (aws-samples/amazon-bedrock-workshop, issue 266); the others follow it."""
UNPARSABLE_CODES = {
    *("BadJson", "BlankLine", "Bom", "CarriageReturns", "Compressed", "ControlCharacter"),
    *("EmptyFile", "FileUnreadable", "GitLfsPointer", "LoneSurrogate", "MissingComma"),
    *("NotAnObject", "NotFinite", "RepeatedKey", "SeveralLists", "SingleQuotes", "TooDeep"),
    *("TrailingComma", "Truncated", "WrongFileType", "WrongTable"),
}
WRONG_SHAPE_CODES = {"WrongKeys", "WrongType", "WrongTask", "EmptyField", "BadTurns"}


def failure_message_of(training: TrainingRequest, error: CheckFailed) -> str:
    """Return the failure message of a job whose data was refused: that of the first error."""
    model = catalogue.find_model(training.request["baseModelIdentifier"])
    finding = next((f for f in error.findings if f.severity == "error"), error.findings[0])
    return format_finding(
        finding, _uris(training), model.formats.get(training.customization_type, "")
    )


def wrong_form(training: TrainingRequest, role: str, line: int, record_format: str) -> str:
    """Return the failure message of a job with a record in the form of another model."""
    uris = _uris(training)
    uri = uris.get(role) or uris["train"]
    return f"Input data at {uri} must follow '{RECORD_SHAPES[record_format]}' format. (line {line})"


def find_other_layout(training: TrainingRequest) -> str | None:
    """Return the failure message of a job whose data is not one record a line; None if it is.

    cloudft reads JSON in other layouts too, and stages it as JSONL; the service does not.
    """
    for path in training.data.values():
        with Path(path).open("rb") as handle:
            start = handle.read(SMALL_FILE)
        if detect_layout(start, is_whole=len(start) < SMALL_FILE).kind != "lines":
            finding = Finding("error", "BadJson", "it has not one record a line", None, str(path))
            return format_finding(finding, _uris(training), "")
    return None


def find_blank_line(training: TrainingRequest, findings: Iterable[Finding]) -> str | None:
    """Return the failure message of a job with a blank line, which cloudft leaves out."""
    blank = next((finding for finding in findings if finding.code == "BlankLine"), None)
    return None if blank is None else format_finding(blank, _uris(training), "")


def _uris(training: TrainingRequest) -> dict[str, str]:
    """Return a job's files in S3 by role."""
    request = training.request
    uris = {"train": training_uri(request)}
    return uris | validator_uris(request)


def format_finding(finding: Finding, uris: Mapping[str, str], format: str) -> str:
    """Return the failure message for one finding.

    `uris` are the job's files in S3 by role, `format` is the record format of its model.
    """
    # The finding names the local copy of the file; the caller knows the one in S3.
    role = PurePath(finding.file or "").stem.removeprefix("answered-")
    uri = uris.get(role) or uris["train"]
    line = f" (line {finding.line})" if finding.line else ""
    if finding.code in UNPARSABLE_CODES:
        return (
            f"Unable to parse Amazon S3 file: {uri}. Data files must conform to JSONL format."
            f" {finding.message}{line}"
        )
    if finding.code in WRONG_SHAPE_CODES and format in RECORD_SHAPES:
        return f"Input data at {uri} must follow '{RECORD_SHAPES[format]}' format.{line}"
    if finding.code == "RecordTooLong":
        return f"Input size exceeded in file {uri}: {finding.message}{line}"
    return f"{finding.message} ({uri}{line})"
