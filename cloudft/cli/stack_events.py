"""Print the events of a stack while it changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cloudft.cli.options import Console

if TYPE_CHECKING:
    from cloudft.aws.client import Aws
    from cloudft.infra.change_sets import StackEvent


POLL_S = 3.0
POLL_LOOPBACK_S = 0.2


def poll_seconds(aws: Aws) -> float:
    """Return the seconds between two polls: fewer for an endpoint on this machine."""
    return POLL_LOOPBACK_S if "127.0.0.1" in (aws.location.endpoint_url or "") else POLL_S


def event_printer(console: Console) -> Callable[[StackEvent], None]:
    """Return a callback that prints each event of a stack, with the reason of a failure."""
    from cloudft.cli.number_format import format_local_time

    def print_event(event: StackEvent) -> None:
        reason = f": {event.reason}" if event.reason and "FAILED" in event.status else ""
        resource = f"{event.resource} ({event.type})"
        console.note(f"{format_local_time(event.at)}  {event.status:<20} {resource}{reason}")

    return print_event
