"""What a server knows of one HTTP request besides its body: its id, and what metrics say of it."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import Scope

KEY = "cloudft.exchange"
CANCELED = 499
"""Status by which metrics count a request whose client went away, as nginx does."""
_CLIENT_ID = re.compile(r"[\w.:-]{1,128}")


@dataclass
class Exchange:
    """One request. `model` is the name of a model that is served, "" before it is known."""

    request_id: str
    operation: str = ""
    model: str = ""
    status: int = 0
    started: float = field(default_factory=time.perf_counter)
    was_canceled: bool = False


def begin_exchange(scope: Scope, headers: Mapping[str, str]) -> Exchange:
    """Attach a new exchange to a request. An id that the client sends is kept if it is harmless."""
    sent = headers.get("x-request-id", "")
    own = sent if _CLIENT_ID.fullmatch(sent) else f"req_{secrets.token_hex(12)}"
    exchange = Exchange(own)
    scope[KEY] = exchange
    return exchange


def exchange_of(scope: Mapping[str, Any]) -> Exchange:
    """Return the exchange of a request."""
    exchange: Exchange = scope[KEY]
    return exchange
