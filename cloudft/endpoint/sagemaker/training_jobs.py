"""SageMaker's training jobs: those of cloudft's own trainer, which are really run."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from cloudft.endpoint.fault_injection import FaultInjector
from cloudft.endpoint.iam.authorizer import RoleClientFactory
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.sagemaker.cloudwatch_log_stream import LogStream
from cloudft.endpoint.sagemaker.cluster import Cluster
from cloudft.endpoint.sagemaker.container import (
    require_cloudft_command,
    require_readable_channels,
    upload_model_archive,
)
from cloudft.endpoint.state import ACCOUNT, State, TrainingJob, new_id, now
from cloudft.endpoint.training.trainers import SimulatedRun

RUNNING = ("InProgress", "Stopping")
SPOT_INTERRUPTION = "spotInterruption"
"""The operation of a fault (`do: fail`) that takes a spot machine away."""
SIMULATED_STEPS = 10
"""Of a job by the fast clock."""
NOT_FOUND = "Requested resource not found."
"""SageMaker's own words, in a ValidationException."""
DESCRIBED_REQUEST_FIELDS = (
    *("HyperParameters", "AlgorithmSpecification", "RoleArn", "InputDataConfig"),
    *("OutputDataConfig", "ResourceConfig", "VpcConfig", "StoppingCondition", "Environment"),
    *("EnableNetworkIsolation", "EnableManagedSpotTraining", "CheckpointConfig"),
)


@dataclass
class ActiveRun:
    """What runs for a job now."""

    cluster: Cluster | None = None
    interrupted: bool = False
    finished: threading.Event = field(default_factory=threading.Event)


class HostLogStreams:
    """The log streams of a job's machines, made as they begin."""

    def __init__(self, logs: Any, name: str) -> None:
        self._logs, self._name = logs, name
        self._made: list[LogStream] = []

    def open_for_host(self, number: int) -> Callable[[str], None]:
        """Return what takes the lines of a host, counted from 1."""
        when = time.time_ns() // 1_000_000
        self._made.append(LogStream(self._logs, f"{self._name}/algo-{number}-{when}"))
        return self._made[-1].write_line

    def close(self) -> None:
        """Send the rest of all."""
        while self._made:
            self._made.pop().close()


class TrainingJobs:
    """The operations of training jobs. Containers work in folders below `folder`; `python` is that
    of the environment that they run in, this one's if not given.
    """

    def __init__(
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

    def begin(self) -> None:
        """Go on with the jobs that were running, from the checkpoints in S3."""
        for job in self._running():
            self._start_thread(job)

    def close(self) -> None:
        """Let the containers end with a checkpoint; the jobs stay as they are."""
        self.closing.set()
        for live in list(self.active_runs.values()):
            if live.cluster is not None:
                live.cluster.stop()
        for live in list(self.active_runs.values()):
            live.finished.wait(10)
            if live.cluster is not None:
                live.cluster.kill()

    def _running(self) -> list[TrainingJob]:
        with self.state.lock:
            return [job for job in self.state.training.values() if job.status in RUNNING]

    def _start_thread(self, job: TrainingJob) -> None:
        self.active_runs[job.name] = ActiveRun()
        work = self._train if self.seconds is None else self._simulate
        threading.Thread(target=work, args=(job,), daemon=True).start()

    def create_training_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Run cloudft's trainer, as it was packed; other code is refused."""
        require_cloudft_command(given)
        name = given["TrainingJobName"]
        arn = f"arn:aws:sagemaker:{self.state.region}:{ACCOUNT}:training-job/{name.lower()}"
        self._require_assumable_role(given["RoleArn"], arn)
        with self.state.lock:
            if name in self.state.training:
                what = f"Training job names must be unique; {name} is there already"
                raise ServiceError("ResourceInUse", what)
            job = TrainingJob(arn, name, dict(given))
            self.state.training[name] = job
            pairs = given.get("Tags", ())
            self.state.tag(arn, [{"key": t["Key"], "value": t["Value"]} for t in pairs])
            self.state.save()
        self._start_thread(job)
        return {"TrainingJobArn": arn}

    def _require_assumable_role(self, role: str, arn: str) -> None:
        """Raise ValidationException, as SageMaker does at once, for a role that is not for it."""
        try:
            self.s3(role, arn)
        except ClientError as error:
            what = f"Could not assume role {role}. Please ensure that the role exists and allows"
            raise ServiceError(
                "ValidationException",
                f"{what} principal 'sagemaker.amazonaws.com' to assume the role.",
            ) from error

    def _set_status(self, job: TrainingJob, second: str, status: str | None = None) -> None:
        with self.state.lock:
            job.enter_status(second)
            if status is not None:
                job.status = status
                job.ended = now()
            self.state.save()

    def _train(self, job: TrainingJob) -> None:
        """The machine, again and again where a spot one is taken away, to the job's end."""
        live = self.active_runs[job.name]
        try:
            while self._run_attempt(job, live):
                self._set_status(job, "Restarting")
        except Exception as error:  # whatever it is, the job says so
            message = getattr(error, "message", str(error))
            self._end(job, "Failed", f"ClientError: {message}")
        finally:
            live.finished.set()

    def _run_attempt(self, job: TrainingJob, live: ActiveRun) -> bool:
        """The machines, once; True when they were taken away."""
        live.interrupted = False
        role = job.request["RoleArn"]
        s3, logs = self.s3(role, job.arn), self.logs(role, job.arn)
        streams = HostLogStreams(logs, job.name)
        machines = Cluster(
            job.request, self.folder / new_id(), s3, streams.open_for_host, self.python
        )
        live.cluster = machines
        try:
            self._set_status(job, "Downloading")
            machines.download_inputs()
            if job.status == "Stopping":
                machines.stop()
            self._set_status(job, "Stopping" if job.status == "Stopping" else "Training")
            job.started = job.started or now()
            watch = threading.Thread(
                target=self._watch_for_interruption, args=(job, live), daemon=True
            )
            watch.start()
            longest = float(job.request["StoppingCondition"].get("MaxRuntimeInSeconds", 86_400))
            deadline = time.monotonic() + longest
            code = machines.run(deadline)
            live.cluster = None
            watch.join()
            streams.close()
            if self.closing.is_set():
                return False
            if live.interrupted and job.status == "InProgress":
                self._set_status(job, "Interrupted")
                return True
            self._finish(job, machines, code, late=time.monotonic() > deadline)
        finally:
            live.cluster = None
            streams.close()
            machines.remove()
        return False

    def _watch_for_interruption(self, job: TrainingJob, live: ActiveRun) -> None:
        """Take the machine of a spot job away, when that was ordered."""
        spot = job.request.get("EnableManagedSpotTraining")
        while spot and (machines := live.cluster) is not None:
            if self.faults.take_due_fault(SPOT_INTERRUPTION) is not None:
                live.interrupted = True
                machines.stop()
                return
            time.sleep(0.05)

    def _finish(self, job: TrainingJob, machines: Cluster, code: int, *, late: bool) -> None:
        if job.status == "Stopping":
            self._end(job, "Stopped")
        elif late:
            self._end(job, "Stopped", second="MaxRuntimeExceeded")
        elif code != 0:
            self._end(job, "Failed", machines.failure_reason())
        else:
            self._set_status(job, "Uploading")
            job.artifacts = machines.upload_model(job.name)
            self._end(job, "Completed")

    def _end(
        self, job: TrainingJob, status: str, failure: str | None = None, second: str | None = None
    ) -> None:
        job.failure = failure
        self._set_status(job, second or status, status)

    def _simulate(self, job: TrainingJob) -> None:
        """By the fast clock: a curve by a formula, after so many seconds."""
        live, end = self.active_runs[job.name], time.monotonic() + (self.seconds or 0.0)
        while time.monotonic() < end and job.status == "InProgress":
            time.sleep(0.02)
        if job.status == "Stopping":
            self._end(job, "Stopped")
        else:
            folder = self.folder / new_id()
            run = SimulatedRun(folder, SIMULATED_STEPS, False, 0.0)
            run.poll()
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w:gz") as archive:
                archive.add(folder, ".")
            try:
                s3 = self.s3(job.request["RoleArn"], job.arn)
                require_readable_channels(s3, job.request)
                job.artifacts = upload_model_archive(s3, job.request, job.name, packed.getvalue())
                self._end(job, "Completed")
            except Exception as error:  # the bucket is gone, or the role may not
                self._end(job, "Failed", f"ClientError: {error}")
        live.finished.set()

    def _job(self, given: Mapping[str, Any]) -> TrainingJob:
        job = self.state.training.get(given["TrainingJobName"])
        if job is None:
            raise ServiceError("ValidationException", NOT_FOUND)
        return job

    def describe_training_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One job."""
        with self.state.lock:
            job = self._job(given)
            spent = _elapsed_seconds(job.started, job.ended or now())
            return {
                **{name: job.request.get(name) for name in DESCRIBED_REQUEST_FIELDS},
                **_summary(job),
                "ModelArtifacts": {"S3ModelArtifacts": job.artifacts or ""},
                "FailureReason": job.failure,
                "TrainingStartTime": job.started,
                "TrainingTimeInSeconds": spent,
                "BillableTimeInSeconds": spent,
                "SecondaryStatusTransitions": [
                    {"Status": status, "StartTime": when} for status, when in job.transitions
                ],
            }

    def list_training_jobs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Summaries, a page at a time."""
        with self.state.lock:
            jobs = [
                job
                for job in self.state.training.values()
                if given.get("NameContains", "") in job.name
                and given.get("StatusEquals", job.status) == job.status
            ]
        jobs.sort(key=lambda job: job.created, reverse=given.get("SortOrder") == "Descending")
        at, size = int(given.get("NextToken") or 0), given.get("MaxResults", 100)
        shown = [_summary(job) for job in jobs[at : at + size]]
        more = {"NextToken": str(at + size)} if at + size < len(jobs) else {}
        return {"TrainingJobSummaries": shown, **more}

    def stop_training_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """SIGTERM to the container; the job ends in Stopped."""
        with self.state.lock:
            job = self._job(given)
            if job.status != "InProgress":
                what = f"The request was rejected because the training job is {job.status}"
                raise ServiceError("ValidationException", what)
            job.status = "Stopping"
            job.enter_status("Stopping")
            self.state.save()
            machines = self.active_runs[job.name].cluster
        if machines is not None:
            machines.stop()
        return {}

    def list_tags(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The tags of one job."""
        tags = self.state.tags.get(given["ResourceArn"], {})
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def _summary(job: TrainingJob) -> dict[str, Any]:
    return {
        "TrainingJobName": job.name,
        "TrainingJobArn": job.arn,
        "TrainingJobStatus": job.status,
        "SecondaryStatus": job.second,
        "CreationTime": job.created,
        "LastModifiedTime": job.modified,
        "TrainingEndTime": job.ended,
    }


def _elapsed_seconds(began: datetime | None, ended: datetime) -> int | None:
    return None if began is None else max(1, int((ended - began).total_seconds()))
