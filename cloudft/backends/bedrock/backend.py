"""Run customization jobs on Amazon Bedrock.

The account is the source of truth: a job is found there by its name, even without a local record.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from cloudft.aws import tags as tag_names
from cloudft.aws.arn import parse_arn
from cloudft.aws.client import Aws
from cloudft.aws.s3 import bucket_parameters, read_object, s3_uri
from cloudft.backends.aws_base import discovered_plan
from cloudft.backends.aws_base.api_call import (
    PLAN_FILE,
    AwsRequest,
    planned_request,
    recorded_request,
)
from cloudft.backends.aws_base.backend import (
    AwsBackend,
    encode_plan,
    job_not_found,
    to_aws_location,
)
from cloudft.backends.base import Backend, Location, StagedJob
from cloudft.backends.bedrock import (
    batch_inference,
    deploy,
    evaluation_jobs,
    evaluation_permissions,
    grader_invocation,
    inference,
    inventory,
    invocation_logs,
    job_cost,
    media_checks,
    output,
    preflight,
    price_list,
    request,
    service_quotas,
    serving_update,
    stack,
    state_machine,
    states,
)
from cloudft.backends.bedrock.account_helpers import get_tags
from cloudft.backends.bedrock.api_shapes import CustomizationJob
from cloudft.backends.bedrock.deployment_attempts import DeploymentAttempts
from cloudft.backends.bedrock.inference_profiles import (
    ChosenModelId,
    choose_model_id,
    requested_profile,
)
from cloudft.backends.bedrock.openai_api import inventory as openai_inventory
from cloudft.backends.bedrock.openai_api import request as openai_request
from cloudft.backends.bedrock.serving_state import PENDING_STATUSES
from cloudft.backends.bedrock.sharing import SharesBedrockModels
from cloudft.backends.capabilities import (
    DiscoveredJob,
    ProgressCallback,
    RecordsQuota,
    SupportsBatchInference,
    SupportsDiscovery,
    SupportsEvaluationJobs,
    SupportsGenerate,
    SupportsGraderInvocation,
    SupportsGrading,
    SupportsInference,
    SupportsInferenceProfiles,
    SupportsInventory,
    SupportsInvocationLogs,
    SupportsMedia,
    SupportsPricing,
    SupportsRecordsQuota,
    SupportsServing,
    SupportsServingUpdate,
)
from cloudft.backends.evaluation_jobs import (
    AnsweredRecord,
    EvaluationPlan,
    JudgedAnswers,
    JudgeSettings,
)
from cloudft.backends.findings import FindingFactory
from cloudft.backends.observer import SILENT, RunObserver
from cloudft.backends.resources import (
    CloudResource,
    ServingPlan,
    ServingUpdatePlan,
    committed_error,
    not_owned_error,
)
from cloudft.catalogue import cost
from cloudft.data.checks.check import DataReport
from cloudft.data.checks.content_limits import MediaUse
from cloudft.data.checks.dataset_limits import DatasetLimits
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
from cloudft.grading import GradingSample
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
Self = TypeVar("Self", bound="BedrockBackend")


class BedrockBackend(
    AwsBackend,
    Backend,
    SupportsDiscovery,
    SupportsPricing,
    SupportsServing,
    SupportsServingUpdate,
    SupportsGenerate,
    SupportsGraderInvocation,
    SupportsInference,
    SupportsInferenceProfiles,
    SupportsBatchInference,
    SupportsEvaluationJobs,
    SupportsInventory,
    SupportsInvocationLogs,
    SupportsMedia,
    SupportsRecordsQuota,
    SharesBedrockModels,
):
    """Model customization jobs of one account and Region."""

    name = "bedrock"
    calls_teacher = True
    inference_is_billed = True

    def __init__(self, home: Home, aws: Aws | None = None) -> None:
        super().__init__(home, aws)
        self._requested_profile: str | None = None
        self._note: Callable[[str], None] = lambda _: None
        self._completed_jobs: Sequence[CustomizationJob] | None = None

    def location_of(self, job: LoadedJob) -> Location:
        """Return Region, profile and endpoint of the job file, and the API that is not this one."""
        if job.model.customization_api == "openai":
            return openai_request.location_of(job)
        return request.location_of(job)

    def bind(self: Self, location: Location) -> Self:
        """Return this backend bound to a location.

        For one of the OpenAI-compatible API it is the backend of that API's jobs, which are jobs on
        Bedrock too.
        """
        if location.get("api") == openai_request.API:
            from cloudft.backends.bedrock.openai_api.backend import OpenAIFineTuningBackend

            return cast("Self", OpenAIFineTuningBackend(self.home, Aws(to_aws_location(location))))
        return super().bind(location)

    def with_stack_defaults(self, job: LoadedJob) -> LoadedJob:
        """Return the job with the outputs of its stack, where it names one."""
        return stack.with_stack_defaults(job, self.aws_for(self.location_of(job)))

    def check(self, job: LoadedJob) -> list[Finding]:
        """Return what Bedrock would refuse; check the account as far as the caller may read it."""
        return preflight.check_job(job, self.aws_for(self.location_of(job)))

    def invoke_grader(
        self, job: LoadedJob, samples: Sequence[GradingSample], here: SupportsGrading
    ) -> list[Finding]:
        """Return what is wrong with the reply of the function that grades the job."""
        aws = self.aws_for(self.location_of(job))
        job = stack.with_stack_defaults(job, aws)
        return list(grader_invocation.invoke_grader(job, aws, samples, here, FindingFactory(job)))

    def records_quota(self, job: LoadedJob) -> RecordsQuota | None:
        """Return how many records the account's quota allows."""
        return service_quotas.read_records_quota(job, self.aws_for(self.location_of(job)))

    def check_media(self, job: LoadedJob, media: MediaUse) -> list[Finding]:
        """Return what is wrong with the objects in S3 that the records name."""
        finding = FindingFactory(job)
        aws = self.aws_for(self.location_of(job))
        return list(media_checks.check_media(job, media, aws, finding))

    def read_invocation_logs(
        self, job: LoadedJob, limits: DatasetLimits, progress: Callable[[int], None]
    ) -> DataReport:
        """Return what the job would train on of its logs, and why it leaves out the others."""
        finding = FindingFactory(job)
        aws = self.aws_for(self.location_of(job))
        return invocation_logs.read_logs(job, aws, finding, limits, progress)

    def estimate(self, job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
        """Return an estimate by the catalogue's prices, for the training data alone.

        AWS does not document whether validation data is billed.
        """
        return job_cost.estimate_job(self.name, job, volumes["train"])

    def with_current_prices(self, job: LoadedJob, estimate: Estimate) -> Estimate:
        """Return the estimate by AWS's Price List, or as it is where the list can't be read."""
        aws = self.aws_for(self.location_of(job))
        try:
            meta = aws.client("bedrock").meta
            # Another endpoint than AWS's own has no Price List.
            if not meta.endpoint_url.endswith((".amazonaws.com", ".amazonaws.com.cn")):
                return estimate
            models = list(job_cost.priced_models(job).values())
            listed = price_list.fetch_prices(aws, models, meta.region_name)
        except (CloudRefused, CloudUnreachable):
            return estimate
        return cost.with_list_prices(estimate, job.model, listed) if listed else estimate

    def plan(self, staged: StagedJob) -> Plan:
        """Return the calls that create the job, in order, with all their parameters."""
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
            estimate=self.estimate(staged.job, staged.volumes),
            spec=to_portable_values(staged.job),
        )

    def submit(self, plan: Plan, observer: RunObserver = SILENT) -> str:
        """Upload the data and have the job created, unless it exists; return its id."""
        self.aws_for(plan.request["place"])
        existing = self._find_job_or_execution(plan)
        if existing is not None:
            return existing
        # A submit that is killed before the job exists finds nothing next time and starts again.
        self._upload(plan, observer)
        if planned_request(plan).machine:
            state_machine.start_execution(self.aws, plan)
            return plan.job_id
        return self._create(plan)

    def find_submitted(self, plan: Plan) -> str | None:
        """Return the job's id, found by its name or its execution's: both follow from the token."""
        self.aws_for(plan.request["place"])
        return self._find_job_or_execution(plan)

    def _find_job_or_execution(self, plan: Plan) -> str | None:
        """Return the ARN of the plan's job, or its id where an execution will create it."""
        arn, execution = self._find_job(plan), state_machine.execution_arn(planned_request(plan))
        if arn is not None or execution is None:
            return arn
        state = state_machine.describe_execution(self.aws, execution, plan.job_id)
        return plan.job_id if state else None

    def _find_job(self, plan: Plan) -> str | None:
        """Return the ARN of the plan's job if it exists.

        Raise ResourceConflict for another job of that name: their tokens differ.
        """
        try:
            job = self._get_job(plan.job_id)
        except JobNotFound:
            return None
        arn = job["jobArn"]
        token = job.get("clientRequestToken") or get_tags(self.aws, arn).get(request.TAG_TOKEN)
        if token != plan.token:
            raise ResourceConflict(
                f"a job {plan.job_id} exists, and it is another one ({arn})",
                fix="give this job another name.",
            )
        return arn

    def _upload(self, plan: Plan, observer: RunObserver) -> None:
        calls = planned_request(plan).planned
        for (role, path), call in zip(plan.files.items(), calls.uploads, strict=True):
            sha256 = plan.manifest.files[role].sha256
            self.upload_file(call.parameters, path, sha256, observer)
        # Before the job exists: another machine may discover it at once, and reads this plan then.
        self.put_object(calls.plan_file.parameters, encode_plan(plan))

    def _create(self, plan: Plan) -> str:
        failure = f"the job {plan.job_id} can't be created"
        call = planned_request(plan).planned.create
        created = self.create_once(failure, call, lambda: self._find_job(plan))
        return created if isinstance(created, str) else str(created["jobArn"])

    def _get_job(self, job_id: str) -> CustomizationJob:
        failure, operation = f"can't read the job {job_id}", "get_model_customization_job"
        response = self.describe_or_none(failure, "bedrock", operation, jobIdentifier=job_id)
        if response is None:
            raise job_not_found(f"Bedrock has no job {job_id}")
        return cast("CustomizationJob", response)

    def describe(self, job_id: str) -> JobState:
        """Return the job's state; download the artifacts of a completed job the first time."""
        job = self._get_job_or_execution(job_id)
        if isinstance(job, JobState):
            return job
        if job["status"] == "InProgress":
            typical = states.typical_seconds(job, self._list_completed_jobs())
            return states.to_job_state(job, None, typical)
        if job["status"] != "Completed":
            return states.to_job_state(job, None)
        folder = self._artifacts_folder(job)
        if not layout.is_complete(folder):
            owner, manifest = self._output_bucket_owner(job), self._staged_manifest(job)
            output.download_artifacts(self.aws, job, owner, folder, manifest)
        return states.to_job_state(job, str(folder))

    def _get_job_or_execution(self, job_id: str) -> CustomizationJob | JobState:
        """Return the job; its execution's state where that has not created it yet."""
        try:
            return self._get_job(job_id)
        except JobNotFound as error:
            missing = error
        execution = state_machine.recorded_execution(self.home.jobs / job_id)
        state = state_machine.describe_execution(self.aws, execution, job_id) if execution else None
        if state is not None and state.has_ended:
            with contextlib.suppress(JobNotFound):  # it was created between the two calls
                return self._get_job(job_id)
        if state is None or state.status == "Completed":
            raise missing
        return state

    def _list_completed_jobs(self) -> Sequence[CustomizationJob]:
        """Return the newest completed jobs, listed once; none where they may not be listed."""
        if self._completed_jobs is None:
            failure, operation = "the jobs can't be listed", "list_model_customization_jobs"
            try:
                response = self.aws.call_without_retry(
                    failure, "bedrock", operation, maxResults=100, statusEquals="Completed"
                )
            except (CloudRefused, CloudUnreachable):
                response = {}
            self._completed_jobs = response.get("modelCustomizationJobSummaries", ())
        return self._completed_jobs

    def describe_many(self, job_ids: Sequence[str]) -> Mapping[str, JobState]:
        """Return the states of these jobs from the account's list: one call for 1,000 jobs."""
        missing, job_states = set(job_ids), {}
        for job in self._list_jobs():
            for job_id in {job["jobArn"], job["jobName"]} & missing:
                folder = self._artifacts_folder(job)
                artifacts = str(folder) if layout.is_complete(folder) else None
                job_states[job_id] = states.to_job_state(job, artifacts)
                missing.remove(job_id)
            if not missing:
                break
        return job_states

    def _list_jobs(self) -> Iterator[CustomizationJob]:
        failure, key = "the jobs can't be listed", "modelCustomizationJobSummaries"
        operation = "list_model_customization_jobs"
        return self.aws.paginate(failure, "bedrock", operation, key, maxResults=1000)

    def list_untracked(self, known: Collection[str]) -> Iterator[DiscoveredJob | DamagedJob]:
        """Yield jobs with cloudft's tag that are not `known`, by the plan next to their output."""
        untracked = (
            (summary["jobName"], summary["jobArn"])
            for summary in self._list_jobs()
            if summary["jobName"] not in known and is_job_id(summary["jobName"])
        )
        yield from discovered_plan.discover_each(untracked, self._discover)

    def _discover(self, name: str, arn: str) -> DiscoveredJob | None:
        tags = get_tags(self.aws, arn)
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
        self, job: CustomizationJob, tags: Mapping[str, str]
    ) -> discovered_plan.DiscoveredPlan:
        """Return what is trusted of the job's plan in S3. Raise CloudRefused and DamagedJob."""
        bucket, prefix = request.output_location(job["outputDataConfig"])
        parameters = bucket_parameters(bucket, self._output_bucket_owner(job))
        key = prefix.removesuffix("output/") + PLAN_FILE
        token = tags.get(tag_names.TOKEN_TAG)
        if job.get("clientRequestToken") not in (None, token):
            token = None
        markers = discovered_plan.PlanMarkers(job["jobName"], token, tags.get(tag_names.PLAN_TAG))
        try:
            content = read_object(self.aws, parameters, key, discovered_plan.MAX_PLAN_BYTES)
        except BadDocument as error:
            raise discovered_plan.unusable_plan(markers.job, error) from error
        return discovered_plan.parse_plan(content, s3_uri(bucket, key), self.name, markers)

    def _staged_manifest(self, job: CustomizationJob) -> Mapping[str, Any]:
        """Return the manifest of the staged data, from the local record or from the plan in S3."""
        record = Store(self.home.jobs).get_or_none(job["jobName"])
        if record is not None:
            return record.manifest
        tags = get_tags(self.aws, job["jobArn"])
        return cast("Mapping[str, Any]", to_json(self._read_plan(job, tags).manifest))

    def metrics(self, job_id: str) -> Iterator[Metric]:
        """Yield the points of the CSV files; Bedrock has none before a job has ended."""
        state = self.describe(job_id)
        if state.artifacts is None:
            return
        points = layout.read_metrics(Path(state.artifacts))
        yield from sorted(points, key=lambda point: (point.step, point.split))

    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        """Yield the times of the phases: Bedrock keeps no log. The cursor is a line's number."""
        job = self._get_job_or_execution(job_id)
        if isinstance(job, JobState):
            lines = list(state_machine.log_lines(job))
        else:
            lines = list(states.log_lines(job))
        yield from lines[0 if after is None else int(after) + 1 :]

    def stop(self, job_id: str) -> None:
        """Stop the job, unless it has ended or is stopping.

        Of a job that does not exist yet, stop the execution that would create it.
        """
        job = self._get_job_or_execution(job_id)
        if not isinstance(job, JobState):
            self._stop(job)
            return
        state_machine.stop_execution(self.aws, job)
        with contextlib.suppress(JobNotFound):  # unless it was created meanwhile
            self._stop(self._get_job(job_id))

    def _stop(self, job: CustomizationJob) -> None:
        if job["status"] != "InProgress":
            return
        name, operation = job["jobName"], "stop_model_customization_job"
        failure = f"the job {name} can't be stopped"
        with contextlib.suppress(ResourceConflict):  # it has ended meanwhile
            self.aws.call(failure, "bedrock", operation, jobIdentifier=name)

    def download_artifacts(
        self, job_id: str, to: Path, on_copied: Callable[[int], None] | None = None
    ) -> Path:
        """Copy the job's artifacts to `to`, which must not exist; return it."""
        return layout.copy_artifacts(job_id, self.describe(job_id).artifacts, to, on_copied)

    def plan_serving(
        self,
        job_id: str,
        *,
        provisioned: bool,
        units: int,
        hours: float | None,
        commitment: str | None = None,
    ) -> ServingPlan:
        """Return a deployment's plan: on demand where the model allows it, else provisioned."""
        job = self._require_completed(job_id)
        plan = deploy.plan_deployment(
            job, provisioned=provisioned, units=units, hours=hours, commitment=commitment
        )
        plan = deploy.with_existing_resource(self.aws, plan)
        deploy.require_not_legacy(self.aws, plan, job)
        if plan.existing is None and plan.kind == "on-demand":
            service_quotas.require_deployment_quota(self.aws)
        return plan

    def deploy(self, plan: ServingPlan) -> CloudResource:
        """Create the deployment, or return the one that exists; see deploy.py."""
        return deploy.deploy(self.aws, plan, DeploymentAttempts(self.home.servings))

    def plan_update(
        self, job_id: str, deployment: str, deployed_jobs: Collection[str]
    ) -> ServingUpdatePlan:
        """Return the plan that puts the job's model behind a deployment; see serving_update.py."""
        job = self._require_completed(job_id)
        resource = serving_update.find_deployment(self.aws, deployment, deployed_jobs)
        return serving_update.plan_update(self.aws, resource, job["outputModelArn"], job["jobName"])

    def plan_rollback(self, deployment: str, deployed_jobs: Collection[str]) -> ServingUpdatePlan:
        """Return the plan that puts back the model of before a deployment's last update."""
        resource = serving_update.find_deployment(self.aws, deployment, deployed_jobs)
        return serving_update.plan_rollback(self.aws, resource)

    def update_serving(self, plan: ServingUpdatePlan) -> CloudResource:
        """Update a deployment once, and wait until its model answers."""
        return serving_update.apply_update(self.aws, plan, self.home.servings)

    def list_servings(self, job_id: str, *, with_rollbacks: bool = False) -> list[CloudResource]:
        """Return the deployments and throughputs of the job's model."""
        model = self._get_job(job_id).get("outputModelArn")

        def is_user(serving: CloudResource) -> bool:
            others = (serving.previous_model, serving.next_model) if with_rollbacks else ()
            return model in (serving.model, *others)

        return [s for s in inventory.list_servings(self.aws) if model and is_user(s)]

    def undeploy(self, job_id: str) -> list[CloudResource]:
        """Delete what cloudft created to serve the job's model; wait until each is gone.

        Raise UsageError where others created all of it, and JobStateConflict for a commitment that
        has not ended: before anything is deleted.
        """
        name = self._get_job(job_id)["jobName"]
        servings = self.list_servings(job_id)
        owned = [serving for serving in servings if serving.job == name]
        if servings and not owned:
            raise not_owned_error(servings[0])
        for serving in owned:
            if serving.is_committed():
                raise committed_error(serving)
        for serving in owned:
            inventory.delete_resource(self.aws, serving)
            DeploymentAttempts(self.home.servings).delete(serving.name)
        return owned

    def generate(
        self,
        job_id: str,
        prompts: Sequence[Prompt],
        variants: Sequence[str],
        decoding: GenerationConfig,
    ) -> Iterator[Answer]:
        """Yield answers of the job's deployed model and of its base model."""
        models = inference.DeployedModel(self.aws, self._model_ids(job_id, variants))
        return models.generate(prompts, variants, decoding)

    def open_session(self, job_id: str) -> InferenceSession:
        """Return the job's deployed model and its base model."""
        return inference.DeployedModel(self.aws, self._model_ids(job_id, ("tuned", "base")))

    def open_batch_session(self, job_id: str) -> InferenceSession:
        """Return the job's model and its base model, which answer by batches."""
        job = self._require_completed(job_id)
        ids = {
            "tuned": str(job["outputModelArn"]),
            "base": self._base_model_id(job),
        }
        return batch_inference.BatchInferenceSession(
            self.aws, ids, batch_inference.batch_location(job, self._output_bucket_owner(job))
        )

    def plan_evaluation(
        self,
        job_id: str,
        answers: Mapping[str, Sequence[AnsweredRecord]],
        settings: JudgeSettings,
    ) -> EvaluationPlan:
        """Return the requests of the evaluation jobs that judge these answers."""
        location = self._evaluation_location(job_id)
        return evaluation_jobs.plan_evaluation(self.aws, location, answers, settings)

    def check_evaluation(self, job_id: str, plan: EvaluationPlan) -> list[Finding]:
        """Return what the job's role and the caller may not do for these evaluation jobs."""
        location = self._evaluation_location(job_id)
        return list(evaluation_permissions.check_permissions(self.aws, location, plan))

    def run_evaluation(
        self, job_id: str, plan: EvaluationPlan, progress: ProgressCallback
    ) -> list[JudgedAnswers]:
        """Create the evaluation jobs once, wait for their end, and return the judgments."""
        location = self._evaluation_location(job_id)
        return evaluation_jobs.run_evaluation(self.aws, location, plan, progress)

    def _evaluation_location(self, job_id: str) -> evaluation_jobs.EvaluationLocation:
        job = self._require_completed(job_id)
        location = batch_inference.batch_location(job, self._output_bucket_owner(job))
        return evaluation_jobs.evaluation_location(location, job["jobName"])

    def open_base_session(self, job: LoadedJob) -> InferenceSession:
        """Return the base model on demand."""
        if job.model.bedrock_id is None:
            raise UsageError(f"{job.model.alias} is not on Bedrock", fix="use --backend local.")
        aws = self.aws_for(self.location_of(job))
        spec = {"base_model": job.spec.base_model, "bedrock": vars(job.spec.bedrock)}
        requested = self._requested_profile or requested_profile(spec)
        region = aws.client("bedrock").meta.region_name
        chosen = choose_model_id(aws, job.model.bedrock_id, region, requested)
        return inference.DeployedModel(aws, {"base": self._with_notes(chosen)})

    def use_inference_profile(self, profile: str | None, note: Callable[[str], None]) -> None:
        """Call base models by this profile instead of the job file's; `note` gets the notes."""
        self._requested_profile, self._note = profile, note

    def _base_model_id(self, job: CustomizationJob) -> str:
        """Return the id that a job's base model is called by: requested now, by the job, chosen."""
        record = Store(self.home.jobs).get_or_none(job["jobName"])
        requested = self._requested_profile or (requested_profile(record.spec) if record else None)
        return self._with_notes(inference.choose_base_model_id(self.aws, job, requested))

    def _with_notes(self, chosen: ChosenModelId) -> str:
        for note in chosen.notes:
            self._note(note)
        return chosen.id

    def _model_ids(self, job_id: str, variants: Sequence[str]) -> Mapping[str, str]:
        job = self._require_completed(job_id)
        servings = self.list_servings(job_id)
        # While it is updated from this model to another one, this one answers.
        statuses = ("ready", "Updating")
        ready = [serving.id for serving in servings if serving.status in statuses]
        if "tuned" in variants and not ready:
            pending = [serving.name for serving in servings if serving.status in PENDING_STATUSES]
            if pending:
                raise JobStateConflict(
                    f"{pending[0]} is not ready yet", fix="`cloudft ps` shows when it is."
                )
            raise JobStateConflict(
                f"the model of {job_id} is not deployed",
                fix=f"`cloudft deploy {job_id}` deploys it, and shows what that costs.",
            )
        base = self._base_model_id(job) if "base" in variants else ""
        return {"tuned": ready[0] if ready else "", "base": base}

    def list_resources(self) -> Listing[CloudResource]:
        """Return every billable resource of this account and Region."""
        listing = inventory.list_resources(self.aws)
        return openai_inventory.with_openai_resources(listing, self.home, self.aws)

    def remove_resource(self, resource: CloudResource) -> None:
        """Delete a resource and wait until it is gone."""
        if resource.kind == openai_inventory.FILE_KIND:
            openai_inventory.delete_file(self.aws, resource)
        else:
            inventory.delete_resource(self.aws, resource)

    def _require_completed(self, job_id: str) -> CustomizationJob:
        job = self._get_job(job_id)
        if job["status"] != "Completed":
            raise JobStateConflict(
                f"{job_id} is {job['status']}: it has no model",
                fix=f"`cloudft watch {job_id}` waits for its end.",
            )
        return job

    def _artifacts_folder(self, job: CustomizationJob) -> Path:
        return self.home.jobs / job["jobName"] / ARTIFACTS

    def _output_bucket_owner(self, job: CustomizationJob) -> str | None:
        """Return the account that must own the output's bucket: the plan's, else the role's."""
        record = Store(self.home.jobs).get_or_none(job["jobName"])
        recorded = recorded_request(record)
        if recorded is not None:
            return recorded.planned.plan_file.parameters.get("ExpectedBucketOwner")
        return parse_arn(job["roleArn"]).account or None
