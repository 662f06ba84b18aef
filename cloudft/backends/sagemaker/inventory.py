"""List the billable resources of an account and Region on SageMaker."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudft import catalogue
from cloudft.aws.client import Aws
from cloudft.backends.aws_base.backend import is_owned_by_other_account
from cloudft.backends.partial_listing import ListingBuilder
from cloudft.backends.resources import IN_USE, IN_USE_PART_SUFFIX, CloudResource
from cloudft.backends.sagemaker import request, states
from cloudft.catalogue import cost
from cloudft.errors import JobStateConflict, PermissionDenied, ResourceNotFound
from cloudft.types import Listing

STAGED_URI = re.compile(r"s3://[^/]+/(.+/)?(data|models)/[0-9a-f]{64}/")
"""Where cloudft puts data and weights for jobs; both are sent again when a job wants them."""
MONTH_S = cost.HOURS_PER_MONTH * 3600
TrainingJobDescription = Mapping[str, Any]


def list_training_jobs(aws: Aws) -> Iterator[TrainingJobDescription]:
    """Yield every training job, newest first."""
    token: dict[str, str] = {}
    how = {"SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": 100}
    while True:
        what = "the training jobs can't be listed"
        answer = aws.call(what, "sagemaker", "list_training_jobs", **how, **token)
        yield from answer["TrainingJobSummaries"]
        if not answer.get("NextToken"):
            return
        token = {"NextToken": answer["NextToken"]}


@dataclass
class _StagedUris:
    """S3 prefixes of staged files: those of running jobs, and the ended jobs, newest first."""

    used: set[str] = field(default_factory=set)
    ended: dict[str, list[TrainingJobDescription]] = field(default_factory=dict)
    complete: bool = False


def list_resources(aws: Aws) -> Listing[CloudResource]:
    """List running jobs and warm pools, whoever created them, and data of cloudft's ended jobs.

    Where the jobs can't be read to the end, no data is listed: it is unknown what is in use.
    """
    gathering, staged = ListingBuilder(), _StagedUris()
    found = gathering.collect(
        f"sagemaker: jobs {IN_USE_PART_SUFFIX}", lambda: _list_machines(aws, staged)
    )
    for uri, jobs in staged.ended.items() if staged.complete else ():
        if not any(uri.startswith(used) or used.startswith(uri) for used in staged.used):
            found += gathering.collect(
                f"sagemaker: {uri}", functools.partial(_list_staged_data, aws, uri, jobs)
            )
    return gathering.build(found)


def _list_machines(aws: Aws, staged: _StagedUris) -> Iterator[CloudResource]:
    for summary in list_training_jobs(aws):
        name, status = summary["TrainingJobName"], summary["TrainingJobStatus"]
        warm = (summary.get("WarmPoolStatus") or {}).get("Status") == "Available"
        running = status in ("InProgress", "Stopping")
        if not (running or warm or request.TRAINING_JOB_NAME.fullmatch(name)):
            continue
        what = f"can't read the job {name}"
        job = aws.call(what, "sagemaker", "describe_training_job", TrainingJobName=name)
        for uri in _input_uris(job) if running else ():  # whoever made the job
            staged.used.add(uri)
            made, usd = (
                str(states.iso_format(job["CreationTime"])),
                {"perHour": 0.0, "perMonth": None},
            )
            yield CloudResource(
                "data", uri, uri, IN_USE, made, usd, _job_id_of(job), backend="sagemaker"
            )
        if _job_id_of(job) and not running:
            for uri in filter(STAGED_URI.fullmatch, _input_uris(job)):
                staged.ended.setdefault(uri, []).append(job)
        if running:
            longest = job["StoppingCondition"].get("MaxRuntimeInSeconds", MONTH_S)
            yield _machine_resource(job, "training-job", status, longest)
        elif warm:
            kept = job["ResourceConfig"].get("KeepAlivePeriodInSeconds", MONTH_S)
            yield _machine_resource(job, "warm-pool", "Available", kept)
    staged.complete = True


def _job_id_of(job: TrainingJobDescription) -> str | None:
    return (job.get("HyperParameters") or {}).get(request.JOB_KEY)


def _input_uris(job: TrainingJobDescription) -> Iterator[str]:
    for channel in job.get("InputDataConfig", ()):
        uri = channel["DataSource"].get("S3DataSource", {}).get("S3Uri")
        if uri:
            yield uri


def _machine_resource(
    job: TrainingJobDescription, kind: str, status: str, seconds: int
) -> CloudResource:
    """Return instances that are billed for at most `seconds`.

    The cost of a month is that of the rest of these seconds.
    """
    wanted = job["ResourceConfig"]
    price, source = catalogue.hourly_price(wanted.get("InstanceType")) or (
        None,
        "no price is known",
    )
    hour = None if price is None else price * wanted["InstanceCount"]
    month = None if hour is None else hour * min(seconds, MONTH_S) / 3600
    usd = {"perHour": hour, "perMonth": month}
    return CloudResource(
        kind,
        job["TrainingJobArn"],
        job["TrainingJobName"],
        status,
        str(states.iso_format(job["CreationTime"])),
        usd,
        _job_id_of(job),
        backend="sagemaker",
        basis=f"{wanted['InstanceCount']} x {wanted['InstanceType']} ({source})",
    )


def _list_staged_data(
    aws: Aws, uri: str, jobs: Sequence[TrainingJobDescription]
) -> Iterator[CloudResource]:
    """Yield the staged files below `uri`; `resumable` ones are read again by a resumed job."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    job = jobs[0]
    where = {"Bucket": bucket, "ExpectedBucketOwner": str(job["RoleArn"]).split(":")[4]}
    made, usd = str(states.iso_format(job["CreationTime"])), {"perHour": 0.0, "perMonth": None}
    newest: dict[str, str] = {}  # a job's attempts are several training jobs
    for one in jobs:
        newest.setdefault(str(_job_id_of(one)), one["TrainingJobStatus"])
    done = set(newest.values()) == {"Completed"}
    name, *also = newest
    try:
        keys = list(_list_keys(aws, where, prefix))
    except ResourceNotFound:
        return
    except PermissionDenied:
        if is_owned_by_other_account(aws, bucket):
            return
        raise
    for key in keys:
        yield CloudResource(
            kind="data",
            id=f"s3://{bucket}/{key}",
            name=key.rpartition("/")[2],
            status="staged" if done else "resumable",
            created_at=made,
            usd=usd,
            job=name,
            backend="sagemaker",
            also=tuple(also),
        )


def _list_keys(aws: Aws, where: Mapping[str, str], prefix: str) -> Iterator[str]:
    what = f"s3://{where['Bucket']}/{prefix} can't be listed"
    token: dict[str, str] = {}
    while True:
        page = aws.call(what, "s3", "list_objects_v2", Prefix=prefix, **where, **token)
        yield from (str(item["Key"]) for item in page.get("Contents", ()))
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def delete_resource(aws: Aws, thing: CloudResource) -> None:
    """Release a warm pool, or delete a staged file. Raise JobStateConflict for a running job."""
    if thing.kind == "training-job":
        raise JobStateConflict(
            f"{thing.name} is running", fix=f"`cloudft stop {thing.job or thing.name}` ends it."
        )
    if thing.kind == "warm-pool":
        what = f"the machine of {thing.name} can't be let go"
        gone = {"KeepAlivePeriodInSeconds": 0}
        aws.call(
            what,
            "sagemaker",
            "update_training_job",
            TrainingJobName=thing.name,
            ResourceConfig=gone,
        )
        return
    bucket, _, key = thing.id.removeprefix("s3://").partition("/")
    identity = aws.call("can't get the caller identity", "sts", "get_caller_identity")
    where = {"Bucket": bucket, "Key": key, "ExpectedBucketOwner": identity["Account"]}
    aws.call(f"{thing.id} can't be removed", "s3", "delete_object", **where)
