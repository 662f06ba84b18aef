"""Pages of the OpenAI-compatible API's lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloudft.endpoint.protocols.messages import Parameters, Response, ServiceError

DEFAULT_LIMIT = 20
"""Items of a page. Source: OpenAI API reference, "List fine-tuning jobs"."""


def list_page(
    items: Sequence[dict[str, Any]], request: Parameters, default_limit: int = DEFAULT_LIMIT
) -> Response:
    """Return the page of a list behind the item `after`. Raises ServiceError for an unknown one."""
    start, after = 0, request.get("after")
    if after is not None:
        start = next((i for i, item in enumerate(items, 1) if item["id"] == after), -1)
        if start < 0:
            raise ServiceError("ValidationException", f"No item with the id {after} to list after")
    end = start + int(request.get("limit", default_limit))
    shown = items[start:end]
    return {
        "object": "list",
        "data": list(shown),
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": end < len(items),
    }
