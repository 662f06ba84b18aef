"""Make the errors of Bedrock's OpenAI-compatible API those of an AWS service.

It answers as OpenAI's API does: `{"error": {"message": ..., "type": ..., "code": ...}}`, which
botocore's parser does not know. Source: OpenAI API reference, "Error codes"; openai-python,
`_exceptions.py`, for the statuses.
"""

from __future__ import annotations

from typing import Any

CODES = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    402: "ServiceQuotaExceededException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    409: "ConflictException",
    422: "ValidationException",
    429: "ThrottlingException",
}
"""Error code of AWS's services by HTTP status; others are InternalServerException."""
QUOTA_CODES = {"insufficient_quota", "quota_exceeded"}
"""Codes of OpenAI's API that no wait ends, although their status is 429."""


def rewrite_openai_error(response_dict: dict[str, Any], **_: object) -> None:
    """Put an error into the form that botocore parses. Handles botocore's `before-parse`."""
    status, body = response_dict["status_code"], response_dict["body"]
    if status < 300 or not isinstance(body, bytes):
        return
    import orjson

    try:
        content = orjson.loads(body)
    except ValueError:
        return
    error = content.get("error") if isinstance(content, dict) else None
    if not isinstance(error, dict):
        return
    code = CODES.get(status, "InternalServerException")
    if error.get("code") in QUOTA_CODES:
        code = "ServiceQuotaExceededException"
    message = str(error.get("message", ""))
    response_dict["body"] = orjson.dumps({"__type": code, "message": message})
