"""The calls of AWS that a plan consists of, typed, with a name for each part.

A plan's `request` is plain JSON: it is printed by `--dry-run`, stored in the job's record and sent
to S3 beside the job. `AwsRequest` is the one reader and writer of that JSON. A request that an
earlier build has written is still read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from cloudft.errors import BadDocument
from cloudft.storage.documents import convert
from cloudft.storage.store import RECORD_FILE, JobRecord, as_damaged_job
from cloudft.types import Plan

PLAN_FILE = "plan.json"
"""Name of the plan's object in S3, beside the job's output: what other machines read of a job."""
UNLESS_PRESENT = "the object is there with this content; above 16 MiB in parts"


class ApiCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call, by boto3's names of service and operation.

    `unless` says when it is skipped. `file` is the role of the plan's file that is sent as the
    body; `content` names a body that is generated when it is sent.
    """

    service: str
    operation: str
    unless: str | None = None
    file: str | None = None
    parameters: dict[str, Any]
    content: str | None = None


@dataclass(frozen=True)
class PlannedCalls:
    """The calls of a submit by their part: what is uploaded, then the plan, then the creation."""

    uploads: tuple[ApiCall, ...]
    plan_file: ApiCall
    create: ApiCall

    @property
    def in_order(self) -> list[ApiCall]:
        """Return every call, in the order in which they are made."""
        return [*self.uploads, self.plan_file, self.create]


class AwsRequest(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """What every AWS backend's plan says: location, and calls in order.

    `machine` has the calls that replace the creation where a state machine creates the job. Jobs
    that were discovered in the account have no calls.
    """

    hyper_parameters: dict[str, int | float]
    place: dict[str, str | None]
    calls: list[ApiCall] = []
    machine: list[ApiCall] = []

    def to_json(self) -> dict[str, Any]:
        """Return the request as it is printed and stored."""
        content: dict[str, Any] = msgspec.to_builtins(self)
        return content

    @property
    def planned(self) -> PlannedCalls:
        """Return the calls by their part. Raise ValueError for a request without calls."""
        puts = [call for call in self.calls if call.service == "s3"]
        creates = [call for call in self.calls if call.service != "s3"]
        plans = [call for call in puts if str(call.parameters.get("Key")).endswith(PLAN_FILE)]
        if not creates or not plans:
            raise ValueError("the request of this job has no calls")
        uploads = tuple(call for call in puts if call is not plans[-1])
        return PlannedCalls(uploads, plans[-1], creates[-1])


def planned_request(plan: Plan) -> AwsRequest:
    """Return the request of a plan that this process has made."""
    return msgspec.convert(plan.request, AwsRequest)


def recorded_request(record: JobRecord | None) -> AwsRequest | None:
    """Return the request of a job that was submitted from this machine, else None.

    Raise DamagedJob for a record whose request is no longer one.
    """
    if record is None or not record.request.get("calls"):
        return None
    path = record.folder / RECORD_FILE
    with as_damaged_job(path):
        request = convert(record.request, AwsRequest, file=path)
        try:
            _ = request.planned
        except ValueError as error:
            raise BadDocument(str(error), file=str(path), field="request.calls") from error
        return request


def put_file(
    bucket: str, key: str, name: str, content: tuple[str, int], settings: Mapping[str, str]
) -> ApiCall:
    """Return the upload of a file. `content` is its sha256 and its size in bytes."""
    sha256, size = content
    parameters = {
        "Bucket": bucket,
        "Key": key,
        "Metadata": {"cloudft-sha256": sha256},
        "Body": f"<{name}, {size} bytes>",
        **settings,
    }
    return ApiCall(
        service="s3", operation="put_object", unless=UNLESS_PRESENT, parameters=parameters
    )


def put_generated(bucket: str, key: str, content: str, settings: Mapping[str, str]) -> ApiCall:
    """Return the upload of what is generated when it is sent, such as the plan."""
    parameters = {"Bucket": bucket, "Key": key, "Body": f"<this {content}>", **settings}
    return ApiCall(service="s3", operation="put_object", parameters=parameters)
