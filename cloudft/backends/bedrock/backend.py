"""Jobs on Amazon Bedrock. The cloud is the truth: a job is found there by its name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from cloudft import artifacts as layout
from cloudft import cost
from cloudft.aws.client import Aws
from cloudft.backends.base import (
    Answer,
    Asks,
    Backend,
    Decoding,
    Finds,
    Generates,
    Inventories,
    Opens,
    OpensBatches,
    Prompt,
    Quotes,
    Serves,
    ServingPlan,
    StagedJob,
    Stranger,
    Thing,
)
from cloudft.backends.bedrock import (
    batch,
    inventory,
    machine,
    output,
    preflight,
    prices,
    request,
    serve,
    stack,
    states,
)
from cloudft.backends.bedrock.serve import UNDER_WAY
from cloudft.backends.on_aws import OnAws, not_there, plan_bytes
from cloudft.errors import (
    AwsConflict,
    AwsNotFound,
    AwsRefused,
    AwsUnreachable,
    JobNotFound,
    JobStateConflict,
    UsageError,
)
from cloudft.home import Home
from cloudft.spec.load import LoadedJob
from cloudft.spec.portable import portable
from cloudft.types import Estimate, Finding, JobState, LogLine, Metric, Plan, Volume

ARTIFACTS = "artifacts"


class BedrockBackend(
    OnAws, Backend, Finds, Quotes, Serves, Generates, Opens, OpensBatches, Inventories
):
    """Model customization jobs of one account and Region."""

    name = "bedrock"
    asking_costs = True

    def __init__(self, home: Home, aws: Aws | None = None) -> None:
        super().__init__(home, aws)
        self._completed_jobs: Sequence[Mapping[str, Any]] | None = None

    def place_of(self, job: LoadedJob) -> Mapping[str, Any]:
        """Region, profile and endpoint of the job file."""
        return request.place_of(job)

    def completed(self, job: LoadedJob) -> LoadedJob:
        """With the outputs of its stack, where it names one."""
        return stack.completed(job, self.at(request.place_of(job)).aws)

    def check(self, job: LoadedJob) -> list[Finding]:
        """What Bedrock would refuse, sooner or later; asks the account as far as it may."""
        return preflight.findings(job, self.at(request.place_of(job)).aws)

    def estimate(self, job: LoadedJob, volumes: Mapping[str, Volume]) -> Estimate:
        """By the catalogue's prices. Whether validation data is billed is not documented."""
        return cost.estimate(self.name, job.model, volumes["train"], request.epochs(job))

    def quote(self, job: LoadedJob, estimate: Estimate) -> Estimate:
        """By the Price List API, where it may be asked: an endpoint of one's own has none."""
        here = self.at(request.place_of(job)).aws
        try:
            meta = here.client("bedrock").meta
            if not meta.endpoint_url.endswith((".amazonaws.com", ".amazonaws.com.cn")):
                return estimate
            found = prices.live(here, job.model, meta.region_name)
        except (AwsRefused, AwsUnreachable):
            return estimate
        return cost.quoted(estimate, job.model, found) if found else estimate

    def plan(self, staged: StagedJob) -> Plan:
        """The calls, in order, with everything that is in them."""
        files = {item.role: staged.folder / item.file.name for item in request.objects(staged)}
        return Plan(
            backend=self.name,
            token=request.token(staged),
            name=staged.job.spec.name,
            request={
                "hyperParameters": request.hyper_parameters(staged.job),
                "place": request.place_of(staged.job),
                "calls": request.calls(staged),
                **({"machine": ordered} if (ordered := machine.calls(staged)) else {}),
            },
            files=files,
            manifest=staged.manifest,
            estimate=self.estimate(staged.job, staged.manifest.files),
            spec=portable(staged.job),
        )

    def submit(self, plan: Plan, progress: Callable[[int], None] | None = None) -> str:
        """Stage to S3, then create the job, or have it created, unless that was done."""
        here = self.at(plan.request["place"])
        known = here._known(plan)
        if known is not None:
            return known
        here._stage(plan, progress)
        if plan.request.get("machine"):
            machine.start(here.aws, plan)
            return plan.job_id
        return here._create(plan)

    def find(self, plan: Plan) -> str | None:
        """By its name, or the name of its execution, which follow from the plan's token."""
        return self.at(plan.request["place"])._known(plan)

    def _known(self, plan: Plan) -> str | None:
        """The job that was created before, or that a machine is to create."""
        named, execution = self._named(plan), machine.execution_of(plan.request)
        if named is not None or execution is None:
            return named
        return plan.job_id if machine.look(self.aws, execution, plan.job_id) else None

    def _named(self, plan: Plan) -> str | None:
        """The ARN of the plan's job when it was created before."""
        try:
            answer = self._get(plan.job_id)
        except JobNotFound:
            return None
        told = answer.get("clientRequestToken")
        if told not in (None, plan.token):
            raise AwsConflict(
                f"a job {plan.job_id} is there, and it is another one ({answer['jobArn']})",
                fix="give this job another name.",
            )
        return str(answer["jobArn"])

    def _stage(self, plan: Plan, progress: Callable[[int], None] | None) -> None:
        *puts, _ = plan.request["calls"]
        for (role, path), call in zip(plan.files.items(), puts[:-1], strict=True):
            sha256 = plan.manifest.files[role].sha256
            self.send_file(call["parameters"], path, sha256, progress)
        self.send(puts[-1]["parameters"], plan_bytes(plan))

    def _create(self, plan: Plan) -> str:
        what, call = f"the job {plan.job_id} can't be created", plan.request["calls"][-1]
        made = self.create(what, call, lambda: self._named(plan))
        return made if isinstance(made, str) else str(made["jobArn"])

    def _get(self, job_id: str) -> Mapping[str, Any]:
        what, operation = f"the job {job_id} can't be looked at", "get_model_customization_job"
        answer = self.look_up(what, "bedrock", operation, jobIdentifier=job_id)
        if answer is None:
            raise not_there(f"Bedrock has no job {job_id}")
        return answer

    def describe(self, job_id: str) -> JobState:
        """One look; the files of a completed job are brought home with the first one."""
        answer = self._seen(job_id)
        if isinstance(answer, JobState):
            return answer
        if answer["status"] == "InProgress":
            return states.state(answer, None, states.usual_seconds(answer, self._before()))
        if answer["status"] != "Completed":
            return states.state(answer, None)
        folder = self._folder(answer)
        if not layout.is_complete(folder):
            output.bring(self.aws, answer, self._owner(answer), folder)
        return states.state(answer, str(folder))

    def _seen(self, job_id: str) -> Mapping[str, Any] | JobState:
        """The job; or, where a machine is to create it and has not yet, how that stands."""
        try:
            return self._get(job_id)
        except JobNotFound as error:
            missing = error
        execution = machine.execution_in(self.home.jobs / job_id)
        state = machine.look(self.aws, execution, job_id) if execution else None
        if state is not None and state.ended:
            with contextlib.suppress(JobNotFound):  # it has come between the two looks
                return self._get(job_id)
        if state is None or state.status == "Completed":
            raise missing
        return state

    def _before(self) -> Sequence[Mapping[str, Any]]:
        """The newest completed jobs, asked once; none where they may not be listed."""
        if self._completed_jobs is None:
            operation, only = "list_model_customization_jobs", {"statusEquals": "Completed"}
            try:
                answer = self.aws.once("jobs", "bedrock", operation, maxResults=100, **only)
            except (AwsRefused, AwsUnreachable):
                answer = {}
            self._completed_jobs = answer.get("modelCustomizationJobSummaries", ())
        return self._completed_jobs

    def describe_many(self, job_ids: Sequence[str]) -> Mapping[str, JobState]:
        """From the account's list: one call for a thousand jobs."""
        wanted, found = set(job_ids), {}
        for answer in self._summaries():
            for job_id in {answer["jobArn"], answer["jobName"]} & wanted:
                folder = self._folder(answer)
                there = str(folder) if layout.is_complete(folder) else None
                found[job_id] = states.state(answer, there)
            if len(found) == len(wanted):
                break
        return found

    def _summaries(self) -> Iterator[Mapping[str, Any]]:
        what, key = "the jobs can't be listed", "modelCustomizationJobSummaries"
        operation = "list_model_customization_jobs"
        return self.aws.pages(what, "bedrock", operation, key, maxResults=1000)

    def strangers(self, known: Collection[str]) -> Iterator[Stranger]:
        """Jobs whose tag says that cloudft made them; their plan lies beside their output."""
        for summary in self._summaries():
            name, arn = summary["jobName"], summary["jobArn"]
            if name in known or not request.NAMES.fullmatch(name):
                continue
            what = f"the tags of {name} can't be read"
            answer = self.aws.call(what, "bedrock", "list_tags_for_resource", resourceARN=arn)
            tags = {tag["key"]: tag["value"] for tag in answer["tags"]}
            if tags.get(request.TAG_JOB) != name:
                continue
            job = self._get(arn)
            bucket, prefix = request.output_of(job)
            owner = self._owner(job)
            where = {"Bucket": bucket, **({"ExpectedBucketOwner": owner} if owner else {})}
            try:
                plan = output.read(self.aws, where, prefix.removesuffix("output/") + request.PLAN)
            except AwsNotFound:
                continue
            yield Stranger(orjson.loads(plan), arn, str(states.iso(job["creationTime"])))

    def metrics(self, job_id: str) -> Iterator[Metric]:
        """The points of the CSV files. Bedrock tells none before a job has ended."""
        state = self.describe(job_id)
        if state.artifacts is None:
            return
        points = layout.read_metrics(Path(state.artifacts))
        yield from sorted(points, key=lambda point: (point.step, point.split))

    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        """The times of the phases: Bedrock keeps no log. The cursor is a line's number."""
        seen = self._seen(job_id)
        told = machine.log(seen) if isinstance(seen, JobState) else states.log(seen)
        lines = list(told)
        yield from lines[0 if after is None else int(after) + 1 :]

    def stop(self, job_id: str) -> None:
        """StopModelCustomizationJob; a job that has ended, or is stopping, is left as it is.

        One that is not there yet is not created any more.
        """
        seen = self._seen(job_id)
        if not isinstance(seen, JobState):
            self._stop(seen)
            return
        machine.stop(self.aws, seen)
        with contextlib.suppress(JobNotFound):  # unless it was created meanwhile
            self._stop(self._get(job_id))

    def _stop(self, job: Mapping[str, Any]) -> None:
        if job["status"] != "InProgress":
            return
        job_id = str(job["jobName"])
        what = f"the job {job_id} can't be stopped"
        try:
            self.aws.call(what, "bedrock", "stop_model_customization_job", jobIdentifier=job_id)
        except AwsConflict:  # it has ended meanwhile
            return

    def artifacts(self, job_id: str, to: Path) -> Path:
        """Copy what the job left to `to`, which must not exist."""
        return layout.copy(job_id, self.describe(job_id).artifacts, to)

    def plan_serving(
        self, job_id: str, *, provisioned: bool, units: int, hours: float | None
    ) -> ServingPlan:
        """A deployment on demand where the model allows it, else provisioned throughput."""
        job = self._completed(job_id)
        return serve.plan(job, provisioned=provisioned, units=units, hours=hours)

    def deploy(self, plan: ServingPlan) -> Thing:
        """Make it, and nothing twice: its name and token follow from the job."""
        return serve.deploy(self.aws, plan)

    def servings(self, job_id: str) -> list[Thing]:
        """Deployments and throughputs of the job's model."""
        model = self._get(job_id).get("outputModelArn")
        return [t for t in inventory.servings(self.aws) if model and t.model == model]

    def undeploy(self, job_id: str) -> list[Thing]:
        """Remove them all, each followed until it is gone."""
        removed = self.servings(job_id)
        for thing in removed:
            inventory.remove(self.aws, thing)
        return removed

    def generate(
        self, job_id: str, prompts: Sequence[Prompt], variants: Sequence[str], decoding: Decoding
    ) -> Iterator[Answer]:
        """Ask what serves the job's model; the base is asked by its own id."""
        served = serve.Served(self.aws, self._ids(job_id, variants))
        return served.ask(prompts, variants, decoding)

    def open(self, job_id: str) -> Asks:
        """What serves the job's model, and its base."""
        return serve.Served(self.aws, self._ids(job_id, ("tuned", "base")))

    def open_batches(self, job_id: str) -> Asks:
        """The tuned model by its own ARN, and its base."""
        job = self._completed(job_id)
        ids = {"tuned": str(job["outputModelArn"]), "base": serve.base_id(job)}
        return batch.Batched(self.aws, ids, batch.place_of(job, self._owner(job)))

    def open_base(self, job: LoadedJob) -> Asks:
        """The base model on demand."""
        if job.model.bedrock_id is None:
            raise UsageError(
                f"{job.model.alias} is not on Bedrock", fix="ask it with --backend local."
            )
        backend = self.at(self.place_of(job))
        assert isinstance(backend, BedrockBackend)
        base = serve.base_id({"baseModelArn": job.model.bedrock_id})
        return serve.Served(backend.aws, {"base": base})

    def _ids(self, job_id: str, variants: Sequence[str]) -> Mapping[str, str]:
        job = self._completed(job_id)
        served = [thing for thing in self.servings(job_id) if thing.status == "ready"]
        if "tuned" in variants and not served:
            making = [thing.name for thing in self.servings(job_id) if thing.status in UNDER_WAY]
            if making:
                raise JobStateConflict(
                    f"{making[0]} is not ready yet", fix="`cloudft ps` tells when it is."
                )
            raise JobStateConflict(
                f"nothing serves the model of {job_id}",
                fix=f"`cloudft deploy {job_id}` does, and says what it costs.",
            )
        return {"tuned": served[0].id if served else "", "base": serve.base_id(job)}

    def inventory(self) -> Iterator[Thing]:
        """Everything of this account and Region."""
        return inventory.everything(self.aws)

    def remove(self, thing: Thing) -> None:
        """Remove one thing, and see it gone."""
        inventory.remove(self.aws, thing)

    def _completed(self, job_id: str) -> Mapping[str, Any]:
        job = self._get(job_id)
        if job["status"] != "Completed":
            raise JobStateConflict(
                f"{job_id} is {job['status']}: it has left no model",
                fix=f"`cloudft watch {job_id}` waits for its end.",
            )
        return job

    def _folder(self, answer: Mapping[str, Any]) -> Path:
        return self.home.jobs / str(answer["jobName"]) / ARTIFACTS

    def _owner(self, answer: Mapping[str, Any]) -> str | None:
        """The account that the output's bucket must belong to: the one that the plan named."""
        try:
            record = orjson.loads((self._folder(answer).parent / "record.json").read_bytes())
            owner: str | None = record["request"]["calls"][-2]["parameters"]["ExpectedBucketOwner"]
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return str(answer["roleArn"]).split(":")[4] or None
        return owner
