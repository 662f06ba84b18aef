"""Findings of our data layer, in the words in which Bedrock fails a job.

Source of the words: Bedrock user guide, "Troubleshoot model customization", and public threads with
jobs that failed. What Bedrock has no known words for is told in ours.
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
    *("RepeatedKey", "SeveralObjects", "SingleQuotes", "TooDeep", "TrailingComma", "Truncated"),
}
WRONG_SHAPE_CODES = {"WrongKeys", "WrongType", "WrongTask", "EmptyField", "BadTurns"}


def failure_message_of(order: TrainingRequest, error: CheckFailed) -> str:
    """The failure message of an ordered job whose data was refused."""
    request = order.request
    uris = {"train": request["trainingDataConfig"]["s3Uri"]}
    for validator in request.get("validationDataConfig", {}).get("validators", ()):
        uris["validation"] = validator["s3Uri"]
    model = catalogue.find_model(request["baseModelIdentifier"])
    finding = next((f for f in error.findings if f.severity == "error"), error.findings[0])
    return format_finding(finding, uris, model.formats.get(order.customization_type, ""))


def format_finding(finding: Finding, uris: Mapping[str, str], format: str) -> str:
    """The failure message of a job whose data has this finding; `uris` are its files by role."""
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
