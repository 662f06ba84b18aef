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

from cloudft.endpoint.authority import Hands
from cloudft.endpoint.cluster import Cluster
from cloudft.endpoint.container import look_at_channels, put_model, refuse_others
from cloudft.endpoint.faults import Faults
from cloudft.endpoint.journaling import Stream
from cloudft.endpoint.state import ACCOUNT, State, TrainingJob, new_id, now
from cloudft.endpoint.training import InstantRun
from cloudft.endpoint.wire import WireError

RUNNING = ("InProgress", "Stopping")
INTERRUPTION = "spotInterruption"
"""The operation of a fault (`do: fail`) that takes a spot machine away."""
STEPS = 10
"""Of a job by the fast clock."""
NOT_FOUND = "Requested resource not found."
"""SageMaker's own words, in a ValidationException."""
ECHOED = (
    *("HyperParameters", "AlgorithmSpecification", "RoleArn", "InputDataConfig"),
    *("OutputDataConfig", "ResourceConfig", "VpcConfig", "StoppingCondition", "Environment"),
    *("EnableNetworkIsolation", "EnableManagedSpotTraining", "CheckpointConfig"),
)


@dataclass
class Live:
    """What runs for a job now."""

    machines: Cluster | None = None
    interrupted: bool = False
    closed: threading.Event = field(default_factory=threading.Event)


class Streams:
    """The log streams of a job's machines, made as they begin."""

    def __init__(self, logs: Any, name: str) -> None:
        self._logs, self._name = logs, name
        self._made: list[Stream] = []

    def of_host(self, number: int) -> Callable[[str], None]:
        """Return what takes the lines of a host, counted from 1."""
        when = time.time_ns() // 1_000_000
        self._made.append(Stream(self._logs, f"{self._name}/algo-{number}-{when}"))
        return self._made[-1].tell

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
        s3: Hands,
        logs: Hands,
        folder: Path,
        faults: Faults,
        seconds: float | None = None,
        python: Path | None = None,
    ) -> None:
        self.python = python
        self.state = state
        self.s3, self.logs = s3, logs
        self.folder = folder / "containers"
        self.faults = faults
        self.seconds = seconds
        self.live: dict[str, Live] = {}
        self.closing = threading.Event()

    def begin(self) -> None:
        """Go on with the jobs that were running, from the checkpoints in S3."""
        for job in self._running():
            self._go(job)

    def close(self) -> None:
        """Let the containers end with a checkpoint; the jobs stay as they are."""
        self.closing.set()
        for live in list(self.live.values()):
            if live.machines is not None:
                live.machines.stop()
        for live in list(self.live.values()):
            live.closed.wait(10)
            if live.machines is not None:
                live.machines.kill()

    def _running(self) -> list[TrainingJob]:
        with self.state.lock:
            return [job for job in self.state.training.values() if job.status in RUNNING]

    def _go(self, job: TrainingJob) -> None:
        self.live[job.name] = Live()
        work = self._train if self.seconds is None else self._pretend
        threading.Thread(target=work, args=(job,), daemon=True).start()

    def create_training_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Run cloudft's trainer, as it was packed; other code is refused."""
        refuse_others(given)
        name = given["TrainingJobName"]
        arn = f"arn:aws:sagemaker:{self.state.region}:{ACCOUNT}:training-job/{name.lower()}"
        self._take_on(given["RoleArn"], arn)
        with self.state.lock:
            if name in self.state.training:
                what = f"Training job names must be unique; {name} is there already"
                raise WireError("ResourceInUse", what)
            job = TrainingJob(arn, name, dict(given))
            self.state.training[name] = job
            pairs = given.get("Tags", ())
            self.state.tag(arn, [{"key": t["Key"], "value": t["Value"]} for t in pairs])
            self.state.save()
        self._go(job)
        return {"TrainingJobArn": arn}

    def _take_on(self, role: str, arn: str) -> None:
        """Raise ValidationException, as SageMaker does at once, for a role that is not for it."""
        try:
            self.s3(role, arn)
        except ClientError as error:
            what = f"Could not assume role {role}. Please ensure that the role exists and allows"
            raise WireError(
                "ValidationException",
                f"{what} principal 'sagemaker.amazonaws.com' to assume the role.",
            ) from error

    def _move(self, job: TrainingJob, second: str, status: str | None = None) -> None:
        with self.state.lock:
            job.enter(second)
            if status is not None:
                job.status = status
                job.ended = now()
            self.state.save()

    def _train(self, job: TrainingJob) -> None:
        """The machine, again and again where a spot one is taken away, to the job's end."""
        live = self.live[job.name]
        try:
            while self._once(job, live):
                self._move(job, "Restarting")
        except Exception as error:  # whatever it is, the job says so
            message = getattr(error, "message", str(error))
            self._end(job, "Failed", f"ClientError: {message}")
        finally:
            live.closed.set()

    def _once(self, job: TrainingJob, live: Live) -> bool:
        """The machines, once; True when they were taken away."""
        live.interrupted = False
        role = job.request["RoleArn"]
        s3, logs = self.s3(role, job.arn), self.logs(role, job.arn)
        streams = Streams(logs, job.name)
        machines = Cluster(job.request, self.folder / new_id(), s3, streams.of_host, self.python)
        live.machines = machines
        try:
            self._move(job, "Downloading")
            machines.fill()
            if job.status == "Stopping":
                machines.stop()
            self._move(job, "Stopping" if job.status == "Stopping" else "Training")
            job.started = job.started or now()
            watch = threading.Thread(target=self._interrupt, args=(job, live), daemon=True)
            watch.start()
            longest = float(job.request["StoppingCondition"].get("MaxRuntimeInSeconds", 86_400))
            deadline = time.monotonic() + longest
            code = machines.run(deadline)
            live.machines = None
            watch.join()
            streams.close()
            if self.closing.is_set():
                return False
            if live.interrupted and job.status == "InProgress":
                self._move(job, "Interrupted")
                return True
            self._conclude(job, machines, code, late=time.monotonic() > deadline)
        finally:
            live.machines = None
            streams.close()
            machines.remove()
        return False

    def _interrupt(self, job: TrainingJob, live: Live) -> None:
        """Take the machine of a spot job away, when that was ordered."""
        spot = job.request.get("EnableManagedSpotTraining")
        while spot and (machines := live.machines) is not None:
            if self.faults.due(INTERRUPTION) is not None:
                live.interrupted = True
                machines.stop()
                return
            time.sleep(0.05)

    def _conclude(self, job: TrainingJob, machines: Cluster, code: int, *, late: bool) -> None:
        if job.status == "Stopping":
            self._end(job, "Stopped")
        elif late:
            self._end(job, "Stopped", second="MaxRuntimeExceeded")
        elif code != 0:
            self._end(job, "Failed", machines.failure())
        else:
            self._move(job, "Uploading")
            job.artifacts = machines.publish(job.name)
            self._end(job, "Completed")

    def _end(
        self, job: TrainingJob, status: str, failure: str | None = None, second: str | None = None
    ) -> None:
        job.failure = failure
        self._move(job, second or status, status)

    def _pretend(self, job: TrainingJob) -> None:
        """By the fast clock: a curve by a formula, after so many seconds."""
        live, end = self.live[job.name], time.monotonic() + (self.seconds or 0.0)
        while time.monotonic() < end and job.status == "InProgress":
            time.sleep(0.02)
        if job.status == "Stopping":
            self._end(job, "Stopped")
        else:
            folder = self.folder / new_id()
            run = InstantRun(folder, STEPS, False, 0.0)
            run.look()
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w:gz") as archive:
                archive.add(folder, ".")
            try:
                s3 = self.s3(job.request["RoleArn"], job.arn)
                look_at_channels(s3, job.request)
                job.artifacts = put_model(s3, job.request, job.name, packed.getvalue())
                self._end(job, "Completed")
            except Exception as error:  # the bucket is gone, or the role may not
                self._end(job, "Failed", f"ClientError: {error}")
        live.closed.set()

    def _job(self, given: Mapping[str, Any]) -> TrainingJob:
        job = self.state.training.get(given["TrainingJobName"])
        if job is None:
            raise WireError("ValidationException", NOT_FOUND)
        return job

    def describe_training_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One job."""
        with self.state.lock:
            job = self._job(given)
            spent = _seconds(job.started, job.ended or now())
            return {
                **{name: job.request.get(name) for name in ECHOED},
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
                raise WireError("ValidationException", what)
            job.status = "Stopping"
            job.enter("Stopping")
            self.state.save()
            machines = self.live[job.name].machines
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


def _seconds(began: datetime | None, ended: datetime) -> int | None:
    return None if began is None else max(1, int((ended - began).total_seconds()))
