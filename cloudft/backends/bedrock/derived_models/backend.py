"""Make custom models out of other models: copy them to a Region, take them from SageMaker.

Each is a job of its own, as an import is: it is recorded before it is sent, found again by its
name, and its model is deployed, prompted and evaluated as that of a training job.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from cloudft import catalogue
from cloudft.aws.arn import parse_arn
from cloudft.aws.permissions import Policy
from cloudft.aws.tags import TOKEN_TAG, from_tag_list
from cloudft.backends.aws_base.api_call import AwsRequest, planned_request
from cloudft.backends.aws_base.backend import job_not_found
from cloudft.backends.base import Backend, StagedJob
from cloudft.backends.bedrock.account_helpers import get_tags
from cloudft.backends.bedrock.api_shapes import CustomizationJob
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.backends.bedrock.derived_models import caller_policy, checks, request, states
from cloudft.backends.bedrock.evaluation_jobs import EvaluationLocation
from cloudft.backends.bedrock.request import custom_model_name, location_of
from cloudft.backends.bedrock.without_training import WithoutTraining
from cloudft.backends.capabilities import DerivesModels, DiscoveredJob
from cloudft.backends.observer import SILENT, RunObserver
from cloudft.backends.resources import ServingPlan
from cloudft.catalogue import cost
from cloudft.errors import (
    DamagedJob,
    JobNotFound,
    PermissionDenied,
    ResourceConflict,
    ResourceNotFound,
    UnknownModel,
    UsageError,
)
from cloudft.inference import InferenceSession
from cloudft.spec.load import LoadedJob
from cloudft.spec.serialize import to_portable_values
from cloudft.storage.store import JobRecord, Store
from cloudft.types import (
    DataVolume,
    Estimate,
    Finding,
    JobState,
    LogLine,
    Manifest,
    Plan,
)


class DerivedModelBackend(WithoutTraining, BedrockBackend, DerivesModels):
    """Jobs whose result is a custom model, without training. Serving is that of Bedrock's jobs."""

    operation: str
    """The operation that creates the model, by boto3's name."""
    what: str
    """How a job is called in messages."""
    poll_seconds = 15.0

    @staticmethod
    @abstractmethod
    def build_parameters(derived: request.DerivedJob, name: str, token: str) -> dict[str, Any]:
        """Return the parameters of `operation`."""

    @abstractmethod
    def _find_creation(self, plan: Plan) -> str | None:
        """Return the ARN of what the plan has created, if it exists.

        Raise ResourceConflict for another resource of that name.
        """

    @abstractmethod
    def _arn_of(self, response: Mapping[str, Any]) -> str:
        """Return the ARN in the response of `operation`."""

    @staticmethod
    @abstractmethod
    def check_source(derived: request.DerivedJob) -> Iterator[Finding]:
        """Yield what Bedrock would refuse of a source."""

    @staticmethod
    @abstractmethod
    def build_policy(derived: request.DerivedJob) -> Policy:
        """Return the IAM policy of the caller."""

    def policy_of(self, staged: StagedJob) -> Policy:
        """Return the IAM policy that the submitting identity needs."""
        assert isinstance(staged, request.DerivedJob)
        return self.build_policy(staged)

    def derive(
        self, job: LoadedJob, manifest: Manifest, source: str
    ) -> tuple[StagedJob, list[Finding]]:
        """Return the job that makes a model out of `source`, and what Bedrock would refuse."""
        derived = request.DerivedJob(job, manifest, job.base_dir, source=source)
        return derived, list(self.check_source(derived))

    def with_stack_defaults(self, job: LoadedJob) -> LoadedJob:
        """Return the job as it is: a stack of another Region has nothing for it."""
        return job

    def check(self, job: LoadedJob) -> list[Finding]:
        """Return nothing: the source of the model is checked with it (checks.py)."""
        return []

    def estimate(self, job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
        """Return an estimate: making the model costs nothing, keeping it does."""
        prices = job.model.prices_in(job.spec.bedrock.region)
        source = prices.source_of("storage_per_month") if prices else None
        return Estimate(
            backend=self.name,
            train_tokens=0,
            epochs=0,
            usd={
                "training": 0.0,
                "storagePerMonth": prices.usd("storage_per_month") if prices else None,
                "servingPerHour": None,
            },
            seconds=None,
            price_source=str(source.url) if source else cost.NO_PRICE_KNOWN,
            price_date=source.date if source else "",
        )

    def with_current_prices(self, job: LoadedJob, estimate: Estimate) -> Estimate:
        """Return the estimate as it is: nothing is trained."""
        return estimate

    def plan(self, staged: StagedJob) -> Plan:
        """Return the one call that creates the model, with all its parameters."""
        if not isinstance(staged, request.DerivedJob):
            raise UsageError(
                f"a {self.what} needs a model", fix="use `cloudft copy JOB` or `cloudft import`."
            )
        call = request.create_call(staged, self.operation, self.build_parameters)
        return Plan(
            backend=self.name,
            token=call.parameters["clientRequestToken"],
            name=staged.job.spec.name,
            request=AwsRequest(
                hyper_parameters=dict(staged.job.spec.hyperparameters),
                place=location_of(staged.job),
                calls=[call],
            ).to_json(),
            files={},
            manifest=staged.manifest,
            estimate=self.estimate(staged.job, {}),
            spec=to_portable_values(staged.job),
        )

    def submit(self, plan: Plan, observer: RunObserver = SILENT) -> str:
        """Create the model, unless that was done; return the ARN of the job or the model."""
        self.aws_for(plan.request["place"])
        existing = self._find_creation(plan)
        if existing is not None:
            return existing
        [call] = planned_request(plan).calls
        failure = f"the {self.what} {plan.job_id} can't be created"
        created = self.create_once(failure, call, lambda: self._find_creation(plan))
        return created if isinstance(created, str) else self._arn_of(created)

    def find_submitted(self, plan: Plan) -> str | None:
        """Return the ARN of what the plan has created, from any machine."""
        self.aws_for(plan.request["place"])
        return self._find_creation(plan)

    def list_untracked(self, known: Collection[str]) -> Iterator[DiscoveredJob | DamagedJob]:
        """Yield nothing: no plan of it lies in S3. `ps` lists the models of other machines."""
        yield from ()

    def describe(self, job_id: str) -> JobState:
        """Return the job's state; of a completed one also whether its model was removed since."""
        return states.to_job_state(self._get_job(job_id))

    def bedrock_status(self, job_id: str) -> str:
        """Return the job's status as Bedrock names it."""
        return str(self._get_job(job_id)["status"])

    def describe_many(self, job_ids: Sequence[str]) -> Mapping[str, JobState]:
        """Return the current state of each of these jobs by id, without the unknown ones."""
        return Backend.describe_many(self, job_ids)

    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        """Yield the start and the result. The cursor is a line's number."""
        lines = list(states.log_lines(self._get_job(job_id)))
        yield from lines[0 if after is None else int(after) + 1 :]

    def plan_serving(
        self,
        job_id: str,
        *,
        provisioned: bool,
        units: int,
        hours: float | None,
        commitment: str | None = None,
    ) -> ServingPlan:
        """Return a deployment's plan. Raise UsageError where none is on demand in this Region."""
        self._require_served(self._require_completed(job_id), provisioned=provisioned)
        return super().plan_serving(
            job_id, provisioned=provisioned, units=units, hours=hours, commitment=commitment
        )

    def _require_served(self, job: CustomizationJob, *, provisioned: bool) -> None:
        """Raise UsageError for an on-demand deployment outside the Regions that have it.

        Source: Bedrock user guide, "Deploy a custom model for on-demand inference", 2026-10: the
        Regions in which the base model is customized.
        """
        model = catalogue.find_catalogue_model(job["baseModelArn"])
        region = parse_arn(job["jobArn"]).region
        if provisioned or model is None or "on-demand" not in model.serving:
            return
        if region not in model.regions and self.aws.location.endpoint_url is None:
            raise UsageError(
                f"a custom {model.alias} is served on demand in {', '.join(model.regions)} alone,"
                f" not in {region}",
                fix="add --provisioned, which is billed by the hour.",
            )

    def open_batch_session(self, job_id: str) -> InferenceSession:
        """Raise UsageError: a batch needs the S3 locations of a training job."""
        raise UsageError(
            f"{job_id} has no S3 location for a batch", fix="deploy it, and evaluate without batch."
        )

    def _evaluation_location(self, job_id: str) -> EvaluationLocation:
        """Raise UsageError: an evaluation job needs the S3 locations of a training job."""
        raise UsageError(
            f"{job_id} has no S3 location for an evaluation job",
            fix="evaluate without --bedrock-job.",
        )

    def _record_of_model(self, model_name: str) -> JobRecord | None:
        """Return the record of the job whose model has that name, if this machine has it."""
        store = Store(self.home.jobs)
        ids = (one for one in store.job_ids() if custom_model_name(one) == model_name)
        return next((store.get_or_none(one) for one in ids), None)

    def _base_model_arn(self, record: JobRecord | None, region: str, model_arn: str) -> str:
        """Return the ARN of the base model: the record's, else the one in the model's ARN."""
        name = record.base_model if record else parse_arn(model_arn).resource.split("/")[1]
        try:
            identifier = catalogue.find_model(name).bedrock_id or name
        except UnknownModel:
            identifier = name
        return (
            f"arn:{parse_arn(model_arn).partition}:bedrock:{region}::foundation-model/{identifier}"
        )


class CopyBackend(DerivedModelBackend):
    """Copies of custom models, in the Region that they are copied to."""

    name = "copy"
    what = "copy"
    operation = request.COPY_OPERATION
    build_parameters = staticmethod(request.copy_parameters)
    check_source = staticmethod(checks.check_copy)
    build_policy = staticmethod(caller_policy.copy_policy)

    def _arn_of(self, response: Mapping[str, Any]) -> str:
        return str(response["jobArn"])

    def _list_copies(self, model_name: str) -> Iterator[Mapping[str, Any]]:
        """Yield the copy jobs whose copy has that name, the newest first."""
        failure, key = "the copies can't be listed", "modelCopyJobSummaries"
        for summary in self.aws.paginate(
            failure,
            "bedrock",
            "list_model_copy_jobs",
            key,
            targetModelNameContains=model_name,
            sortBy="CreationTime",
            sortOrder="Descending",
        ):
            if summary.get("targetModelName") == model_name:
                yield summary

    def _find_creation(self, plan: Plan) -> str | None:
        [call] = planned_request(plan).calls
        name = call.parameters["targetModelName"]
        copy = next(self._list_copies(name), None)
        if copy is None:
            return None
        arn = str(copy["jobArn"])
        is_same = copy["sourceModelArn"] == call.parameters["sourceModelArn"]
        if not is_same or self._token_of(copy) not in (None, plan.token):
            message = f"a copy {name} exists, and it is another one ({arn})"
            raise ResourceConflict(message, fix="give this copy another --name.")
        return arn

    def _token_of(self, copy: Mapping[str, Any]) -> str | None:
        """Return the token in the copy's tags; None where AWS shows none of them."""
        if "targetModelTags" in copy:
            return from_tag_list(copy["targetModelTags"]).get(TOKEN_TAG, "")
        if copy["status"] != "Completed":
            return None
        try:
            return get_tags(self.aws, str(copy["targetModelArn"])).get(TOKEN_TAG, "")
        except ResourceNotFound:  # the copy was removed since
            return None

    def _get_job(self, job_id: str) -> CustomizationJob:
        """Return the copy job of an ARN, or of the id of a job that was interrupted."""
        copy: Mapping[str, Any] | None
        if job_id.startswith("arn:"):
            failure = f"can't read the copy {job_id}"
            copy = self.describe_or_none(failure, "bedrock", "get_model_copy_job", jobArn=job_id)
        else:
            copy = next(self._list_copies(custom_model_name(job_id)), None)
        if copy is None:
            raise job_not_found(f"Bedrock has no copy {job_id}")
        name, region = str(copy.get("targetModelName")), parse_arn(str(copy["jobArn"])).region
        record = self._record_of_model(name)
        base = self._base_model_arn(record, region, str(copy["targetModelArn"]))
        return states.copy_as_job(copy, record.id if record else name, base)

    def describe(self, job_id: str) -> JobState:
        """Return the copy's state; of a completed one also whether its model was removed since."""
        state = super().describe(job_id)
        if state.status == "Completed" and not self._model_exists(state.summary["customModel"]):
            return states.with_model_removed(state)
        return state

    def _model_exists(self, arn: str) -> bool:
        try:
            self.aws.call(
                f"can't read the model {arn}", "bedrock", "get_custom_model", modelIdentifier=arn
            )
        except ResourceNotFound:
            return False
        except PermissionDenied:  # not known, and then nothing is said of it
            pass
        return True


class CustomModelBackend(DerivedModelBackend):
    """Custom models that CreateCustomModel makes of a Nova that was trained in SageMaker."""

    name = "custom-model"
    what = "custom model"
    operation = request.CREATE_OPERATION
    build_parameters = staticmethod(request.create_parameters)
    check_source = staticmethod(checks.check_create)
    build_policy = staticmethod(caller_policy.create_policy)

    def _arn_of(self, response: Mapping[str, Any]) -> str:
        return str(response["modelArn"])

    def _get_model(self, identifier: str) -> Mapping[str, Any] | None:
        failure = f"can't read the model {identifier}"
        return self.describe_or_none(
            failure, "bedrock", "get_custom_model", modelIdentifier=identifier
        )

    def _find_creation(self, plan: Plan) -> str | None:
        [call] = planned_request(plan).calls
        name = call.parameters["modelName"]
        model = self._get_model(name)
        if model is None:
            return None
        arn = str(model["modelArn"])
        if get_tags(self.aws, arn).get(TOKEN_TAG) != plan.token:
            message = f"a custom model {name} exists, and it is another one ({arn})"
            raise ResourceConflict(message, fix="give this model another --name.")
        return arn

    def _get_job(self, job_id: str) -> CustomizationJob:
        """Return the model of an ARN, or of the id of a job that was interrupted."""
        identifier = job_id if job_id.startswith("arn:") else custom_model_name(job_id)
        model = self._get_model(identifier)
        if model is None:
            raise job_not_found(f"Bedrock has no custom model {job_id}")
        name, arn = str(model["modelName"]), str(model["modelArn"])
        record = self._record_of_model(name)
        base = self._base_model_arn(record, parse_arn(arn).region, arn)
        return states.model_as_job(model, record.id if record else name, base)

    def describe(self, job_id: str) -> JobState:
        """Return the model's state. One that this machine created, and that is gone, was removed.

        Bedrock keeps no job of it: only the record shows that it existed.
        """
        try:
            return super().describe(job_id)
        except JobNotFound:
            records = (
                Store(self.home.jobs).get_or_none(i) for i in Store(self.home.jobs).job_ids()
            )
            for record in records:
                if record is not None and record.backend_job_id == job_id:
                    return states.removed_model_state(record)
            raise
