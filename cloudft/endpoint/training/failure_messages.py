"""Translate findings of cloudft's data checks into Bedrock's failure messages of a job.

Source of the messages: Bedrock user guide, "Troubleshoot model customization", and public threads
about failed jobs. A finding for which no message of Bedrock is known keeps its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from cloudft import catalogue
from cloudft.endpoint.training.run import TrainingRequest
from cloudft.errors import CheckFailed
from cloudft.types import Finding

RECORD_SHAPES = {
    "prompt-completion": '{"prompt": "<prompt text>", "completion": "<expected generated text>"}',
    "input": '{"input": "<input text>"}',
}
UNPARSABLE_CODES = {
    *("BadJson", "BlankLine", "Bom", "CarriageReturns", "Compressed", "ControlCharacter"),
    *("EmptyFile", "FileUnreadable", "JsonArray", "LoneSurrogate", "NotAnObject", "NotFinite"),
    *("RepeatedKey", "SingleQuotes", "TooDeep", "TrailingComma", "Truncated"),
}
WRONG_SHAPE_CODES = {"WrongKeys", "WrongType", "WrongTask", "EmptyField", "BadTurns"}


def failure_message_of(training: TrainingRequest, error: CheckFailed) -> str:
    """Return the failure message of a job whose data was refused: that of the first error."""
    request = training.request
    uris = {"train": request["trainingDataConfig"]["s3Uri"]}
    for validator in request.get("validationDataConfig", {}).get("validators", ()):
        uris["validation"] = validator["s3Uri"]
    model = catalogue.find_model(request["baseModelIdentifier"])
    finding = next((f for f in error.findings if f.severity == "error"), error.findings[0])
    return format_finding(finding, uris, model.formats.get(training.customization_type, ""))


def format_finding(finding: Finding, uris: Mapping[str, str], format: str) -> str:
    """Return the failure message for one finding.

    `uris` are the job's files in S3 by role, `format` is the record format of its model.
    """
    # The finding names the local copy of the file; the caller knows the one in S3.
    role = "validation" if "validation" in (finding.file or "") else "train"
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
