"""What the backends of AWS share: their place, what they send to S3 first, and how they are asked.

A call of a plan is a mapping with `service`, `operation` and `parameters`, as `--dry-run` shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson

from cloudft.aws.client import Aws, Place
from cloudft.aws.upload import Upload, upload
from cloudft.errors import AwsConflict, AwsNotFound, AwsRefused, JobNotFound
from cloudft.home import Home
from cloudft.types import Plan, to_json

Self = TypeVar("Self", bound="OnAws")


class OnAws:
    """A backend of one account and Region. An endpoint on this machine may be asked often."""

    poll_seconds = 10.0
    longest_poll_seconds: float | None = 60.0

    def __init__(self, home: Home, aws: Aws | None = None) -> None:
        self.home = home
        self.aws = aws or Aws(Place())
        if self.aws.place.endpoint_url and "127.0.0.1" in self.aws.place.endpoint_url:
            self.poll_seconds, self.longest_poll_seconds = 0.2, 1.0

    def at(self: Self, place: Mapping[str, Any]) -> Self:
        """The same in another Region, or with another profile or endpoint."""
        wanted = Place(**place)
        return self if wanted == self.aws.place else type(self)(self.home, Aws(wanted))

    def send_file(
        self,
        parameters: Mapping[str, Any],
        path: Path,
        sha256: str,
        progress: Callable[[int], None] | None,
    ) -> None:
        """Have a file in S3 as a planned put_object says. It is sent once."""
        wanted = Upload(
            path,
            parameters["Bucket"],
            parameters["Key"],
            sha256,
            parameters.get("ExpectedBucketOwner"),
            parameters.get("SSEKMSKeyId"),
        )
        upload(self.aws, wanted, progress)

    def send(self, parameters: Mapping[str, Any], body: bytes) -> None:
        """Write an object as a planned put_object says, with this content."""
        what = f"s3://{parameters['Bucket']}/{parameters['Key']} can't be written"
        self.aws.call(what, "s3", "put_object", **{**parameters, "Body": body})

    def create(
        self, what: str, call: Mapping[str, Any], known: Callable[[], str | None]
    ) -> Mapping[str, Any] | str:
        """What a planned creation answers; or the `known` one, where it was made before.

        A conflict is a try whose answer was lost, or another submit beside this one.
        """
        try:
            return self.aws.call(what, call["service"], call["operation"], **call["parameters"])
        except AwsConflict as error:
            there = known()
            if there is None:
                raise error
            return there

    def look_up(
        self, what: str, service: str, operation: str, **named: str
    ) -> Mapping[str, Any] | None:
        """What AWS tells of a thing; None where it has none of that name, or none can have it."""
        try:
            return self.aws.call(what, service, operation, **named)
        except AwsNotFound:
            return None
        except AwsRefused as error:
            if "ValidationException" in error.message:
                return None
            raise


def not_there(what: str) -> JobNotFound:
    """The error for a job that is not there: `what` says who has none."""
    fix = "check --profile and --region; `cloudft delete --force JOB` forgets a job that is gone."
    return JobNotFound(f"{what} in this account and Region", fix=fix)


def plan_bytes(plan: Plan) -> bytes:
    """A plan as it lies in S3 beside its job, for other machines."""
    return orjson.dumps(to_json(plan) | {"version": 1}, option=orjson.OPT_INDENT_2)
