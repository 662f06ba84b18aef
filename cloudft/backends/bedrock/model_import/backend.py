"""Imports of merged models into Bedrock. As a customization job is, one is found by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cloudft.aws.tags import JOB_TAG, PLAN_TAG, TOKEN_TAG
from cloudft.backends import make_backend as backend_by_name
from cloudft.backends.aws_base import discovered_plan
from cloudft.backends.aws_base.api_call import PLAN_FILE, AwsRequest, planned_request
from cloudft.backends.aws_base.backend import AwsBackend, encode_plan, job_not_found
from cloudft.backends.base import Backend, Location, StagedJob
from cloudft.backends.bedrock import output, stack
from cloudft.backends.bedrock import states as bedrock_states
from cloudft.backends.bedrock.model_import import (
    convert_config,
    inference,
    model_checks,
    preflight,
    request,
    states,
)
from cloudft.backends.bedrock.request import location_of
from cloudft.backends.capabilities import (
    DiscoveredJob,
    ModelImporter,
    SupportsDiscovery,
    SupportsGenerate,
    SupportsInference,
)
from cloudft.backends.observer import SILENT, RunObserver
from cloudft.catalogue import load_import_rules
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
    Metric,
    Plan,
    StagedFile,
    is_job_id,
)

BLOCK_BYTES = 1024 * 1024
NO_PRICE_SOURCE = (
    "Custom Model Import is paid by use and by storage, at prices that no source here has"
)


class ImportBackend(
    AwsBackend, Backend, ModelImporter, SupportsDiscovery, SupportsGenerate, SupportsInference
):
    """Import jobs of one account and Region, and the models that they make."""

    name = "import"
    poll_seconds = 15.0
    inference_is_billed = True

    def location_of(self, job: LoadedJob) -> Location:
        """Region, profile and endpoint of the job file's bedrock section."""
        return location_of(job)

    def with_stack_defaults(self, job: LoadedJob) -> LoadedJob:
        """With the outputs of its stack, where it names one."""
        return stack.with_stack_defaults(job, self.aws_for(self.location_of(job)))

    def check(self, job: LoadedJob) -> list[Finding]:
        """What Bedrock would refuse of the place: Region, role, bucket."""
        return preflight.check_job(job, self.aws_for(self.location_of(job)))

    def estimate(self, job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
        """An import itself costs nothing, and an idle model no inference; its storage does."""
        return Estimate(
            backend=self.name,
            train_tokens=0,
            epochs=0,
            usd={"training": 0.0, "storagePerMonth": None, "servingPerHour": 0.0},
            seconds=None,
            price_source=NO_PRICE_SOURCE,
            price_date="",
        )

    def validate_config(
        self, job: LoadedJob, config: Mapping[str, Any], file: str
    ) -> list[Finding]:
        """What config.json alone tells, before anything is merged."""
        return list(model_checks.check_architecture(config, file, job.spec.bedrock.region))

    def prepare_model(
        self, job: LoadedJob, manifest: Manifest, folder: Path
    ) -> tuple[StagedJob, list[Finding]]:
        """Put the folder into the form that Bedrock reads, and hold it against Bedrock's rules."""
        with as_store_error("the merged model can't be made ready", folder):
            try:
                convert_config.convert_folder(folder, load_import_rules().transformers)
            except ValueError as error:
                message = f"{folder} can't be put into Bedrock's form: {error}"
                raise UsageError(
                    message, file=str(folder), fix=model_checks.OTHER_MODEL_FIX
                ) from error
            supervised = job.spec.customization_type == "FINE_TUNING"
            found = model_checks.check_model_folder(
                folder, supervised=supervised, region=job.spec.bedrock.region
            )
            files = {path.name: _data_file(path) for path in model_checks.imported_files(folder)}
        return request.MergedJob(job, manifest, folder, files=files), found

    def plan(self, staged: StagedJob) -> Plan:
        """The calls, in order, with everything that is in them."""
        if not isinstance(staged, request.MergedJob):
            raise UsageError("an import is made of a trained job", fix="cloudft import JOB")
        return Plan(
            backend=self.name,
            token=request.request_token(staged),
            name=staged.job.spec.name,
            request={
                **AwsRequest(
                    hyper_parameters=dict(staged.job.spec.hyperparameters),
                    place=location_of(staged.job),
                    calls=request.api_calls(staged).in_order,
                ).to_json(),
                "model": {name: file.sha256 for name, file in staged.files.items()},
            },
            files={name: staged.folder / name for name in sorted(staged.files)},
            manifest=staged.manifest,
            estimate=self.estimate(staged.job, {}),
            spec=to_portable_values(staged.job),
        )

    def submit(self, plan: Plan, observer: RunObserver = SILENT) -> str:
        """Send the model to S3, then create the import, unless it is there."""
        self.aws_for(plan.request["place"])
        known = self._find_import(plan)
        if known is not None:
            return known
        self._upload(plan, observer)
        return self._create(plan)

    def find_submitted(self, plan: Plan) -> str | None:
        """By its name, which follows from the plan's token."""
        self.aws_for(plan.request["place"])
        return self._find_import(plan)

    def _find_import(self, plan: Plan) -> str | None:
        """The ARN of the plan's import when it was created before. Its tag is the proof."""
        try:
            arn = str(self._get_import_job(plan.job_id)["jobArn"])
        except JobNotFound:
            return None
        if self._get_tags(arn).get(TOKEN_TAG) != plan.token:
            message = f"an import {plan.job_id} is there, and it is another one ({arn})"
            raise ResourceConflict(message, fix="give the job another name.")
        return arn

    def _upload(self, plan: Plan, observer: RunObserver) -> None:
        calls = planned_request(plan).planned
        for (name, path), call in zip(plan.files.items(), calls.uploads, strict=True):
            sha256 = plan.request["model"][name]
            self.upload_file(call.parameters, path, sha256, observer)
        self.put_object(calls.plan_file.parameters, encode_plan(plan))

    def _create(self, plan: Plan) -> str:
        what, call = (
            f"the import {plan.job_id} can't be created",
            planned_request(plan).planned.create,
        )
        made = self.create_once(what, call, lambda: self._find_import(plan))
        return made if isinstance(made, str) else str(made["jobArn"])

    def _get_import_job(self, job_id: str) -> Mapping[str, Any]:
        what, operation = f"the import {job_id} can't be looked at", "get_model_import_job"
        answer = self.describe_or_none(what, "bedrock", operation, jobIdentifier=job_id)
        if answer is None:
            raise job_not_found(f"Bedrock has no import {job_id}")
        return answer

    def _get_tags(self, arn: str) -> dict[str, str]:
        what = f"the tags of {arn} can't be read"
        answer = self.aws.call(what, "bedrock", "list_tags_for_resource", resourceARN=arn)
        return {tag["key"]: tag["value"] for tag in answer["tags"]}

    def describe(self, job_id: str) -> JobState:
        """One look; of a completed import, its model is looked at too."""
        answer = self._get_import_job(job_id)
        if answer["status"] != "Completed":
            return states.to_job_state(answer)
        try:
            return states.to_job_state(answer, self._get_imported_model(answer))
        except JobStateConflict:  # the model was removed since
            return states.with_model_removed(states.to_job_state(answer))

    def _get_imported_model(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        """The imported model. Raises JobStateConflict before there is one, or when it is gone."""
        name = answer["jobName"]
        if answer["status"] != "Completed":
            message = f"{name} is {answer['status']}: there is no imported model"
            raise JobStateConflict(message, fix=f"`cloudft watch {name}` waits for its end.")
        arn = str(answer["importedModelArn"])
        what, operation = f"the model {arn} can't be looked at", "get_imported_model"
        try:
            return self.aws.call(what, "bedrock", operation, modelIdentifier=arn)
        except ResourceNotFound as error:
            message = f"the model of {name} was removed from Bedrock"
            fix = "import it once more: cloudft import JOB"
            raise JobStateConflict(message, fix=fix) from error

    def list_untracked(self, known: Collection[str]) -> Iterator[DiscoveredJob | DamagedJob]:
        """Imports whose tag says that cloudft made them; their plan lies in S3."""
        what, key = "the imports can't be listed", "modelImportJobSummaries"
        named = (
            (summary["jobName"], summary["jobArn"])
            for summary in self.aws.paginate(what, "bedrock", "list_model_import_jobs", key)
            if summary["jobName"] not in known and is_job_id(summary["jobName"])
        )
        yield from discovered_plan.discover_each(named, self._discover)

    def _discover(self, name: str, arn: str) -> DiscoveredJob | None:
        tags = self._get_tags(arn)
        if tags.get(JOB_TAG) != name:
            return None
        answer = self._get_import_job(arn)
        uri = answer["modelDataSource"]["s3DataSource"]["s3Uri"]
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        key = f"{prefix.partition(request.MODELS_PREFIX)[0]}jobs/{name}/{PLAN_FILE}"
        marks = discovered_plan.PlanMarkers(name, tags.get(TOKEN_TAG), tags.get(PLAN_TAG))
        try:
            content = output.read_object(
                self.aws, {"Bucket": bucket}, key, discovered_plan.MAX_PLAN_BYTES
            )
        except BadDocument as error:
            raise discovered_plan.unusable_plan(name, error) from error
        plan = discovered_plan.parse_plan(content, f"s3://{bucket}/{key}", self.name, marks)
        created = str(bedrock_states.iso_format(answer["creationTime"]))
        return plan.to_discovered_job(arn, created, self.location_with_region("bedrock"))

    def metrics(self, job_id: str) -> Iterator[Metric]:
        """None: nothing is trained."""
        self._get_import_job(job_id)
        yield from ()

    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        """Its beginning and its end. The cursor is a line's number."""
        lines = list(states.log_lines(self._get_import_job(job_id)))
        yield from lines[0 if after is None else int(after) + 1 :]

    def stop(self, job_id: str) -> None:
        """Nothing for an import that has ended. Raises JobStateConflict: Bedrock can't stop one."""
        if self._get_import_job(job_id)["status"] == "InProgress":
            message = f"{job_id} can't be stopped: Bedrock has no operation for it"
            raise JobStateConflict(message, fix="wait for its end, then `cloudft gc`.")

    def download_artifacts(
        self, job_id: str, to: Path, on_copied: Callable[[int], None] | None = None
    ) -> Path:
        """Raises JobStateConflict: the model stays with Bedrock."""
        self._get_import_job(job_id)
        message = f"{job_id} leaves no files: its model is in Bedrock"
        raise JobStateConflict(message, fix="those of the trained job are with that job.")

    def generate(
        self,
        job_id: str,
        prompts: Sequence[Prompt],
        variants: Sequence[str],
        decoding: GenerationConfig,
    ) -> Iterator[Answer]:
        """Ask the imported model; the base is asked on this machine."""
        asks = self.open_session(job_id)
        try:
            yield from asks.generate(prompts, variants, decoding)
        finally:
            asks.close()

    def open_session(self, job_id: str) -> InferenceSession:
        """The imported model, and its open base on this machine."""
        answer = self._get_import_job(job_id)
        model = inference.ImportedModel(self.aws, self._get_imported_model(answer))
        return inference.ImportedModelWithLocalBase(
            model, lambda: self.open_base_session(self._load_job(answer["jobName"]))
        )

    def open_base_session(self, job: LoadedJob) -> InferenceSession:
        """The open weights, on this machine."""
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
