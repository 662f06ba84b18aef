"""What stands in an account and Region on SageMaker, and may cost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cloudft import catalogue, cost
from cloudft.aws.client import Aws
from cloudft.backends.base import Thing
from cloudft.backends.sagemaker import instances, request, states
from cloudft.errors import AwsDenied, AwsNotFound, JobStateConflict

STAGED = re.compile(r"s3://[^/]+/(.+/)?(data|models)/[0-9a-f]{64}/")
"""Where cloudft puts data and weights for jobs; both are sent again when a job wants them."""
MONTH_S = cost.HOURS_PER_MONTH * 3600
Described = Mapping[str, Any]


def summaries(aws: Aws) -> Iterator[Described]:
    """Every training job, newest first."""
    token: dict[str, str] = {}
    how = {"SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": 100}
    while True:
        what = "the training jobs can't be listed"
        answer = aws.call(what, "sagemaker", "list_training_jobs", **how, **token)
        yield from answer["TrainingJobSummaries"]
        if not answer.get("NextToken"):
            return
        token = {"NextToken": answer["NextToken"]}


def everything(aws: Aws) -> Iterator[Thing]:
    """Running jobs and warm machines, whoever made them; then data of cloudft's ended jobs."""
    used: set[str] = set()
    ended: dict[str, Described] = {}
    for summary in summaries(aws):
        name, status = summary["TrainingJobName"], summary["TrainingJobStatus"]
        warm = (summary.get("WarmPoolStatus") or {}).get("Status") == "Available"
        running = status in ("InProgress", "Stopping")
        if not (running or warm or request.NAMES.fullmatch(name)):
            continue
        what = f"the job {name} can't be looked at"
        job = aws.call(what, "sagemaker", "describe_training_job", TrainingJobName=name)
        if running:
            longest = job["StoppingCondition"].get("MaxRuntimeInSeconds", MONTH_S)
            yield _machine(job, "training-job", status, longest)
        elif warm:
            kept = job["ResourceConfig"].get("KeepAlivePeriodInSeconds", MONTH_S)
            yield _machine(job, "warm-pool", "Available", kept)
        if _ours(job):
            uris = [uri for uri in _inputs(job) if STAGED.fullmatch(uri)]
            if running:
                used |= set(uris)
            else:
                ended |= {uri: job for uri in uris if uri not in ended}
    for uri, job in ended.items():
        if uri not in used:
            yield from _data(aws, uri, job)


def _ours(job: Described) -> str | None:
    return (job.get("HyperParameters") or {}).get(request.JOB_MARK)


def _inputs(job: Described) -> Iterator[str]:
    for channel in job.get("InputDataConfig", ()):
        uri = channel["DataSource"].get("S3DataSource", {}).get("S3Uri")
        if uri:
            yield uri


def _machine(job: Described, kind: str, status: str, seconds: int) -> Thing:
    """Machines that are billed for so many seconds at most: a month is what is left of that."""
    wanted = job["ResourceConfig"]
    known = instances.known(wanted.get("InstanceType"))
    price = known.usd_per_hour if known else None
    hour = None if price is None else price * wanted["InstanceCount"]
    month = None if hour is None else hour * min(seconds, MONTH_S) / 3600
    usd = {"perHour": hour, "perMonth": month}
    source = "no price is known" if price is None else catalogue.instances().price_source
    return Thing(
        kind,
        job["TrainingJobArn"],
        job["TrainingJobName"],
        status,
        str(states.iso(job["CreationTime"])),
        usd,
        _ours(job),
        backend="sagemaker",
        basis=f"{wanted['InstanceCount']} x {wanted['InstanceType']} ({source})",
    )


def _data(aws: Aws, uri: str, job: Described) -> Iterator[Thing]:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    where = {"Bucket": bucket, "ExpectedBucketOwner": str(job["RoleArn"]).split(":")[4]}
    made, usd = str(states.iso(job["CreationTime"])), {"perHour": 0.0, "perMonth": None}
    try:
        what = f"{uri} can't be listed"
        answer = aws.call(what, "s3", "list_objects_v2", Prefix=prefix, **where)
    except (AwsNotFound, AwsDenied):  # no such bucket, or another account's: not ours to remove
        return
    for item in answer.get("Contents", ()):
        name = item["Key"].rpartition("/")[2]
        place = f"s3://{bucket}/{item['Key']}"
        yield Thing("data", place, name, "staged", made, usd, _ours(job), backend="sagemaker")


def remove(aws: Aws, thing: Thing) -> None:
    """Let a warm machine go, or remove a staged file. Raises JobStateConflict for a running job."""
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
    identity = aws.call("the identity can't be looked up", "sts", "get_caller_identity")
    where = {"Bucket": bucket, "Key": key, "ExpectedBucketOwner": identity["Account"]}
    aws.call(f"{thing.id} can't be removed", "s3", "delete_object", **where)
