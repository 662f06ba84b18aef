"""Failures on request: what a team needs to test its own code against.

    POST /_cloudft/faults  [{"operation": "CreateModelCustomizationJob", "do": "drop", "times": 1}]
    Authorization: Bearer TOKEN

`do` is `throttle` (429), `unavailable` (503), `expire` (ExpiredTokenException), `deny`
(AccessDeniedException), `drop` (acts, then breaks the connection off) or `delay` (seconds first).
`skip` lets so many calls of the operation pass first; operation `*` is any. `fail` fails the next
customization job with `message` at a phase: the operation is `validationDetails`,
`dataProcessingDetails` or `trainingDetails`; `spotInterruption` takes the machine of SageMaker's
next spot job away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudft.endpoint.protocols.messages import ServiceError

ERRORS = {
    "throttle": ("ThrottlingException", "Too many requests, please wait before trying again."),
    "unavailable": ("ServiceUnavailableException", "The service is unavailable."),
    "expire": ("ExpiredTokenException", "The security token included in the request is expired"),
    "deny": ("AccessDeniedException", "User is not authorized to perform this action"),
}
ACTIONS = {*ERRORS, "drop", "delay", "fail"}


class ConnectionDropped(Exception):
    """The reply is not to be sent: the connection breaks off after the service has acted."""


@dataclass
class Fault:
    """One order: what to do, to which operation, how often, after how many calls."""

    operation: str
    do: str
    times: int = 1
    skip: int = 0
    seconds: float = 0.0
    message: str = "Encountered an unexpected error when processing the request, please try again."


class FaultInjector:
    """The orders that stand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def replace_faults(self, orders: Sequence[Mapping[str, Any]]) -> None:
        """Replace the orders. Raises WireError for one that is not understood."""
        try:
            made = [Fault(**order) for order in orders]
        except TypeError as error:
            raise ServiceError("ValidationException", str(error)) from error
        for fault in made:
            if fault.do not in ACTIONS:
                raise ServiceError("ValidationException", f"no fault {fault.do}: {sorted(ACTIONS)}")
        with self._lock:
            self._faults = made

    def take_due_fault(self, operation: str) -> Fault | None:
        """The order that this call meets, used up by one."""
        with self._lock:
            for fault in self._faults:
                if fault.operation != operation and (fault.operation != "*" or fault.do == "fail"):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                elif fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


def apply_before(fault: Fault | None) -> None:
    """What a fault does before the service acts. Raises WireError for a refusal."""
    if fault is not None and fault.do == "delay":
        time.sleep(fault.seconds)
    if fault is not None and fault.do in ERRORS:
        raise ServiceError(*ERRORS[fault.do])


def apply_after(fault: Fault | None) -> None:
    """What a fault does when the service has acted. Raises Dropped."""
    if fault is not None and fault.do == "drop":
        raise ConnectionDropped
