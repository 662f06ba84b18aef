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
        """Return Region, profile and endpoint of the job file."""
        return request.location_of(job)

    def with_stack_defaults(self, job: LoadedJob) -> LoadedJob:
        """Return the job with its stack's outputs, where it names a stack."""
        return stack.with_stack_defaults(job, self.aws_for(self.location_of(job)))

    def check(self, job: LoadedJob) -> list[Finding]:
        """Check what Bedrock would refuse, sooner or later, and the account as far as permitted."""
        return preflight.check_job(job, self.aws_for(self.location_of(job)))

    def estimate(self, job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
        """Estimate by the catalogue's prices. Whether validation data is billed is undocumented."""
        return cost.estimate_cost(self.name, job.model, volumes["train"], request.count_epochs(job))

    def with_current_prices(self, job: LoadedJob, estimate: Estimate) -> Estimate:
        """Use the Price List API, where there is one: a self-hosted endpoint has none."""
        aws = self.aws_for(self.location_of(job))
        try:
            meta = aws.client("bedrock").meta
            if not meta.endpoint_url.endswith((".amazonaws.com", ".amazonaws.com.cn")):
                return estimate
            unit_prices = price_list.fetch_prices(aws, job.model, meta.region_name)
        except (CloudRefused, CloudUnreachable):
            return estimate
        return cost.with_list_prices(estimate, job.model, unit_prices) if unit_prices else estimate

    def plan(self, staged: StagedJob) -> Plan:
        """Return the calls, in order, with everything that is in them."""
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
        """Upload to S3, then create the job, or start its execution, unless that was done."""
        self.aws_for(plan.request["place"])
        known = self._find_job_or_execution(plan)
        if known is not None:
            return known
        # The uploads are named by their content, so an interrupted submit repeats no upload.
        self._upload(plan, observer)
        if planned_request(plan).machine:
            state_machine.start_execution(self.aws, plan)
            return plan.job_id
        return self._create(plan)

    def find_submitted(self, plan: Plan) -> str | None:
        """Find the job by its name, or its execution's name, which follow from the plan's token."""
        self.aws_for(plan.request["place"])
        return self._find_job_or_execution(plan)

    def _find_job_or_execution(self, plan: Plan) -> str | None:
        """Return the job that was created before, or that a state machine will create."""
        arn, execution = self._find_job(plan), state_machine.execution_arn(planned_request(plan))
        if arn is not None or execution is None:
            return arn
        return (
            plan.job_id
            if state_machine.describe_execution(self.aws, execution, plan.job_id)
            else None
        )

    def _find_job(self, plan: Plan) -> str | None:
        """Return the ARN of the plan's job when it was created before."""
        try:
            answer = self._get_job(plan.job_id)
        except JobNotFound:
            return None
        token = answer.get("clientRequestToken") or self._get_tags(answer["jobArn"]).get(
            request.TAG_TOKEN
        )
        if token != plan.token:
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
        response = self.create_once(what, call, lambda: self._find_job(plan))
        return response if isinstance(response, str) else str(response["jobArn"])

    def _get_job(self, job_id: str) -> Mapping[str, Any]:
        what, operation = f"can't read the job {job_id}", "get_model_customization_job"
        answer = self.describe_or_none(what, "bedrock", operation, jobIdentifier=job_id)
        if answer is None:
            raise job_not_found(f"Bedrock has no job {job_id}")
        return answer

    def describe(self, job_id: str) -> JobState:
        """Return the state; the first call after completion downloads the artifacts."""
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
        """Return the job; or the state of the execution that has not created it yet."""
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
        """Return the newest completed jobs, listed once; none where listing is refused."""
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
        """List the account's jobs: one call for a thousand of them."""
        remaining, described = set(job_ids), {}
        for answer in self._list_jobs():
            for job_id in {answer["jobArn"], answer["jobName"]} & remaining:
                folder = self._artifacts_folder(answer)
                artifacts = str(folder) if layout.is_complete(folder) else None
                described[job_id] = states.to_job_state(answer, artifacts)
            if len(described) == len(remaining):
                break
        return described

    def _list_jobs(self) -> Iterator[Mapping[str, Any]]:
        what, key = "the jobs can't be listed", "modelCustomizationJobSummaries"
        operation = "list_model_customization_jobs"
        return self.aws.paginate(what, "bedrock", operation, key, maxResults=1000)

    def list_untracked(self, known: Collection[str]) -> Iterator[DiscoveredJob | DamagedJob]:
        """Yield jobs whose tag says that cloudft created them; the plan is beside their output."""
        candidates = (
            (summary["jobName"], summary["jobArn"])
            for summary in self._list_jobs()
            if summary["jobName"] not in known and is_job_id(summary["jobName"])
        )
        yield from discovered_plan.discover_each(candidates, self._discover)

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
        """Read the accepted part of the job's plan. Raise CloudRefused, DamagedJob."""
        bucket, prefix = request.output_location(job)
        owner = self._output_bucket_owner(job)
        bucket_parameters = {"Bucket": bucket, **({"ExpectedBucketOwner": owner} if owner else {})}
        key = prefix.removesuffix("output/") + PLAN_FILE
        token = tags.get(tag_names.TOKEN_TAG)
        if job.get("clientRequestToken") not in (None, token):
            token = None
        markers = discovered_plan.PlanMarkers(job["jobName"], token, tags.get(tag_names.PLAN_TAG))
        try:
            content = output.read_object(
                self.aws, bucket_parameters, key, discovered_plan.MAX_PLAN_BYTES
            )
        except BadDocument as error:
            raise discovered_plan.unusable_plan(markers.job, error) from error
        return discovered_plan.parse_plan(content, f"s3://{bucket}/{key}", self.name, markers)

    def _staged_manifest(self, job: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the manifest of this machine's record; without one, that of the plan in S3."""
        record = Store(self.home.jobs).get_or_none(str(job["jobName"]))
        if record is not None:
            return record.manifest
        tags = self._get_tags(job["jobArn"])
        return cast("Mapping[str, Any]", to_json(self._read_plan(job, tags).manifest))

    def metrics(self, job_id: str) -> Iterator[Metric]:
        """Yield the points of the CSV files. Bedrock has none before a job has ended."""
        state = self.describe(job_id)
        if state.artifacts is None:
            return
        points = layout.read_metrics(Path(state.artifacts))
        yield from sorted(points, key=lambda point: (point.step, point.split))

    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        """Yield the times of the phases: Bedrock keeps no log. The cursor is a line's number."""
        job = self._get_job_or_execution(job_id)
        log = state_machine.log_lines(job) if isinstance(job, JobState) else states.log_lines(job)
        lines = list(log)
        yield from lines[0 if after is None else int(after) + 1 :]

    def stop(self, job_id: str) -> None:
        """Call StopModelCustomizationJob; a job that has ended, or is stopping, is left as it is.

        A job that a state machine has not created yet is not created any more.
        """
        job = self._get_job_or_execution(job_id)
        if not isinstance(job, JobState):
            self._stop(job)
            return
        state_machine.stop_execution(self.aws, job)
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
        """Copy the job's artifacts to `to`, which must not exist."""
        return layout.copy_artifacts(job_id, self.describe(job_id).artifacts, to, on_copied)

    def plan_serving(
        self, job_id: str, *, provisioned: bool, units: int, hours: float | None
    ) -> ServingPlan:
        """Plan an on-demand deployment where the model allows it, else provisioned throughput."""
        job = self._require_completed(job_id)
        wanted = deploy.plan_deployment(job, provisioned=provisioned, units=units, hours=hours)
        return deploy.with_existing_resource(self.aws, wanted)

    def deploy(self, plan: ServingPlan) -> CloudResource:
        """Create it once: its name follows from the job, its token from the attempt."""
        return deploy.deploy(self.aws, plan, DeploymentAttempts(self.home.servings))

    def list_servings(self, job_id: str) -> list[CloudResource]:
        """Return deployments and throughputs of the job's model."""
        model = self._get_job(job_id).get("outputModelArn")
        return [t for t in inventory.list_servings(self.aws) if model and t.model == model]

    def undeploy(self, job_id: str) -> list[CloudResource]:
        """Remove those that cloudft created for the job; wait until each is gone."""
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
        """Generate with what serves the job's model; the base model is invoked by its own id."""
        served = inference.DeployedModel(self.aws, self._model_ids(job_id, variants))
        return served.generate(prompts, variants, decoding)

    def open_session(self, job_id: str) -> InferenceSession:
        """Open what serves the job's model, and its base."""
        return inference.DeployedModel(self.aws, self._model_ids(job_id, ("tuned", "base")))

    def open_batch_session(self, job_id: str) -> InferenceSession:
        """Open the tuned model by its own ARN, and its base, for batch inference."""
        job = self._require_completed(job_id)
        ids = {"tuned": str(job["outputModelArn"]), "base": inference.base_model_id(job)}
        return batch_inference.BatchInferenceSession(
            self.aws, ids, batch_inference.batch_location(job, self._output_bucket_owner(job))
        )

    def open_base_session(self, job: LoadedJob) -> InferenceSession:
        """Open the base model on demand."""
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
        """List every billable resource of this account and Region."""
        return inventory.list_resources(self.aws)

    def remove_resource(self, thing: CloudResource) -> None:
        """Remove one resource, and wait until it is gone."""
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
        """Return the account that must own the output's bucket: the one that the submit named."""
        record = Store(self.home.jobs).get_or_none(str(answer["jobName"]))
        recorded = recorded_request(record)
        if recorded is not None:
            return recorded.planned.plan_file.parameters.get("ExpectedBucketOwner")
        return str(answer["roleArn"]).split(":")[4] or None
