"""List the billable resources of an account and Region on SageMaker."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from cloudft import catalogue
from cloudft.aws.arn import parse_arn
from cloudft.aws.client import Aws
from cloudft.aws.s3 import list_objects, s3_uri, split_s3_uri
from cloudft.backends.aws_base.backend import is_owned_by_other_account
from cloudft.backends.partial_listing import ListingBuilder
from cloudft.backends.resources import IN_USE, IN_USE_PART_SUFFIX, CloudResource
from cloudft.backends.sagemaker import request, states
from cloudft.backends.sagemaker.responses import TrainingJob
from cloudft.catalogue import cost
from cloudft.errors import JobStateConflict, PermissionDenied, ResourceNotFound
from cloudft.types import Listing

STAGED_URI = re.compile(r"s3://[^/]+/(.+/)?(data|models)/[0-9a-f]{64}/")
"""Where cloudft puts data and weights for jobs; both are sent again when a job wants them."""
MONTH_S = cost.HOURS_PER_MONTH * 3600


def list_training_jobs(aws: Aws) -> Iterator[TrainingJob]:
    """Yield every training job, newest first."""
    order = {"SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": 100}
    failure, operation = "the training jobs can't be listed", "list_training_jobs"
    yield from aws.paginate(failure, "sagemaker", operation, "TrainingJobSummaries", **order)


@dataclass
class _StagedUris:
    """S3 prefixes of staged files: those of running jobs, and the ended jobs, newest first."""

    used: set[str] = field(default_factory=set)
    ended: dict[str, list[TrainingJob]] = field(default_factory=dict)
    complete: bool = False


def list_resources(aws: Aws) -> Listing[CloudResource]:
    """List all running jobs and warm pools, and the staged data of cloudft's ended jobs.

    Where the jobs can't be read to the end, no data is listed: it is unknown what is in use.
    """
    builder, staged = ListingBuilder(), _StagedUris()
    resources = builder.collect(
        f"sagemaker: jobs {IN_USE_PART_SUFFIX}", lambda: _list_machines(aws, staged)
    )
    for uri, jobs in staged.ended.items() if staged.complete else ():
        if not any(uri.startswith(used) or used.startswith(uri) for used in staged.used):
            resources += builder.collect(
                f"sagemaker: {uri}", functools.partial(_list_staged_data, aws, uri, jobs)
            )
    return builder.build(resources)


def _list_machines(aws: Aws, staged: _StagedUris) -> Iterator[CloudResource]:
    for summary in list_training_jobs(aws):
        name, status = summary["TrainingJobName"], summary["TrainingJobStatus"]
        pool = summary.get("WarmPoolStatus")
        warm = pool is not None and pool["Status"] == "Available"
        running = status in ("InProgress", "Stopping")
        if not (running or warm or request.TRAINING_JOB_NAME.fullmatch(name)):
            continue
        what = f"can't read the job {name}"
        response = aws.call(what, "sagemaker", "describe_training_job", TrainingJobName=name)
        job = cast("TrainingJob", response)
        for uri in _input_uris(job) if running else ():  # also those of other tools
            staged.used.add(uri)
            created_at, usd = (
                str(states.iso_format(job["CreationTime"])),
                {"perHour": 0.0, "perMonth": None},
            )
            yield CloudResource(
                "data", uri, uri, IN_USE, created_at, usd, _job_id_of(job), backend="sagemaker"
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


def _job_id_of(job: TrainingJob) -> str | None:
    return (job.get("HyperParameters") or {}).get(request.JOB_KEY)


def _input_uris(job: TrainingJob) -> Iterator[str]:
    for channel in job.get("InputDataConfig", ()):
        source = channel["DataSource"].get("S3DataSource")
        if source is not None and source.get("S3Uri"):
            yield source["S3Uri"]


def _machine_resource(job: TrainingJob, kind: str, status: str, seconds: int) -> CloudResource:
    """Return instances that are billed for at most `seconds`.

    The cost of a month is that of the rest of these seconds.
    """
    config = job["ResourceConfig"]
    region = parse_arn(job["TrainingJobArn"]).region
    price = catalogue.hourly_price(config.get("InstanceType"), region)
    source = "no price is known" if price is None else price.origin(region)
    usd_per_hour = None if price is None else price.usd * config["InstanceCount"]
    usd_per_month = None if usd_per_hour is None else usd_per_hour * min(seconds, MONTH_S) / 3600
    usd = {"perHour": usd_per_hour, "perMonth": usd_per_month}
    return CloudResource(
        kind,
        job["TrainingJobArn"],
        job["TrainingJobName"],
        status,
        str(states.iso_format(job["CreationTime"])),
        usd,
        _job_id_of(job),
        backend="sagemaker",
        basis=f"{config['InstanceCount']} x {config['InstanceType']} ({source})",
    )


def _list_staged_data(aws: Aws, uri: str, jobs: Sequence[TrainingJob]) -> Iterator[CloudResource]:
    """Yield the staged files below `uri`; `resumable` ones are read again by a resumed job."""
    bucket, prefix = split_s3_uri(uri)
    job = jobs[0]
    where = {"Bucket": bucket, "ExpectedBucketOwner": str(job["RoleArn"]).split(":")[4]}
    created_at, usd = (
        str(states.iso_format(job["CreationTime"])),
        {"perHour": 0.0, "perMonth": None},
    )
    newest: dict[str, str] = {}  # a job's attempts are several training jobs
    for one in jobs:
        newest.setdefault(str(_job_id_of(one)), one["TrainingJobStatus"])
    done = set(newest.values()) == {"Completed"}
    name, *also = newest
    try:
        keys = [key for key, _ in list_objects(aws, where, prefix)]
    except ResourceNotFound:
        return
    except PermissionDenied:
        if is_owned_by_other_account(aws, bucket):
            return
        raise
    for key in keys:
        yield CloudResource(
            kind="data",
            id=s3_uri(bucket, key),
            name=key.rpartition("/")[2],
            status="staged" if done else "resumable",
            created_at=created_at,
            usd=usd,
            job=name,
            backend="sagemaker",
            also=tuple(also),
        )


def delete_resource(aws: Aws, resource: CloudResource) -> None:
    """Release a warm pool, or delete a staged file. Raise JobStateConflict for a running job."""
    if resource.kind == "training-job":
        raise JobStateConflict(
            f"{resource.name} is running",
            fix=f"`cloudft stop {resource.job or resource.name}` ends it.",
        )
    if resource.kind == "warm-pool":
        what = f"the machine of {resource.name} can't be let go"
        gone = {"KeepAlivePeriodInSeconds": 0}
        aws.call(
            what,
            "sagemaker",
            "update_training_job",
            TrainingJobName=resource.name,
            ResourceConfig=gone,
        )
        return
    bucket, key = split_s3_uri(resource.id)
    identity = aws.call("can't get the caller identity", "sts", "get_caller_identity")
    where = {"Bucket": bucket, "Key": key, "ExpectedBucketOwner": identity["Account"]}
    aws.call(f"{resource.id} can't be removed", "s3", "delete_object", **where)
