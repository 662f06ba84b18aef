"""Import merged models into Bedrock. An import is found by its name, as a customization job is."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from cloudft.aws.s3 import read_object, s3_uri, split_s3_uri
from cloudft.aws.tags import JOB_TAG, PLAN_TAG, TOKEN_TAG
from cloudft.backends import make_backend as backend_by_name
from cloudft.backends.aws_base import discovered_plan
from cloudft.backends.aws_base.api_call import PLAN_FILE, AwsRequest, planned_request
from cloudft.backends.aws_base.backend import AwsBackend, encode_plan, job_not_found
from cloudft.backends.base import Backend, Location, StagedJob
from cloudft.backends.bedrock import stack
from cloudft.backends.bedrock import states as bedrock_states
from cloudft.backends.bedrock.account_helpers import get_tags
from cloudft.backends.bedrock.api_shapes import ImportedModel, ImportJob
from cloudft.backends.bedrock.model_import import (
    inference,
    model_checks,
    model_files,
    preflight,
    request,
    states,
    stored_model,
)
from cloudft.backends.bedrock.request import expected_bucket_owner, location_of
from cloudft.backends.bedrock.without_training import WithoutTraining
from cloudft.backends.capabilities import (
    DiscoveredJob,
    ImportsStoredModels,
    ModelImporter,
    SupportsDiscovery,
    SupportsGenerate,
    SupportsInference,
)
from cloudft.backends.observer import SILENT, RunObserver
from cloudft.backends.trained_model import trained_model
from cloudft.catalogue import cost, get_unit_prices, is_labeled, load_import_rules
from cloudft.catalogue.serving_cost import Traffic, import_serving, import_unit_version
from cloudft.errors import (
    BadDocument,
    DamagedJob,
    JobNotFound,
    JobStateConflict,
    ResourceConflict,
    ResourceNotFound,
    UsageError,
)
from cloudft.inference import Answer, GenerationConfig, InferenceSession, Prompt
from cloudft.spec.load import LoadedJob, load_spec
from cloudft.spec.serialize import to_portable_values
from cloudft.storage.atomic_files import as_store_error
from cloudft.storage.store import Store
from cloudft.types import (
    DataVolume,
    Estimate,
    Finding,
    JobState,
    LogLine,
    Manifest,
    Plan,
    StagedFile,
    is_job_id,
)

BLOCK_BYTES = 1024 * 1024


class ImportBackend(
    WithoutTraining,
    AwsBackend,
    Backend,
    ModelImporter,
    ImportsStoredModels,
    SupportsDiscovery,
    SupportsGenerate,
    SupportsInference,
):
    """Import jobs of one account and Region, and the models that they make."""

    name = "import"
    poll_seconds = 15.0
    inference_is_billed = True

    def location_of(self, job: LoadedJob) -> Location:
        """Return Region, profile and endpoint of the job file's `bedrock` section."""
        return location_of(job)

    def with_stack_defaults(self, job: LoadedJob) -> LoadedJob:
        """Return the job with the outputs of its stack, where it names one."""
        return stack.with_stack_defaults(job, self.aws_for(self.location_of(job)))

    def check(self, job: LoadedJob) -> list[Finding]:
        """Return what Bedrock would refuse of the location: Region, role, bucket."""
        return preflight.check_job(job, self.aws_for(self.location_of(job)))

    def estimate(self, job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
        """Return an estimate: an import and an idle model cost nothing, but the storage does.

        How many custom model units a copy has is known once the model is imported: the storage is
        the most that a model of that size takes by the known examples, or unknown.
        """
        model, region = trained_model(job), job.spec.bedrock.region
        parameters = model.parameters if model else None
        version = import_unit_version(model)
        # Storage does not depend on the traffic.
        _, storage, units = import_serving(parameters, version, region, Traffic(0, 0, 0))
        prices = get_unit_prices(version, region)
        source = prices.source if prices else None
        most = "" if units.high is None else f", {units.high} at most here"
        return Estimate(
            backend=self.name,
            train_tokens=0,
            epochs=0,
            usd={"training": 0.0, "storagePerMonth": storage, "servingPerHour": 0.0},
            seconds=None,
            price_source=str(source) if source else cost.NO_PRICE_KNOWN,
            price_date=source.date if source else "",
            price_certainty=prices.certainty if prices else "",
            notes=(f"storage is billed by the units of a copy{most}: {units.reason}",),
        )

    def validate_config(
        self, job: LoadedJob, config: Mapping[str, Any], file: str
    ) -> list[Finding]:
        """Return the findings from config.json alone, before anything is merged."""
        return list(model_checks.check_architecture(config, file, job.spec.bedrock.region))

    def prepare_model(
        self, job: LoadedJob, manifest: Manifest, folder: Path
    ) -> tuple[StagedJob, list[Finding]]:
        """Name Bedrock's version of transformers in the folder, and check it by Bedrock's rules."""
        with as_store_error("the merged model can't be prepared", folder):
            try:
                model_files.write_transformers_version(folder, load_import_rules().transformers)
            except ValueError as error:
                message = f"{folder} can't be read: {error}"
                raise UsageError(
                    message, file=str(folder), fix=model_checks.OTHER_MODEL_FIX
                ) from error
            supervised = is_labeled(job.spec.customization_type)
            findings = model_checks.check_model_folder(
                folder, supervised=supervised, region=job.spec.bedrock.region
            )
            files = {path.name: _data_file(path) for path in model_checks.imported_files(folder)}
        return request.MergedJob(job, manifest, folder, files=files), findings

    def prepare_stored_model(
        self, job: LoadedJob, manifest: Manifest, uri: str
    ) -> tuple[StagedJob, list[Finding]]:
        """Check the account, then the model's files in S3 by Bedrock's rules; download no weights.

        The files are not read where the job file has an error.
        """
        aws = self.aws_for(self.location_of(job))
        findings = preflight.check_job(job, aws, model_prefix=split_s3_uri(uri)[1])
        if any(finding.severity == "error" for finding in findings):
            return request.StoredModelJob(job, manifest, job.base_dir, uri=uri), findings
        owner = expected_bucket_owner(job)
        files = stored_model.list_model_files(aws, uri, owner)
        supervised = is_labeled(job.spec.customization_type)
        options = {"supervised": supervised, "region": job.spec.bedrock.region}
        findings += stored_model.check_stored_model(aws, uri, owner, files, options)
        etags = {name: file.etag for name, file in files.items()}
        staged = request.StoredModelJob(job, manifest, job.base_dir, uri=uri, etags=etags)
        return staged, findings

    def plan(self, staged: StagedJob) -> Plan:
        """Return the calls that create the import, in order, with all their parameters."""
        if isinstance(staged, request.MergedJob):
            calls = request.api_calls(staged).in_order
            digests = {name: file.sha256 for name, file in staged.files.items()}
            files = {name: staged.folder / name for name in sorted(staged.files)}
        elif isinstance(staged, request.StoredModelJob):
            calls, digests, files = [request.create_call(staged)], dict(staged.etags), {}
        else:
            raise UsageError("an import needs a trained job", fix="cloudft import JOB")
        return Plan(
            backend=self.name,
            token=request.request_token(staged),
            name=staged.job.spec.name,
            request={
                **AwsRequest(
                    hyper_parameters=dict(staged.job.spec.hyperparameters),
                    place=location_of(staged.job),
                    calls=calls,
                ).to_json(),
                "model": digests,
            },
            files=files,
            manifest=staged.manifest,
            estimate=self.estimate(staged.job, {}),
            spec=to_portable_values(staged.job),
        )

    def submit(self, plan: Plan, observer: RunObserver = SILENT) -> str:
        """Upload the model and create the import, unless it exists; return its ARN."""
        self.aws_for(plan.request["place"])
        existing = self._find_import(plan)
        if existing is not None:
            return existing
        if plan.files:  # a model that lies in S3 already has none
            self._upload(plan, observer)
        return self._create(plan)

    def find_submitted(self, plan: Plan) -> str | None:
        """Return the import's ARN, found by its name, which follows from the plan's token."""
        self.aws_for(plan.request["place"])
        return self._find_import(plan)

    def _find_import(self, plan: Plan) -> str | None:
        """Return the ARN of the plan's import if it exists.

        Raise ResourceConflict for another import of that name: the tag is the proof.
        """
        try:
            arn = str(self._get_import_job(plan.job_id)["jobArn"])
        except JobNotFound:
            return None
        if get_tags(self.aws, arn).get(TOKEN_TAG) != plan.token:
            message = f"an import {plan.job_id} exists, and it is another one ({arn})"
            raise ResourceConflict(message, fix="give the job another name.")
        return arn

    def _upload(self, plan: Plan, observer: RunObserver) -> None:
        calls = planned_request(plan).planned
        for (name, path), call in zip(plan.files.items(), calls.uploads, strict=True):
            sha256 = plan.request["model"][name]
            self.upload_file(call.parameters, path, sha256, observer)
        # Before the import exists: another machine may discover it at once and read this plan.
        self.put_object(calls.plan_file.parameters, encode_plan(plan))

    def _create(self, plan: Plan) -> str:
        failure = f"the import {plan.job_id} can't be created"
        call = planned_request(plan).calls[-1]
        created = self.create_once(failure, call, lambda: self._find_import(plan))
        return created if isinstance(created, str) else str(created["jobArn"])

    def _get_import_job(self, job_id: str) -> ImportJob:
        failure, operation = f"can't read the import {job_id}", "get_model_import_job"
        response = self.describe_or_none(failure, "bedrock", operation, jobIdentifier=job_id)
        if response is None:
            raise job_not_found(f"Bedrock has no import {job_id}")
        return cast("ImportJob", response)

    def describe(self, job_id: str) -> JobState:
        """Return the import's state, with its model's once it has completed."""
        job = self._get_import_job(job_id)
        if job["status"] != "Completed":
            return states.to_job_state(job)
        try:
            return states.to_job_state(job, self._get_imported_model(job))
        except JobStateConflict:  # the model was removed since
            return states.with_model_removed(states.to_job_state(job))

    def _get_imported_model(self, job: ImportJob) -> ImportedModel:
        """Return the imported model. Raise JobStateConflict if it does not exist now."""
        name = job["jobName"]
        if job["status"] != "Completed":
            message = f"{name} is {job['status']}: there is no imported model"
            raise JobStateConflict(message, fix=f"`cloudft watch {name}` waits for its end.")
        arn = job["importedModelArn"]
        failure, operation = f"can't read the model {arn}", "get_imported_model"
        try:
            response = self.aws.call(failure, "bedrock", operation, modelIdentifier=arn)
        except ResourceNotFound as error:
            message = f"the model of {name} was removed from Bedrock"
            fix = "import it again: cloudft import JOB"
            raise JobStateConflict(message, fix=fix) from error
        return cast("ImportedModel", response)

    def list_untracked(self, known: Collection[str]) -> Iterator[DiscoveredJob | DamagedJob]:
        """Yield imports with cloudft's tag that are not `known`, by their plan in S3."""
        failure, key = "the imports can't be listed", "modelImportJobSummaries"
        untracked = (
            (summary["jobName"], summary["jobArn"])
            for summary in self.aws.paginate(failure, "bedrock", "list_model_import_jobs", key)
            if summary["jobName"] not in known and is_job_id(summary["jobName"])
        )
        yield from discovered_plan.discover_each(untracked, self._discover)

    def _discover(self, name: str, arn: str) -> DiscoveredJob | None:
        tags = get_tags(self.aws, arn)
        if tags.get(JOB_TAG) != name:
            return None
        job = self._get_import_job(arn)
        bucket, prefix = split_s3_uri(job["modelDataSource"]["s3DataSource"]["s3Uri"])
        key = f"{prefix.partition(request.MODELS_PREFIX)[0]}jobs/{name}/{PLAN_FILE}"
        markers = discovered_plan.PlanMarkers(name, tags.get(TOKEN_TAG), tags.get(PLAN_TAG))
        try:
            content = read_object(self.aws, {"Bucket": bucket}, key, discovered_plan.MAX_PLAN_BYTES)
        except BadDocument as error:
            raise discovered_plan.unusable_plan(name, error) from error
        plan = discovered_plan.parse_plan(content, s3_uri(bucket, key), self.name, markers)
        created = str(bedrock_states.iso_format(job["creationTime"]))
        return plan.to_discovered_job(arn, created, self.location_with_region("bedrock"))

    def bedrock_status(self, job_id: str) -> str:
        """Return the import's status as Bedrock names it."""
        return str(self._get_import_job(job_id)["status"])

    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        """Yield the start and the end of the import. The cursor is a line's number."""
        lines = list(states.log_lines(self._get_import_job(job_id)))
        yield from lines[0 if after is None else int(after) + 1 :]

    def generate(
        self,
        job_id: str,
        prompts: Sequence[Prompt],
        variants: Sequence[str],
        decoding: GenerationConfig,
    ) -> Iterator[Answer]:
        """Yield answers of the imported model and, on this machine, of its base model."""
        session = self.open_session(job_id)
        try:
            yield from session.generate(prompts, variants, decoding)
        finally:
            session.close()

    def open_session(self, job_id: str) -> InferenceSession:
        """Return the imported model, with its open base model on this machine."""
        job = self._get_import_job(job_id)
        model = inference.ImportedModel(self.aws, self._get_imported_model(job))
        return inference.ImportedModelWithLocalBase(
            model, lambda: self.open_base_session(self._load_job(job["jobName"]))
        )

    def open_base_session(self, job: LoadedJob) -> InferenceSession:
        """Return the open base model, on this machine."""
        local = backend_by_name("local", self.home)
        assert isinstance(local, SupportsInference)
        return local.open_base_session(job)

    def _load_job(self, name: str) -> LoadedJob:
        return load_spec(Store(self.home.jobs).get(name).spec)


def _data_file(path: Path) -> StagedFile:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    size = path.stat().st_size
    return StagedFile(0, 0, 0, name=path.name, sha256=digest.hexdigest(), bytes=size)
