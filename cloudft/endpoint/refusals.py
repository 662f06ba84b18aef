"""Findings of our data layer, in the words in which Bedrock fails a job.

Source of the words: Bedrock user guide, "Troubleshoot model customization", and public threads with
jobs that failed. What Bedrock has no known words for is told in ours.
"""

from __future__ import annotations

from collections.abc import Mapping

from cloudft import catalogue
from cloudft.endpoint.run import Order
from cloudft.errors import CheckFailed
from cloudft.types import Finding

SHAPES = {
    "prompt-completion": '{"prompt": "<prompt text>", "completion": "<expected generated text>"}',
    "input": '{"input": "<input text>"}',
}
UNPARSED = {
    *("BadJson", "BlankLine", "Bom", "CarriageReturns", "Compressed", "ControlCharacter"),
    *("EmptyFile", "FileUnreadable", "JsonArray", "LoneSurrogate", "NotAnObject", "NotFinite"),
    *("RepeatedKey", "SeveralObjects", "SingleQuotes", "TooDeep", "TrailingComma", "Truncated"),
}
SHAPELESS = {"WrongKeys", "WrongType", "WrongTask", "EmptyField", "BadTurns"}


def of(order: Order, error: CheckFailed) -> str:
    """The failure message of an ordered job whose data was refused."""
    request = order.request
    uris = {"train": request["trainingDataConfig"]["s3Uri"]}
    for validator in request.get("validationDataConfig", {}).get("validators", ()):
        uris["validation"] = validator["s3Uri"]
    model = catalogue.find(request["baseModelIdentifier"])
    finding = next((f for f in error.findings if f.severity == "error"), error.findings[0])
    return told(finding, uris, model.formats.get(order.kind, ""))


def told(finding: Finding, uris: Mapping[str, str], format: str) -> str:
    """The failure message of a job whose data has this finding; `uris` are its files by role."""
    role = "validation" if "validation" in (finding.file or "") else "train"
    uri = uris.get(role) or uris["train"]
    line = f" (line {finding.line})" if finding.line else ""
    if finding.code in UNPARSED:
        return (
            f"Unable to parse Amazon S3 file: {uri}. Data files must conform to JSONL format."
            f" {finding.message}{line}"
        )
    if finding.code in SHAPELESS and format in SHAPES:
        return f"Input data at {uri} must follow '{SHAPES[format]}' format.{line}"
    if finding.code == "RecordTooLong":
        return f"Input size exceeded in file {uri}: {finding.message}{line}"
    return f"{finding.message} ({uri}{line})"
