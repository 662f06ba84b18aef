"""SageMaker training jobs. Those that run cloudft's own trainer really run."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from botocore.exceptions import ClientError

from cloudft.endpoint.fault_injection import FaultInjector
from cloudft.endpoint.iam.authorizer import RoleClientFactory
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.sagemaker.cloudwatch_log_stream import LogStream
from cloudft.endpoint.sagemaker.cluster import Cluster
from cloudft.endpoint.sagemaker.container import (
    require_cloudft_command,
    require_readable_channels,
    upload_model_archive,
)
from cloudft.endpoint.state import ACCOUNT, State, TrainingJob, new_id, now
from cloudft.endpoint.training.trainers import SimulatedRun

if TYPE_CHECKING:
    from botocore.client import BaseClient

RUNNING = ("InProgress", "Stopping")
SPOT_INTERRUPTION = "spotInterruption"
"""The operation of a fault (`do: fail`) that interrupts a spot machine."""
SIMULATED_STEPS = 10
"""Steps of a simulated job's loss curve."""
NOT_FOUND = "Requested resource not found."
"""SageMaker's own message, in a ValidationException."""
DESCRIBED_REQUEST_FIELDS = (
    *("HyperParameters", "AlgorithmSpecification", "RoleArn", "InputDataConfig"),
    *("OutputDataConfig", "ResourceConfig", "VpcConfig", "StoppingCondition", "Environment"),
    *("EnableNetworkIsolation", "EnableManagedSpotTraining", "CheckpointConfig"),
)
"""Members of the request that DescribeTrainingJob returns."""
DEFAULT_MAX_RUNTIME_S = 86_400
"""SageMaker's default of MaxRuntimeInSeconds: one day."""


class Tag(TypedDict):
    """A tag."""

    Key: str
    Value: str


class CreateTrainingJobRequest(TypedDict, total=False):
    """Members of CreateTrainingJob's request that are read here; all of them are stored."""

    TrainingJobName: str
    RoleArn: str
    Tags: Sequence[Tag]


class TrainingJobName(TypedDict):
    """A training job."""

    TrainingJobName: str


class ListTrainingJobsRequest(TypedDict, total=False):
    """Request of ListTrainingJobs."""

    NameContains: str
    StatusEquals: str
    SortOrder: str
    MaxResults: int
    NextToken: str


class ListTagsRequest(TypedDict):
    """Request of ListTags."""

    ResourceArn: str


@dataclass
class ActiveRun:
    """What currently runs for a job. `cluster` is None while no machines run."""

    cluster: Cluster | None = None
    interrupted: bool = False
    finished: threading.Event = field(default_factory=threading.Event)


class HostLogStreams:
    """The log streams of a job's machines."""

    def __init__(self, logs: BaseClient, name: str) -> None:
        self._logs, self._name = logs, name
        self._open: list[LogStream] = []

    def open_for_host(self, number: int) -> Callable[[str], None]:
        """Open the stream of a host, counted from 1, and return the function that writes to it.

        Its name has the time, as on SageMaker: each attempt of a spot job has streams of its own.
        """
        milliseconds = time.time_ns() // 1_000_000
        self._open.append(LogStream(self._logs, f"{self._name}/algo-{number}-{milliseconds}"))
        return self._open[-1].write_line

    def close(self) -> None:
        """Send the remaining lines of all streams."""
        while self._open:
            self._open.pop().close()


class TrainingJobs:
    """Operations on training jobs.

    Containers work in folders below `folder`, with the interpreter `python` of another environment
    or with this one. `seconds` set: jobs are simulated and take that long.
    """

    def __init__(  # noqa: PLR0913  # the parts of the endpoint that jobs use
        self,
        state: State,
        s3: RoleClientFactory,
        logs: RoleClientFactory,
        folder: Path,
        faults: FaultInjector,
        seconds: float | None = None,
        python: Path | None = None,
    ) -> None:
        self.python = python
        self.state = state
        self.s3, self.logs = s3, logs
        self.folder = folder / "containers"
        self.faults = faults
        self.seconds = seconds
        self.active_runs: dict[str, ActiveRun] = {}
        self.closing = threading.Event()

    def resume(self) -> None:
        """Resume the jobs that ran when the endpoint ended, from their checkpoints in S3."""
        for job in self._running():
            self._start_thread(job)

    def close(self) -> None:
        """Stop the containers with a checkpoint. The jobs keep their status, for `resume`."""
        self.closing.set()
        for run in list(self.active_runs.values()):
            if run.cluster is not None:
                run.cluster.stop()
        for run in list(self.active_runs.values()):
            run.finished.wait(10)
            if run.cluster is not None:
                run.cluster.kill()

    def _running(self) -> list[TrainingJob]:
        with self.state.lock:
            return [job for job in self.state.training.values() if job.status in RUNNING]

    def _start_thread(self, job: TrainingJob) -> None:
        self.active_runs[job.name] = ActiveRun()
        work = self._train if self.seconds is None else self._simulate
        threading.Thread(target=work, args=(job,), daemon=True).start()

    def create_training_job(self, request: CreateTrainingJobRequest) -> Response:
        """Run cloudft's trainer as cloudft packs it; any other code is refused."""
        require_cloudft_command(request)
        name = request["TrainingJobName"]
        arn = f"arn:aws:sagemaker:{self.state.region}:{ACCOUNT}:training-job/{name.lower()}"
        self._require_assumable_role(request["RoleArn"], arn)
        with self.state.lock:
            # Training jobs have no client token: the name is what makes a second request fail.
            if name in self.state.training:
                what = f"Training job names must be unique; {name} is there already"
                raise ServiceError("ResourceInUse", what)
            job = TrainingJob(arn, name, dict(request))
            self.state.training[name] = job
            tags = request.get("Tags", ())
            self.state.tag(arn, [{"key": t["Key"], "value": t["Value"]} for t in tags])
            self.state.save()
        self._start_thread(job)
        return {"TrainingJobArn": arn}

    def _require_assumable_role(self, role: str, arn: str) -> None:
        """Raise ValidationException, as SageMaker does at once, for a role it may not assume."""
        try:
            self.s3(role, arn)
        except ClientError as error:
            what = f"Could not assume role {role}. Please ensure that the role exists and allows"
            raise ServiceError(
                "ValidationException",
                f"{what} principal 'sagemaker.amazonaws.com' to assume the role.",
            ) from error

    def _set_status(
        self, job: TrainingJob, secondary_status: str, status: str | None = None
    ) -> None:
        """Enter a secondary status; with `status`, end the job. Save before anyone can read it."""
        with self.state.lock:
            job.enter_status(secondary_status)
            if status is not None:
                job.status = status
                job.ended = now()
            self.state.save()

    def _train(self, job: TrainingJob) -> None:
        """Run the job to its end, on new machines after each spot interruption."""
        run = self.active_runs[job.name]
        try:
            while self._run_attempt(job, run):
                self._set_status(job, "Restarting")
        except Exception as error:  # a thread has no caller: the job carries the failure
            message = getattr(error, "message", str(error))
            self._end(job, "Failed", f"ClientError: {message}")
        finally:
            run.finished.set()

    def _run_attempt(self, job: TrainingJob, run: ActiveRun) -> bool:
        """Run the machines once. Return True if they were interrupted."""
        run.interrupted = False
        role = job.request["RoleArn"]
        s3, logs = self.s3(role, job.arn), self.logs(role, job.arn)
        streams = HostLogStreams(logs, job.name)
        root = self.folder / new_id()
        cluster = Cluster(job.request, root, s3, streams.open_for_host, self.python)
        run.cluster = cluster
        try:
            self._set_status(job, "Downloading")
            cluster.download_inputs()
            # The stop may have come before these machines: during the download, or before a restart
            # of the endpoint.
            if job.status == "Stopping":
                cluster.stop()
            self._set_status(job, "Stopping" if job.status == "Stopping" else "Training")
            job.started = job.started or now()
            watch = threading.Thread(target=self._watch_for_interruption, args=(job, run))
            watch.daemon = True
            watch.start()
            limit = job.request["StoppingCondition"].get("MaxRuntimeInSeconds")
            deadline = time.monotonic() + float(limit or DEFAULT_MAX_RUNTIME_S)
            code = cluster.run(deadline)
            run.cluster = None  # ends the watch
            watch.join()
            streams.close()
            # The endpoint ends, not the job: its status stays, and `resume` continues it.
            if self.closing.is_set():
                return False
            if run.interrupted and job.status == "InProgress":
                self._set_status(job, "Interrupted")
                return True
            self._finish(job, cluster, code, late=time.monotonic() > deadline)
        finally:
            run.cluster = None
            streams.close()
            cluster.remove()
        return False

    def _watch_for_interruption(self, job: TrainingJob, run: ActiveRun) -> None:
        """Stop the machines of a spot job when an interruption was injected."""
        spot = job.request.get("EnableManagedSpotTraining")
        while spot and (cluster := run.cluster) is not None:
            if self.faults.take_due_fault(SPOT_INTERRUPTION) is not None:
                run.interrupted = True
                cluster.stop()
                return
            time.sleep(0.05)

    def _finish(self, job: TrainingJob, cluster: Cluster, code: int, *, late: bool) -> None:
        if job.status == "Stopping":
            self._end(job, "Stopped")
        elif late:
            self._end(job, "Stopped", secondary_status="MaxRuntimeExceeded")
        elif code != 0:
            self._end(job, "Failed", cluster.failure_reason())
        else:
            self._set_status(job, "Uploading")
            job.artifacts = cluster.upload_model(job.name)
            self._end(job, "Completed")

    def _end(
        self,
        job: TrainingJob,
        status: str,
        failure: str | None = None,
        secondary_status: str | None = None,
    ) -> None:
        job.failure = failure
        self._set_status(job, secondary_status or status, status)

    def _simulate(self, job: TrainingJob) -> None:
        """Complete the job after `seconds`, with a synthetic loss curve and no training."""
        run, end = self.active_runs[job.name], time.monotonic() + (self.seconds or 0.0)
        while time.monotonic() < end and job.status == "InProgress":
            time.sleep(0.02)
        if job.status == "Stopping":
            self._end(job, "Stopped")
        else:
            folder = self.folder / new_id()
            SimulatedRun(folder, SIMULATED_STEPS, (), 0.0).poll()  # writes the curve
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w:gz") as archive:
                archive.add(folder, ".")
            try:
                s3 = self.s3(job.request["RoleArn"], job.arn)
                require_readable_channels(s3, job.request)
                model = packed.getvalue()
                job.artifacts = upload_model_archive(s3, job.request, job.name, model)
                self._end(job, "Completed")
            except Exception as error:  # no bucket, or no permission: the job carries the failure
                self._end(job, "Failed", f"ClientError: {error}")
        run.finished.set()

    def _job(self, request: TrainingJobName) -> TrainingJob:
        job = self.state.training.get(request["TrainingJobName"])
        if job is None:
            raise ServiceError("ValidationException", NOT_FOUND)
        return job

    def describe_training_job(self, request: TrainingJobName) -> Response:
        """Return one job."""
        with self.state.lock:
            job = self._job(request)
            seconds = _elapsed_seconds(job.started, job.ended or now())
            return {
                **{name: job.request.get(name) for name in DESCRIBED_REQUEST_FIELDS},
                **_summary(job),
                "ModelArtifacts": {"S3ModelArtifacts": job.artifacts or ""},
                "FailureReason": job.failure,
                "TrainingStartTime": job.started,
                "TrainingTimeInSeconds": seconds,
                "BillableTimeInSeconds": seconds,
                "SecondaryStatusTransitions": [
                    {"Status": status, "StartTime": when} for status, when in job.transitions
                ],
            }

    def list_training_jobs(self, request: ListTrainingJobsRequest) -> Response:
        """Return summaries of the jobs, paginated."""
        with self.state.lock:
            jobs = [
                job
                for job in self.state.training.values()
                if request.get("NameContains", "") in job.name
                and request.get("StatusEquals", job.status) == job.status
            ]
        jobs.sort(key=lambda job: job.created, reverse=request.get("SortOrder") == "Descending")
        start = int(request.get("NextToken") or 0)
        end = start + request.get("MaxResults", 100)
        summaries = [_summary(job) for job in jobs[start:end]]
        next_page = {"NextToken": str(end)} if end < len(jobs) else {}
        return {"TrainingJobSummaries": summaries, **next_page}

    def stop_training_job(self, request: TrainingJobName) -> Response:
        """Send SIGTERM to the containers; the job ends in Stopped."""
        with self.state.lock:
            job = self._job(request)
            if job.status != "InProgress":
                what = f"The request was rejected because the training job is {job.status}"
                raise ServiceError("ValidationException", what)
            job.status = "Stopping"
            job.enter_status("Stopping")
            self.state.save()
            cluster = self.active_runs[job.name].cluster
        if cluster is not None:
            cluster.stop()
        return {}

    def list_tags(self, request: ListTagsRequest) -> Response:
        """Return the tags of one job."""
        tags: Mapping[str, str] = self.state.tags.get(request["ResourceArn"], {})
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def _summary(job: TrainingJob) -> Response:
    return {
        "TrainingJobName": job.name,
        "TrainingJobArn": job.arn,
        "TrainingJobStatus": job.status,
        "SecondaryStatus": job.second,
        "CreationTime": job.created,
        "LastModifiedTime": job.modified,
        "TrainingEndTime": job.ended,
    }


def _elapsed_seconds(start: datetime | None, end: datetime) -> int | None:
    return None if start is None else max(1, int((end - start).total_seconds()))
