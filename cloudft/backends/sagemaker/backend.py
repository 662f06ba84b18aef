"""Jobs on Amazon SageMaker: the local trainer in a training job. The cloud is the truth.

A job is known by its id; its training jobs are named after it, and a resumed one gets `-r1`, `-r2`
behind that. What the trainer is asked, and the asking of its models once they are here, is the
local backend's, had by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from cloudft import artifacts as layout
from cloudft import catalogue
from cloudft.backends.base import (
    Backend,
    Finds,
    Inventories,
    Quotes,
    Resumes,
    StagedJob,
    Stranger,
    Thing,
    without_data,
)
from cloudft.backends.on_aws import OnAws, not_there, plan_bytes
from cloudft.backends.sagemaker import (
    images,
    instances,
    inventory,
    logs,
    output,
    preflight,
    prices,
    request,
    source,
    stack,
    states,
    weights,
)
from cloudft.backends.sagemaker.serve import AskedHere
from cloudft.errors import (
    AwsConflict,
    AwsNotFound,
    AwsRefused,
    AwsUnreachable,
    DamagedJob,
    JobStateConflict,
)
from cloudft.spec.load import LoadedJob
from cloudft.spec.portable import portable
from cloudft.types import (
    Estimate,
    Finding,
    JobState,
    LogLine,
    Metric,
    Plan,
    Volume,
    to_json,
)

Described = Mapping[str, Any]
NO_IMAGE = "<the image that the SageMaker SDK names>"


class SageMakerBackend(AskedHere, OnAws, Backend, Finds, Quotes, Resumes, Inventories):
    """Training jobs of one account and Region."""

    name = "sagemaker"
    longest_poll_seconds = 30.0

    def place_of(self, job: LoadedJob) -> Mapping[str, Any]:
        """Region, profile and endpoint of the job file."""
        return request.place_of(job)

    def completed(self, job: LoadedJob) -> LoadedJob:
        """With the outputs of its stack, where it names one."""
        return stack.completed(job, self.at(request.place_of(job)).aws)

    def check(self, job: LoadedJob) -> list[Finding]:
        """What the trainer, the settings and the account have to say."""
        here = self.at(request.place_of(job)).aws
        trainers = self.local.check(_anywhere(job))
        return preflight.findings(job, here, trainers, lambda: self._asked(without_data(job), ()))

    def estimate(self, job: LoadedJob, volumes: Mapping[str, Volume]) -> Estimate:
        """At most: how long a training takes is not known before it has run."""
        made = self.local.estimate(job, volumes)
        hour = request.usd_per_hour(job)
        seconds, name = request.max_runtime(job), instances.choice(job)
        machines = f"{job.spec.sagemaker.instance_count} x {name or 'a machine to be named'}"
        told = f"at most {seconds / 3600:g} h of {machines}"
        table = _table()
        return replace(
            made,
            backend=self.name,
            usd={
                "training": None if hour is None else hour * seconds / 3600,
                "storagePerMonth": None,
                "servingPerHour": 0.0,
            },
            price_source=f"{told}; {table.url}" if hour else f"{told}, no price is known",
            price_date=table.date if hour else "",
            at_most=True,
        )

    def quote(self, job: LoadedJob, estimate: Estimate) -> Estimate:
        """By the Price List, where it may be asked: an endpoint of one's own has none."""
        here, name = self.at(request.place_of(job)).aws, instances.choice(job)
        try:
            meta = here.client("sagemaker").meta
            if name is None or ".amazonaws.com" not in meta.endpoint_url:
                return estimate
            hour = prices.live(here, name, meta.region_name)
        except (AwsRefused, AwsUnreachable):
            return estimate
        if hour is None:
            return estimate
        hours = request.max_runtime(job) / 3600
        usd = {**estimate.usd, "training": hour * hours * job.spec.sagemaker.instance_count}
        told = estimate.price_source.partition(";")[0].partition(",")[0]
        return replace(estimate, usd=usd, price_source=f"{told}; Price List API", price_date="")

    def plan(self, staged: StagedJob) -> Plan:
        """The calls, in order, with everything that is in them."""
        model = instances.trained(staged.job)
        assert model is not None, "preflight refuses a job without a model to train"
        asked = self._asked(staged, weights.files(model))
        wanted = request.create(asked)
        job_id = wanted["HyperParameters"][request.JOB_MARK]
        return Plan(
            backend=self.name,
            token=request.token(asked),
            name=staged.job.spec.name,
            request={
                "hyperParameters": dict(asked.trainer["hyperParameters"]),
                "place": request.place_of(staged.job),
                "calls": request.calls(asked),
                "job": {"id": job_id, **request.trainer_request(asked)},
                "home": {**asked.trainer, "id": job_id},
                "sha256": {file.role: file.sha256 for file in asked.weights},
                "usdPerHour": request.usd_per_hour(staged.job),
            },
            files=request.paths(asked),
            manifest=staged.manifest,
            estimate=self.estimate(staged.job, staged.manifest.files),
            spec=portable(staged.job),
        )

    def _asked(self, staged: StagedJob, sent: tuple[weights.WeightFile, ...]) -> request.Asked:
        trainer = self.local.plan(replace(staged, job=_anywhere(staged.job))).request
        return request.Asked(staged, trainer, sent, _image(staged.job))

    def submit(self, plan: Plan, progress: Callable[[int], None] | None = None) -> str:
        """Stage to S3, then create the training job, unless it is there."""
        here = self.at(plan.request["place"])
        known = here._named(plan)
        if known is not None:
            return known
        here._stage(plan, progress)
        return here._create(plan)

    def find(self, plan: Plan) -> str | None:
        """By its name, which follows from the plan's token."""
        return self.at(plan.request["place"])._named(plan)

    def _named(self, plan: Plan) -> str | None:
        """The name of the plan's training job when it was created before."""
        name = request.training_name(plan.job_id)
        answer = self._find(name)
        if answer is None:
            return None
        if answer.get("HyperParameters", {}).get(request.TOKEN_MARK) != plan.token:
            raise AwsConflict(
                f"a training job {name} is there, and it is another one",
                fix="give this job another name.",
            )
        return name

    def _stage(self, plan: Plan, progress: Callable[[int], None] | None) -> None:
        bodies = {
            "code": lambda: source.pack().content,
            "job": lambda: orjson.dumps(plan.request["job"], option=orjson.OPT_INDENT_2),
            "manifest": lambda: orjson.dumps(to_json(plan.manifest)),
            "plan": lambda: plan_bytes(plan),
        }
        *puts, _ = plan.request["calls"]
        for call in puts:
            wanted = call["parameters"]
            if "file" in call:
                role = call["file"]
                sha256 = plan.request["sha256"].get(role) or plan.manifest.files[role].sha256
                self.send_file(wanted, plan.files[role], sha256, progress)
            else:
                self.send(wanted, bodies[call["content"]]())

    def _create(self, plan: Plan) -> str:
        what, call = f"the job {plan.job_id} can't be created", plan.request["calls"][-1]
        self.create(what, call, lambda: self._named(plan))
        return str(call["parameters"]["TrainingJobName"])

    def _find(self, name: str) -> Described | None:
        """One training job, or None. That there is none SageMaker calls a ValidationException."""
        what, operation = f"the job {name} can't be looked at", "describe_training_job"
        return self.look_up(what, "sagemaker", operation, TrainingJobName=name)

    def _attempts(self, job_id: str) -> list[Described]:
        """The job's training jobs, oldest first. Raises JobNotFound when there is none."""
        name = request.training_name(job_id)
        first = self._find(name)
        if first is None or request.JOB_MARK not in first.get("HyperParameters", {}):
            raise not_there(f"SageMaker has no job {job_id} of cloudft's")
        found = [first]
        while (more := self._find(f"{name}-r{len(found)}")) is not None:
            found.append(more)
        return found

    def describe(self, job_id: str) -> JobState:
        """One look; the artifacts of a completed job are brought home with the first one."""
        attempts = self._attempts(job_id)
        answer = attempts[-1]
        told = logs.newest_state(self.aws, answer["TrainingJobName"])
        known = instances.known(answer["ResourceConfig"]["InstanceType"])
        hour = known.usd_per_hour if known else None
        if hour is not None:
            hour *= answer["ResourceConfig"]["InstanceCount"]
        artifacts = None
        if answer["TrainingJobStatus"] == "Completed":
            try:
                artifacts = str(output.bring(self.aws, answer, self.home, _id(answer)))
            except (DamagedJob, AwsNotFound) as error:
                failed = {"TrainingJobStatus": "Failed", "FailureReason": error.message}
                answer = {**answer, **failed}
        billed = [a["BillableTimeInSeconds"] for a in attempts if "BillableTimeInSeconds" in a]
        if billed:
            answer = {**answer, "BillableTimeInSeconds": sum(billed)}
        return states.state(answer, told, artifacts, attempts=len(attempts), usd_per_hour=hour)

    def describe_many(self, job_ids: Sequence[str]) -> Mapping[str, JobState]:
        """From the account's list, a hundred at a time; of each job its newest training job."""
        wanted = {request.training_name(job_id): job_id for job_id in job_ids}
        found: dict[str, JobState] = {}
        for summary in inventory.summaries(self.aws):
            matched = request.NAMES.fullmatch(summary["TrainingJobName"])
            job_id = wanted.get(matched["base"]) if matched else None
            if job_id is None or job_id in found:  # the newest comes first
                continue
            folder = self.home.jobs / job_id / output.ARTIFACTS
            there = str(folder) if layout.is_complete(folder) else None
            answer = {**summary, "HyperParameters": {request.JOB_MARK: job_id}}
            found[job_id] = states.state(answer, None, there)
            if len(found) == len(wanted):
                break
        return found

    def strangers(self, known: Collection[str]) -> Iterator[Stranger]:
        """Jobs whose description says that cloudft made them; their plan lies in S3."""
        names = {request.training_name(job_id) for job_id in known}
        for summary in inventory.summaries(self.aws):
            name = summary["TrainingJobName"]
            matched = request.NAMES.fullmatch(name)
            if name in names or matched is None or matched["number"]:
                continue
            answer = self._find(name)
            if answer is None or request.JOB_MARK not in answer.get("HyperParameters", {}):
                continue
            try:
                plan = output.plan_of(self.aws, answer)
            except AwsRefused:
                continue
            yield Stranger(plan, name, str(states.iso(answer["CreationTime"])))

    def metrics(self, job_id: str) -> Iterator[Metric]:
        """The points that the trainer wrote into the log; of an old log, those of the artifacts."""
        attempts = self._attempts(job_id)
        points = logs.metrics(self.aws, _names(attempts))
        folder = self.home.jobs / _id(attempts[0]) / output.ARTIFACTS
        if not points and layout.is_complete(folder):
            read = layout.read_metrics(folder)
            points = sorted(read, key=lambda point: (point.step, point.split))
        yield from points

    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        """What the container printed, of all the job's training jobs."""
        return logs.lines(self.aws, _names(self._attempts(job_id)), after)

    def stop(self, job_id: str) -> None:
        """StopTrainingJob: the trainer has two minutes for a checkpoint."""
        answer = self._attempts(job_id)[-1]
        if answer["TrainingJobStatus"] != "InProgress":
            return
        what, name = f"the job {job_id} can't be stopped", answer["TrainingJobName"]
        try:
            self.aws.call(what, "sagemaker", "stop_training_job", TrainingJobName=name)
        except AwsRefused:
            ended = self._find(name)  # it has ended meanwhile, or is being stopped
            if ended is not None and ended["TrainingJobStatus"] == "InProgress":
                raise

    def resume(self, job_id: str) -> None:
        """Another training job with the same request goes on from the checkpoints in S3."""
        attempts = self._attempts(job_id)
        status = states.STATES[attempts[-1]["TrainingJobStatus"]]
        if status in ("InProgress", "Stopping"):
            raise JobStateConflict(
                f"{job_id} is running", fix=f"`cloudft watch {job_id}` follows it."
            )
        if status == "Completed":
            raise JobStateConflict(
                f"{job_id} is Completed: there is nothing to resume",
                fix="submit another job with more epochs.",
            )
        plan = output.plan_of(self.aws, attempts[0])
        again = request.resumed(plan["request"]["calls"][-1]["parameters"], len(attempts))
        what = f"the job {job_id} can't be resumed"
        try:
            self.aws.call(what, "sagemaker", request.CREATE, **again)
        except AwsConflict:  # another resume beside this has made it
            return

    def artifacts(self, job_id: str, to: Path) -> Path:
        """Copy what the job left to `to`, which must not exist."""
        return layout.copy(job_id, self.describe(job_id).artifacts, to)

    def inventory(self) -> Iterator[Thing]:
        """Running jobs, warm machines and staged data of this account and Region."""
        return inventory.everything(self.aws)

    def remove(self, thing: Thing) -> None:
        """Remove one thing. A running job is left alone."""
        inventory.remove(self.aws, thing)


def _anywhere(job: LoadedJob) -> LoadedJob:
    """The job without this machine's device: the container takes its own."""
    local = job.spec.local.model_copy(update={"device": "auto"})
    return replace(job, spec=job.spec.model_copy(update={"local": local}))


def _image(job: LoadedJob) -> str:
    spec, instance = job.spec.sagemaker, instances.choice(job)
    region = request.place_of(job)["region"]
    if spec.image_uri is not None:
        return spec.image_uri
    if not images.sdk_is_here() or region is None or instance is None:
        return NO_IMAGE  # preflight refuses it
    return images.stock(region, instance, spec.pytorch_version)


def _table() -> catalogue.Source:
    return catalogue.instances().price_source


def _id(answer: Described) -> str:
    return str(answer["HyperParameters"][request.JOB_MARK])


def _names(attempts: Sequence[Described]) -> list[str]:
    return [str(answer["TrainingJobName"]) for answer in attempts]
