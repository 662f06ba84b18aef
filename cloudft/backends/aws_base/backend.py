"""The base class of the AWS backends: their location, uploads to S3, idempotent creation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import orjson

from cloudft.aws.client import Aws, AwsLocation
from cloudft.aws.identity import get_identity
from cloudft.aws.upload import Upload, upload_file
from cloudft.backends.aws_base.api_call import ApiCall
from cloudft.backends.base import Location
from cloudft.backends.capabilities import SupportsIdentity
from cloudft.backends.observer import RunObserver
from cloudft.errors import (
    CloudRefused,
    JobNotFound,
    PermissionDenied,
    ResourceConflict,
    ResourceNotFound,
)
from cloudft.spec.load import LoadedJob
from cloudft.storage.home import Home
from cloudft.types import CallerIdentity, Plan, to_json

Self = TypeVar("Self", bound="AwsBackend")
LOCATION_FIELDS = tuple(field.name for field in fields(AwsLocation))


class AwsBackend(SupportsIdentity):
    """A backend of one account and Region. An endpoint on this machine is polled more often."""

    name: str
    poll_seconds = 10.0
    longest_poll_seconds: float | None = 60.0

    def __init__(self, home: Home, aws: Aws | None = None) -> None:
        self.home = home
        self.aws = aws or Aws(AwsLocation())
        # A local emulator costs nothing to poll, and its jobs take seconds.
        if self.aws.location.endpoint_url and "127.0.0.1" in self.aws.location.endpoint_url:
            self.poll_seconds, self.longest_poll_seconds = 0.2, 1.0

    def bind(self: Self, location: Location) -> Self:
        """Return this backend in another Region, or with another profile or endpoint.

        Binding to the same location returns the backend itself, with its clients.
        """
        new = to_aws_location(location)
        return self if new == self.aws.location else type(self)(self.home, Aws(new))

    @abstractmethod
    def location_of(self, job: LoadedJob) -> Location:
        """Return the location that the job file names, as `bind` takes it."""

    def aws_for(self, location: Location) -> Aws:
        """Return the clients of this backend's account and Region.

        Raise ValueError unless the backend is bound to that location: what belongs to one account
        or Region must never reach another one.
        """
        if to_aws_location(location) != self.aws.location:
            bound = self.aws.location
            raise ValueError(f"the backend {self.name} is bound to {bound}, not to {location}")
        return self.aws

    def get_identity(self, job: LoadedJob) -> CallerIdentity:
        """Return who submits that job, by a call of STS."""
        aws = self.aws_for(self.location_of(job))
        names = {"region": "", "profile": ""}
        for name in names:
            for section in (self.name, "bedrock"):
                origin = job.origins.get(f"{section}.{name}")
                if origin is not None and origin.kind != "default":
                    names[name] = f"--{name}" if origin.kind == "flag" else origin.where
                    break
        return get_identity(aws, names["region"] or None, names["profile"] or None)

    def location_with_region(self, service: str) -> dict[str, str | None]:
        """Return this location as plain data, with the Region that is in effect."""
        return {**asdict(self.aws.location), "region": self.aws.client(service).meta.region_name}

    def upload_file(
        self,
        parameters: Mapping[str, Any],
        path: Path,
        sha256: str,
        observer: RunObserver,
    ) -> None:
        """Upload a file as a planned put_object says, unless the object has its content."""
        upload = Upload(
            path,
            parameters["Bucket"],
            parameters["Key"],
            sha256,
            parameters.get("ExpectedBucketOwner"),
            parameters.get("SSEKMSKeyId"),
        )
        upload_file(self.aws, upload, observer.on_upload)

    def put_object(self, parameters: Mapping[str, Any], body: bytes) -> None:
        """Write an object as a planned put_object says, with this content."""
        what = f"can't write s3://{parameters['Bucket']}/{parameters['Key']}"
        self.aws.call(what, "s3", "put_object", **{**parameters, "Body": body})

    def create_once(
        self, what: str, call: ApiCall, find_existing: Callable[[], str | None]
    ) -> Mapping[str, Any] | str:
        """Return the response of a planned creation; or the existing resource's id.

        A conflict means that the response of an earlier try was lost, or that another submit runs
        beside this one: then `find_existing` finds what was created.
        """
        try:
            return self.aws.call(what, call.service, call.operation, **call.parameters)
        except ResourceConflict as error:
            existing = find_existing()
            if existing is None:
                raise error
            return existing

    def describe_or_none(
        self, what: str, service: str, operation: str, **named: str
    ) -> Mapping[str, Any] | None:
        """Return the description of a resource; None where it does not exist.

        SageMaker and Bedrock answer some missing names with a ValidationException.
        """
        try:
            return self.aws.call(what, service, operation, **named)
        except ResourceNotFound:
            return None
        except CloudRefused as error:
            # A ValidationException also means: no resource can have such a name.
            if "ValidationException" in error.message:
                return None
            raise


def to_aws_location(location: Location) -> AwsLocation:
    """Return plain data of a job file, a plan or a record as a location of AWS."""
    return AwsLocation(**{name: location.get(name) or None for name in LOCATION_FIELDS})


def is_owned_by_other_account(aws: Aws, bucket: str) -> bool:
    """Return whether a bucket that ExpectedBucketOwner denied exists, and is readable without it.

    When False, this identity lacks the permission to read it. Raise CloudUnreachable.
    """
    try:
        aws.call(f"can't read {bucket}", "s3", "head_bucket", Bucket=bucket)
    except PermissionDenied:
        return False
    return True


def job_not_found(what: str) -> JobNotFound:
    """Return the error for a missing job. `what` says which service has none."""
    fix = "check --profile and --region; `cloudft delete --force JOB` forgets a job that is gone."
    return JobNotFound(f"{what} in this account and Region", fix=fix)


def encode_plan(plan: Plan) -> bytes:
    """Encode a plan as it is stored in S3 beside its job, for other machines."""
    return orjson.dumps(to_json(plan) | {"version": 1}, option=orjson.OPT_INDENT_2)
