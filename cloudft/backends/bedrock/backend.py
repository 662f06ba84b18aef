"""Jobs on Amazon Bedrock. The cloud is the truth: a job is found there by its name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from cloudft.aws import tags as tag_names
from cloudft.aws.client import Aws
from cloudft.backends.aws_base import discovered_plan
from cloudft.backends.aws_base.api_call import (
    PLAN_FILE,
    AwsRequest,
    planned_request,
    recorded_request,
)
from cloudft.backends.aws_base.backend import AwsBackend, encode_plan, job_not_found
from cloudft.backends.base import Backend, Location, StagedJob
from cloudft.backends.bedrock import (
    batch_inference,
    deploy,
    inference,
    inventory,
    output,
    preflight,
    price_list,
    request,
    stack,
    state_machine,
    states,
)
from cloudft.backends.bedrock.deploy import PENDING_STATUSES
from cloudft.backends.bedrock.deployment_attempts import DeploymentAttempts
from cloudft.backends.capabilities import (
    DiscoveredJob,
    SupportsBatchInference,
    SupportsDiscovery,
    SupportsGenerate,
    SupportsInference,
    SupportsInventory,
    SupportsPricing,
    SupportsServing,
)
from cloudft.backends.observer import SILENT, RunObserver
from cloudft.backends.resources import CloudResource, ServingPlan, not_owned_error
from cloudft.catalogue import cost
from cloudft.errors import (
    BadDocument,
    CloudRefused,
    CloudUnreachable,
    DamagedJob,
    JobNotFound,
    JobStateConflict,
    ResourceConflict,
    UsageError,
)
from cloudft.inference import Answer, GenerationConfig, InferenceSession, Prompt
from cloudft.spec.load import LoadedJob
from cloudft.spec.serialize import to_portable_values
from cloudft.storage import artifacts as layout
from cloudft.storage.home import Home
from cloudft.storage.store import Store
from cloudft.types import (
    DataVolume,
    Estimate,
    Finding,
    JobState,
    Listing,
    LogLine,
    Metric,
    Plan,
    is_job_id,
    to_json,
)

ARTIFACTS = "artifacts"


class BedrockBackend(
    AwsBackend,
    Backend,
    SupportsDiscovery,
    SupportsPricing,
    SupportsServing,
    SupportsGenerate,
    SupportsInference,
    SupportsBatchInference,
    SupportsInventory,
):
    """Model customization jobs of one account and Region."""

    name = "bedrock"
    inference_is_billed = True

    def __init__(self, home: Home, aws: Aws | None = None) -> None:
        super().__init__(home, aws)
        self._completed_jobs: Sequence[Mapping[str, Any]] | None = None

    def location_of(self, job: LoadedJob) -> Location:
        """Region, profile and endpoint of the job file."""
        return request.location_of(job)

    def with_stack_defaults(self, job: LoadedJob) -> LoadedJob:
        """With the outputs of its stack, where it names one."""
        return stack.with_stack_defaults(job, self.aws_for(self.location_of(job)))

    def check(self, job: LoadedJob) -> list[Finding]:
        """What Bedrock would refuse, sooner or later; asks the account as far as it may."""
        return preflight.check_job(job, self.aws_for(self.location_of(job)))

    def estimate(self, job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
        """By the catalogue's prices. Whether validation data is billed is not documented."""
        return cost.estimate_cost(self.name, job.model, volumes["train"], request.count_epochs(job))

    def with_current_prices(self, job: LoadedJob, estimate: Estimate) -> Estimate:
        """By the Price List API, where it may be asked: an endpoint of one's own has none."""
        here = self.aws_for(self.location_of(job))
        try:
            meta = here.client("bedrock").meta
            if not meta.endpoint_url.endswith((".amazonaws.com", ".amazonaws.com.cn")):
                return estimate
            found = price_list.fetch_prices(here, job.model, meta.region_name)
        except (CloudRefused, CloudUnreachable):
            return estimate
        return cost.with_list_prices(estimate, job.model, found) if found else estimate

    def plan(self, staged: StagedJob) -> Plan:
        """The calls, in order, with everything that is in them."""
        files = {
            item.role: staged.folder / item.file.name for item in request.staged_objects(staged)
        }
        return Plan(
            backend=self.name,
            token=request.request_token(staged),
            name=staged.job.spec.name,
            request=AwsRequest(
                hyper_parameters=request.resolve_hyperparameters(staged.job),
                place=request.location_of(staged.job),
                calls=request.api_calls(staged).in_order,
                machine=state_machine.api_calls(staged),
            ).to_json(),
            files=files,
            manifest=staged.manifest,
            estimate=self.estimate(staged.job, staged.manifest.files),
            spec=to_portable_values(staged.job),
        )

    def submit(self, plan: Plan, observer: RunObserver = SILENT) -> str:
        """Stage to S3, then create the job, or have it created, unless that was done."""
        self.aws_for(plan.request["place"])
        known = self._find_job_or_execution(plan)
        if known is not None:
            return known
        self._upload(plan, observer)
        if planned_request(plan).machine:
            state_machine.start_execution(self.aws, plan)
            return plan.job_id
        return self._create(plan)

    def find_submitted(self, plan: Plan) -> str | None:
        """By its name, or the name of its execution, which follow from the plan's token."""
        self.aws_for(plan.request["place"])
        return self._find_job_or_execution(plan)

    def _find_job_or_execution(self, plan: Plan) -> str | None:
        """The job that was created before, or that a machine is to create."""
        named, execution = self._find_job(plan), state_machine.execution_arn(planned_request(plan))
        if named is not None or execution is None:
            return named
        return (
            plan.job_id
            if state_machine.describe_execution(self.aws, execution, plan.job_id)
            else None
        )

    def _find_job(self, plan: Plan) -> str | None:
        """The ARN of the plan's job when it was created before."""
        try:
            answer = self._get_job(plan.job_id)
        except JobNotFound:
            return None
        told = answer.get("clientRequestToken") or self._get_tags(answer["jobArn"]).get(
            request.TAG_TOKEN
        )
        if told != plan.token:
            raise ResourceConflict(
                f"a job {plan.job_id} is there, and it is another one ({answer['jobArn']})",
                fix="give this job another name.",
            )
        return str(answer["jobArn"])

    def _get_tags(self, arn: str) -> dict[str, str]:
        what = f"the tags of {arn} can't be read"
        answer = self.aws.call(what, "bedrock", "list_tags_for_resource", resourceARN=arn)
        return {tag["key"]: tag["value"] for tag in answer["tags"]}

    def _upload(self, plan: Plan, observer: RunObserver) -> None:
        calls = planned_request(plan).planned
        for (role, path), call in zip(plan.files.items(), calls.uploads, strict=True):
            sha256 = plan.manifest.files[role].sha256
            self.upload_file(call.parameters, path, sha256, observer)
        self.put_object(calls.plan_file.parameters, encode_plan(plan))

    def _create(self, plan: Plan) -> str:
        what, call = f"the job {plan.job_id} can't be created", planned_request(plan).planned.create
        made = self.create_once(what, call, lambda: self._find_job(plan))
        return made if isinstance(made, str) else str(made["jobArn"])

    def _get_job(self, job_id: str) -> Mapping[str, Any]:
        what, operation = f"the job {job_id} can't be looked at", "get_model_customization_job"
        answer = self.describe_or_none(what, "bedrock", operation, jobIdentifier=job_id)
        if answer is None:
            raise job_not_found(f"Bedrock has no job {job_id}")
        return answer

    def describe(self, job_id: str) -> JobState:
        """One look; the files of a completed job are brought home with the first one."""
        answer = self._get_job_or_execution(job_id)
        if isinstance(answer, JobState):
            return answer
        if answer["status"] == "InProgress":
            return states.to_job_state(
                answer, None, states.typical_seconds(answer, self._list_completed_jobs())
            )
        if answer["status"] != "Completed":
            return states.to_job_state(answer, None)
        folder = self._artifacts_folder(answer)
        if not layout.is_complete(folder):
            output.download_artifacts(
                self.aws,
                answer,
                self._output_bucket_owner(answer),
                folder,
                self._staged_manifest(answer),
            )
        return states.to_job_state(answer, str(folder))

    def _get_job_or_execution(self, job_id: str) -> Mapping[str, Any] | JobState:
        """The job; or, where a machine is to create it and has not yet, how that stands."""
        try:
            return self._get_job(job_id)
        except JobNotFound as error:
            missing = error
        execution = state_machine.recorded_execution(self.home.jobs / job_id)
        state = state_machine.describe_execution(self.aws, execution, job_id) if execution else None
        if state is not None and state.has_ended:
            with contextlib.suppress(JobNotFound):  # it has come between the two looks
                return self._get_job(job_id)
        if state is None or state.status == "Completed":
            raise missing
        return state

    def _list_completed_jobs(self) -> Sequence[Mapping[str, Any]]:
        """The newest completed jobs, asked once; none where they may not be listed."""
        if self._completed_jobs is None:
            operation, only = "list_model_customization_jobs", {"statusEquals": "Completed"}
            try:
                answer = self.aws.call_without_retry(
                    "jobs", "bedrock", operation, maxResults=100, **only
                )
            except (CloudRefused, CloudUnreachable):
                answer = {}
            self._completed_jobs = answer.get("modelCustomizationJobSummaries", ())
        return self._completed_jobs

    def describe_many(self, job_ids: Sequence[str]) -> Mapping[str, JobState]:
        """From the account's list: one call for a thousand jobs."""
        wanted, found = set(job_ids), {}
        for answer in self._list_jobs():
            for job_id in {answer["jobArn"], answer["jobName"]} & wanted:
                folder = self._artifacts_folder(answer)
                there = str(folder) if layout.is_complete(folder) else None
                found[job_id] = states.to_job_state(answer, there)
            if len(found) == len(wanted):
                break
        return found

    def _list_jobs(self) -> Iterator[Mapping[str, Any]]:
        what, key = "the jobs can't be listed", "modelCustomizationJobSummaries"
        operation = "list_model_customization_jobs"
        return self.aws.paginate(what, "bedrock", operation, key, maxResults=1000)

    def list_untracked(self, known: Collection[str]) -> Iterator[DiscoveredJob | DamagedJob]:
        """Jobs whose tag says that cloudft made them; their plan lies beside their output."""
        named = (
            (summary["jobName"], summary["jobArn"])
            for summary in self._list_jobs()
            if summary["jobName"] not in known and is_job_id(summary["jobName"])
        )
        yield from discovered_plan.discover_each(named, self._discover)

    def _discover(self, name: str, arn: str) -> DiscoveredJob | None:
        tags = self._get_tags(arn)
        if tags.get(tag_names.JOB_TAG) != name:
            return None
        job = self._get_job(name)
        plan = self._read_plan(job, tags)
        return plan.to_discovered_job(
            arn,
            str(states.iso_format(job["creationTime"])),
            self.location_with_region("bedrock"),
            customization_type=job.get("customizationType"),
            base_model=request.base_model_alias(
                str(plan.spec["base_model"]), job.get("baseModelArn")
            ),
            hyper_parameters=request.parse_hyperparameters(job.get("hyperParameters")),
        )

    def _read_plan(
        self, job: Mapping[str, Any], tags: Mapping[str, str]
    ) -> discovered_plan.DiscoveredPlan:
        """The job's plan, as far as it is taken. Raises AwsRefused, DamagedJob."""
        bucket, prefix = request.output_location(job)
        owner = self._output_bucket_owner(job)
        where = {"Bucket": bucket, **({"ExpectedBucketOwner": owner} if owner else {})}
        key = prefix.removesuffix("output/") + PLAN_FILE
        token = tags.get(tag_names.TOKEN_TAG)
        if job.get("clientRequestToken") not in (None, token):
            token = None
        marks = discovered_plan.PlanMarkers(job["jobName"], token, tags.get(tag_names.PLAN_TAG))
        try:
            content = output.read_object(self.aws, where, key, discovered_plan.MAX_PLAN_BYTES)
        except BadDocument as error:
            raise discovered_plan.unusable_plan(marks.job, error) from error
        return discovered_plan.parse_plan(content, f"s3://{bucket}/{key}", self.name, marks)

    def _staged_manifest(self, job: Mapping[str, Any]) -> Mapping[str, Any]:
        """What was staged, by this machine's record; without one, by the plan in S3."""
        record = Store(self.home.jobs).get_or_none(str(job["jobName"]))
        if record is not None:
            return record.manifest
        tags = self._get_tags(job["jobArn"])
        return cast("Mapping[str, Any]", to_json(self._read_plan(job, tags).manifest))

    def metrics(self, job_id: str) -> Iterator[Metric]:
        """The points of the CSV files. Bedrock tells none before a job has ended."""
        state = self.describe(job_id)
        if state.artifacts is None:
            return
        points = layout.read_metrics(Path(state.artifacts))
        yield from sorted(points, key=lambda point: (point.step, point.split))

    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        """The times of the phases: Bedrock keeps no log. The cursor is a line's number."""
        seen = self._get_job_or_execution(job_id)
        told = (
            state_machine.log_lines(seen) if isinstance(seen, JobState) else states.log_lines(seen)
        )
        lines = list(told)
        yield from lines[0 if after is None else int(after) + 1 :]

    def stop(self, job_id: str) -> None:
        """StopModelCustomizationJob; a job that has ended, or is stopping, is left as it is.

        One that is not there yet is not created any more.
        """
        seen = self._get_job_or_execution(job_id)
        if not isinstance(seen, JobState):
            self._stop(seen)
            return
        state_machine.stop_execution(self.aws, seen)
        with contextlib.suppress(JobNotFound):  # unless it was created meanwhile
            self._stop(self._get_job(job_id))

    def _stop(self, job: Mapping[str, Any]) -> None:
        if job["status"] != "InProgress":
            return
        job_id = str(job["jobName"])
        what = f"the job {job_id} can't be stopped"
        try:
            self.aws.call(what, "bedrock", "stop_model_customization_job", jobIdentifier=job_id)
        except ResourceConflict:  # it has ended meanwhile
            return

    def download_artifacts(
        self, job_id: str, to: Path, on_copied: Callable[[int], None] | None = None
    ) -> Path:
        """Copy what the job left to `to`, which must not exist."""
        return layout.copy_artifacts(job_id, self.describe(job_id).artifacts, to, on_copied)

    def plan_serving(
        self, job_id: str, *, provisioned: bool, units: int, hours: float | None
    ) -> ServingPlan:
        """A deployment on demand where the model allows it, else provisioned throughput."""
        job = self._require_completed(job_id)
        wanted = deploy.plan_deployment(job, provisioned=provisioned, units=units, hours=hours)
        return deploy.with_existing_resource(self.aws, wanted)

    def deploy(self, plan: ServingPlan) -> CloudResource:
        """Make it, and nothing twice: its name follows from the job, its token from the attempt."""
        return deploy.deploy(self.aws, plan, DeploymentAttempts(self.home.servings))

    def list_servings(self, job_id: str) -> list[CloudResource]:
        """Deployments and throughputs of the job's model."""
        model = self._get_job(job_id).get("outputModelArn")
        return [t for t in inventory.list_servings(self.aws) if model and t.model == model]

    def undeploy(self, job_id: str) -> list[CloudResource]:
        """Remove those that cloudft made for the job, each followed until it is gone."""
        name = self._get_job(job_id)["jobName"]
        there = self.list_servings(job_id)
        removed = [thing for thing in there if thing.job == name]
        if there and not removed:
            raise not_owned_error(there[0])
        for thing in removed:
            inventory.delete_resource(self.aws, thing)
            DeploymentAttempts(self.home.servings).delete(thing.name)
        return removed

    def generate(
        self,
        job_id: str,
        prompts: Sequence[Prompt],
        variants: Sequence[str],
        decoding: GenerationConfig,
    ) -> Iterator[Answer]:
        """Ask what serves the job's model; the base is asked by its own id."""
        served = inference.DeployedModel(self.aws, self._model_ids(job_id, variants))
        return served.generate(prompts, variants, decoding)

    def open_session(self, job_id: str) -> InferenceSession:
        """What serves the job's model, and its base."""
        return inference.DeployedModel(self.aws, self._model_ids(job_id, ("tuned", "base")))

    def open_batch_session(self, job_id: str) -> InferenceSession:
        """The tuned model by its own ARN, and its base."""
        job = self._require_completed(job_id)
        ids = {"tuned": str(job["outputModelArn"]), "base": inference.base_model_id(job)}
        return batch_inference.BatchInferenceSession(
            self.aws, ids, batch_inference.batch_location(job, self._output_bucket_owner(job))
        )

    def open_base_session(self, job: LoadedJob) -> InferenceSession:
        """The base model on demand."""
        if job.model.bedrock_id is None:
            raise UsageError(
                f"{job.model.alias} is not on Bedrock", fix="ask it with --backend local."
            )
        aws = self.aws_for(self.location_of(job))
        base = inference.base_model_id({"baseModelArn": job.model.bedrock_id})
        return inference.DeployedModel(aws, {"base": base})

    def _model_ids(self, job_id: str, variants: Sequence[str]) -> Mapping[str, str]:
        job = self._require_completed(job_id)
        served = [thing for thing in self.list_servings(job_id) if thing.status == "ready"]
        if "tuned" in variants and not served:
            making = [
                thing.name
                for thing in self.list_servings(job_id)
                if thing.status in PENDING_STATUSES
            ]
            if making:
                raise JobStateConflict(
                    f"{making[0]} is not ready yet", fix="`cloudft ps` tells when it is."
                )
            raise JobStateConflict(
                f"nothing serves the model of {job_id}",
                fix=f"`cloudft deploy {job_id}` does, and says what it costs.",
            )
        return {"tuned": served[0].id if served else "", "base": inference.base_model_id(job)}

    def list_resources(self) -> Listing[CloudResource]:
        """Everything of this account and Region."""
        return inventory.list_resources(self.aws)

    def remove_resource(self, thing: CloudResource) -> None:
        """Remove one thing, and see it gone."""
        inventory.delete_resource(self.aws, thing)

    def _require_completed(self, job_id: str) -> Mapping[str, Any]:
        job = self._get_job(job_id)
        if job["status"] != "Completed":
            raise JobStateConflict(
                f"{job_id} is {job['status']}: it has left no model",
                fix=f"`cloudft watch {job_id}` waits for its end.",
            )
        return job

    def _artifacts_folder(self, answer: Mapping[str, Any]) -> Path:
        return self.home.jobs / str(answer["jobName"]) / ARTIFACTS

    def _output_bucket_owner(self, answer: Mapping[str, Any]) -> str | None:
        """The account that the output's bucket must belong to: the one that the submit named."""
        record = Store(self.home.jobs).get_or_none(str(answer["jobName"]))
        recorded = recorded_request(record)
        if recorded is not None:
            return recorded.planned.plan_file.parameters.get("ExpectedBucketOwner")
        return str(answer["roleArn"]).split(":")[4] or None
