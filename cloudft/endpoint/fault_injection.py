"""Inject faults, so that a team can test its own code against them.

    POST /_cloudft/faults  [{"operation": "CreateModelCustomizationJob", "do": "drop", "times": 1}]
    Authorization: Bearer TOKEN

`do` is `throttle` (429), `unavailable` (503), `expire` (ExpiredTokenException), `deny`
(AccessDeniedException), `quota` (ServiceQuotaExceededException), `drop` (perform the operation,
then close the connection without a response), `break` (end a stream after its first part with an
error, `message`) or `delay` (wait `seconds` first). `skip` lets that many calls of the operation
pass first; operation `*` is any. `fail` fails the next customization job with `message` at a phase:
the operation is `validationDetails`, `dataProcessingDetails` or `trainingDetails`. With
`updateDetails` it fails the next update of a deployment or of provisioned throughput; with
`spotInterruption` it interrupts SageMaker's next spot job.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from cloudft.endpoint.protocols.messages import (
    ConnectionDropped,
    Json,
    Parameters,
    Part,
    ResponseStream,
    ServiceError,
)

ERRORS = {
    "throttle": ("ThrottlingException", "Too many requests, please wait before trying again."),
    "unavailable": ("ServiceUnavailableException", "The service is unavailable."),
    "expire": ("ExpiredTokenException", "The security token included in the request is expired"),
    "deny": ("AccessDeniedException", "User is not authorized to perform this action"),
    "quota": ("ServiceQuotaExceededException", "The number of requests exceeds the service quota."),
}
"""Action -> code and message of the error that it raises before the operation."""
ACTIONS = {*ERRORS, "drop", "break", "delay", "fail"}


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """A fault to inject: `do` to calls of `operation`, `times` times, after `skip` calls."""

    operation: str
    do: str
    times: int = 1
    skip: int = 0
    seconds: float = 0.0
    message: str = "Encountered an unexpected error when processing the request, please try again."


class FaultInjector:
    """The faults that are due. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def replace_faults(self, faults: Sequence[Mapping[str, Json]]) -> None:
        """Replace all faults. Raises ServiceError (ValidationException) for an unknown one."""
        try:
            parsed = msgspec.convert(faults, list[Fault])
        except msgspec.ValidationError as error:
            raise ServiceError("ValidationException", str(error)) from error
        for fault in parsed:
            if fault.do not in ACTIONS:
                message = f"no fault {fault.do}: {sorted(ACTIONS)}"
                raise ServiceError("ValidationException", message)
        with self._lock:
            self._faults = parsed

    def take_due_fault(self, operation: str) -> Fault | None:
        """Return the fault for this call, and count it as injected; None if none is due."""
        with self._lock:
            for fault in self._faults:
                # `fail` names a phase of a job, not an operation: `*` does not mean it.
                if fault.operation != operation and (fault.operation != "*" or fault.do == "fail"):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                elif fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


def apply_before(fault: Fault | None) -> None:
    """Wait, or raise ServiceError, as a fault says, before the operation is performed."""
    if fault is not None and fault.do == "delay":
        time.sleep(fault.seconds)
    if fault is not None and fault.do in ERRORS:
        raise ServiceError(*ERRORS[fault.do])


def apply_after(fault: Fault | None, result: Parameters) -> Parameters:
    """Return the result of an operation that was performed, its streams broken if a fault says so.

    Raises ConnectionDropped, if the fault says that.
    """
    streams = {name: value for name, value in result.items() if isinstance(value, ResponseStream)}
    if fault is not None and fault.do == "drop":
        for stream in streams.values():
            stream.close()
        raise ConnectionDropped
    if fault is None or fault.do != "break":
        return result
    return {**result, **{name: _broken(s, fault.message) for name, s in streams.items()}}


def _broken(stream: ResponseStream[Part], message: str) -> ResponseStream[Part]:
    """Return a stream that ends with an error after its first part."""

    def parts() -> Iterator[Part]:
        yield next(stream)
        raise ServiceError("ModelStreamErrorException", message)

    return ResponseStream(parts(), stream.close)
