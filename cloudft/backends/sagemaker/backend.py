"""Jobs on Amazon SageMaker: the local trainer in a training job. The cloud is the truth.

A job is known by its id; its training jobs are named after it, and a resumed one has `-r1`, `-r2`
behind that name. The local backend, by its name, builds the trainer's request and runs the models
once they are on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import orjson

from cloudft import catalogue
from cloudft.aws.arn import parse_arn
from cloudft.backends.aws_base import discovered_plan
from cloudft.backends.aws_base.api_call import (
    ApiCall,
    AwsRequest,
    planned_request,
    recorded_request,
)
from cloudft.backends.aws_base.backend import AwsBackend, encode_plan, job_not_found
from cloudft.backends.base import Backend, Location, StagedJob, with_placeholder_data
from cloudft.backends.capabilities import (
    DiscoveredJob,
    SupportsAdapters,
    SupportsDiscovery,
    SupportsInventory,
    SupportsPricing,
    SupportsResume,
)
from cloudft.backends.export_options import ExportOptions
from cloudft.backends.observer import SILENT, RunObserver
from cloudft.backends.resources import CloudResource
from cloudft.backends.sagemaker import (
    images,
    instances,
    inventory,
    logs,
    output,
    preflight,
    price_list,
    request,
    request_guard,
    stack,
    states,
    trainer_archive,
    weights,
)
from cloudft.backends.sagemaker.local_inference import LocalInferenceMixin
from cloudft.backends.sagemaker.responses import TrainingJob
from cloudft.backends.sagemaker.serverless import job as serverless
from cloudft.backends.sagemaker.serverless import output as serverless_output
from cloudft.backends.sagemaker.serverless import preflight as serverless_preflight
from cloudft.backends.sagemaker.serverless.metrics import read_curve
from cloudft.backends.sagemaker.serverless.records import write_messages
from cloudft.backends.sagemaker.serverless.request import CONVERTED
from cloudft.backends.teacher import with_teacher
from cloudft.backends.trained_model import trained_model
from cloudft.catalogue import cost
from cloudft.data.staging.answered import unanswered_records
from cloudft.errors import (
    CloudRefused,
    CloudUnreachable,
    DamagedJob,
    JobStateConflict,
    ResourceConflict,
    ResourceNotFound,
)
from cloudft.spec.load import LoadedJob
from cloudft.spec.model import parse_spec
from cloudft.spec.serialize import to_portable_values
from cloudft.storage import artifacts as layout
from cloudft.storage.atomic_files import as_store_error, scratch_folder
from cloudft.storage.store import Store
from cloudft.types import (
    AdapterReach,
    BilledPart,
    DataVolume,
    Estimate,
    Finding,
    JobState,
    Listing,
    LogLine,
    Metric,
    MissingPrice,
    Plan,
    is_job_id,
    to_json,
)

PRICING_URL = "https://aws.amazon.com/sagemaker/ai/pricing"
SPOT_NOTE = (
    'spot capacity has a price of its own, "up to 90 %" below this one, which AWS publishes in no'
    " list: the bound is the price on demand; the saving is reported when the job has ended"
    " (SageMaker developer guide, model-managed-spot-training, 2026-10)"
)
UNKNOWN_IMAGE = "<the image that the SageMaker SDK names>"


class SageMakerBackend(
    LocalInferenceMixin,
    AwsBackend,
    Backend,
    SupportsDiscovery,
    SupportsPricing,
    SupportsResume,
    SupportsInventory,
    SupportsAdapters,
):
    """Training jobs of one account and Region."""

    name = "sagemaker"
    longest_poll_seconds = 30.0

    def location_of(self, job: LoadedJob) -> Location:
        """Return Region, profile and endpoint of the job file."""
        return request.location_of(job)

    def with_stack_defaults(self, job: LoadedJob) -> LoadedJob:
        """Return the job with its stack's outputs, where it names a stack."""
        return stack.with_stack_defaults(job, self.aws_for(self.location_of(job)))

    def check(self, job: LoadedJob) -> list[Finding]:
        """Check the trainer's settings, the request, and the account."""
        here = self.aws_for(self.location_of(job))
        if job.spec.sagemaker.serverless is not None:
            return serverless_preflight.check_job(job, here)
        trainers = self.local_backend.check(_on_any_device(job))
        return preflight.check_job(
            job, here, trainers, lambda: self._job_inputs(with_placeholder_data(job), ())
        )

    def describe_adapters(self, job: LoadedJob) -> AdapterReach | None:
        """Return what the trainer here finds: the container's is the same. None for serverless."""
        here = self.local_backend
        if job.spec.sagemaker.serverless is not None or not isinstance(here, SupportsAdapters):
            return None
        return here.describe_adapters(job)

    def estimate(self, job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
        """Return an upper bound: training time is not known before a run, its limit is.

        A teacher of Bedrock answers before it.
        """
        return with_teacher(self._estimate_training(job, volumes), job, volumes, trains_here=False)

    def _estimate_training(self, job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
        if job.spec.sagemaker.serverless is not None:
            return serverless.estimate(job, volumes)
        local_estimate = self.local_backend.estimate(job, volumes)
        price, name = instances.get_hourly_price(job), instances.choose_instance_type(job)
        hours = request.max_runtime_seconds(job) / 3600
        count = job.spec.sagemaker.instance_count
        what = f"at most {hours:g} h of {count} x {name or 'a machine to be named'}"
        part = BilledPart(what, hours * count, "hour", None, price_name="instance_hour")
        quoted = replace(
            local_estimate,
            backend=self.name,
            usd={"training": None, "storagePerMonth": None, "servingPerHour": 0.0},
            at_most=True,
            unpriced=MissingPrice(f"an hour of {name}", "instance_hour", PRICING_URL)
            if name and not price
            else None,
            notes=(SPOT_NOTE,) if job.spec.sagemaker.spot else (),
        )
        if price is None:
            source = f"{what}, {cost.NO_PRICE_KNOWN}"
            estimate = cost.with_parts(quoted, [part])
        else:
            own = cost.to_unit_price(price.usd, price.source, price.certainty, price.region)
            source = f"{what}; {price.origin(instances.region_of(job))}"
            estimate = cost.with_parts(quoted, [cost.priced(part, own)])
        return replace(estimate, price_source=source)

    def with_current_prices(self, job: LoadedJob, estimate: Estimate) -> Estimate:
        """Use the Price List, where there is one: a self-hosted endpoint has none."""
        if job.spec.sagemaker.serverless is not None:
            return estimate
        aws, name = self.aws_for(self.location_of(job)), instances.choose_instance_type(job)
        part, *others = estimate.parts
        try:
            meta = aws.client("sagemaker").meta
            if part.price is not None and part.price.certainty == "stated":
                return estimate
            if name is None or ".amazonaws.com" not in meta.endpoint_url:
                return estimate
            usd_per_hour = price_list.fetch_hourly_price(aws, name, meta.region_name)
        except (CloudRefused, CloudUnreachable):
            return estimate
        if usd_per_hour is None:
            return estimate
        region, today = meta.region_name, datetime.now(timezone.utc).date()
        source = catalogue.Source("price-list", f"Price List API, {region}", today.isoformat())
        listed = cost.to_unit_price(usd_per_hour, source, "list", region, today)
        current = cost.with_parts(estimate, [cost.at_list_price(part, listed), *others])
        unpriced = estimate.unpriced if any(one.price is None for one in others) else None
        return replace(current, unpriced=unpriced, price_source=f"{part.what}; {source}")

    def _estimate_plan(self, staged: StagedJob) -> Estimate:
        """Return the estimate; without the teacher where all of its answers are there."""
        if unanswered_records(staged.folder, staged.manifest):
            return self.estimate(staged.job, staged.manifest.files)
        return self._estimate_training(staged.job, staged.manifest.files)

    def plan(self, staged: StagedJob) -> Plan:
        """Return the calls, in order, with everything that is in them."""
        if staged.job.spec.sagemaker.serverless is not None:
            return serverless.make_plan(staged)
        model = trained_model(staged.job)
        assert model is not None, "preflight refuses a job without a model to train"
        inputs = self._job_inputs(staged, weights.list_weight_files(model))
        parameters = request.create_request(inputs)
        job_id = parameters["HyperParameters"][request.JOB_KEY]
        return Plan(
            backend=self.name,
            token=request.request_token(inputs),
            name=staged.job.spec.name,
            request={
                **AwsRequest(
                    hyper_parameters=dict(inputs.trainer["hyperParameters"]),
                    place=request.location_of(staged.job),
                    calls=request.api_calls(inputs).in_order,
                ).to_json(),
                "job": {"id": job_id, **request.container_request(inputs)},
                "home": request.local_request(inputs, job_id),
                "sha256": request.file_digests(inputs),
                "usdPerHour": request.usd_per_hour(staged.job),
            },
            files=request.plan_files(inputs),
            manifest=staged.manifest,
            estimate=self._estimate_plan(staged),
            spec=to_portable_values(staged.job),
        )

    def _job_inputs(
        self, staged: StagedJob, sent: tuple[weights.WeightFile, ...]
    ) -> request.TrainingJobInputs:
        trainer = self.local_backend.plan(replace(staged, job=_on_any_device(staged.job))).request
        return request.TrainingJobInputs(staged, trainer, sent, _resolve_image(staged.job))

    def submit(self, plan: Plan, observer: RunObserver = SILENT) -> str:
        """Upload to S3, then create the training job, unless it exists."""
        self.aws_for(plan.request["place"])
        known = self._find_training_job(plan)
        if known is not None:
            return known
        create = planned_request(plan).planned.create
        what = f"the job {plan.job_id} can't be created"
        request_guard.require_complete(what, parse_spec(plan.spec), create.parameters)
        # The uploads are named by their content, so an interrupted submit repeats no upload.
        self._upload(plan, observer)
        return self._create(plan)

    def find_submitted(self, plan: Plan) -> str | None:
        """Find the job by its name, which follows from the plan's token."""
        self.aws_for(plan.request["place"])
        return self._find_training_job(plan)

    def _find_training_job(self, plan: Plan) -> str | None:
        """Return the name of the plan's training job when it was created before."""
        name = request.training_job_name(plan.job_id)
        description = self._describe_training_job(name)
        if description is None:
            return None
        if description.get("HyperParameters", {}).get(request.TOKEN_KEY) != plan.token:
            raise ResourceConflict(
                f"a training job {name} is there, and it is another one",
                fix="give this job another name.",
            )
        return name

    def _upload(self, plan: Plan, observer: RunObserver) -> None:
        bodies = {
            "code": lambda: trainer_archive.build_archive().content,
            "job": lambda: orjson.dumps(plan.request["job"], option=orjson.OPT_INDENT_2),
            "manifest": lambda: orjson.dumps(to_json(plan.manifest)),
            "plan": lambda: encode_plan(plan),
        }
        calls = planned_request(plan).planned
        for call in (*calls.uploads, calls.plan_file):
            if call.file is not None:
                role = call.file
                sha256 = plan.request["sha256"].get(role) or plan.manifest.files[role].sha256
                self.upload_file(call.parameters, plan.files[role], sha256, observer)
            elif call.content in bodies:
                self.put_object(call.parameters, bodies[call.content]())
            elif call.content is not None:
                self._upload_messages(plan, call, observer)

    def _upload_messages(self, plan: Plan, call: ApiCall, observer: RunObserver) -> None:
        """Convert the records of a role and upload them, unless they are there."""
        role = str(call.content).removeprefix(CONVERTED)
        with (
            as_store_error("can't write the converted records", self.home.path),
            scratch_folder(self.home.path, ".messages-") as folder,
        ):
            path = folder / f"{role}.jsonl"
            sha256 = write_messages(plan.files[role], str(plan.request[serverless.FORMAT]), path)
            marked = {**call.parameters, "Metadata": {"cloudft-sha256": sha256}}
            self.upload_file(marked, path, sha256, observer)

    def _create(self, plan: Plan) -> str:
        what, call = f"the job {plan.job_id} can't be created", planned_request(plan).planned.create
        self.create_once(what, call, lambda: self._find_training_job(plan))
        return str(call.parameters["TrainingJobName"])

    def _describe_training_job(self, name: str) -> TrainingJob | None:
        """Return one training job, or None where SageMaker has none of that name."""
        what, operation = f"can't read the job {name}", "describe_training_job"
        response = self.describe_or_none(what, "sagemaker", operation, TrainingJobName=name)
        job = cast("TrainingJob | None", response)
        return None if job is None else serverless.with_marks(self.aws, job)

    def _list_attempts(self, job_id: str) -> list[TrainingJob]:
        """Return the job's training jobs, oldest first. Raise JobNotFound when there is none."""
        name = request.training_job_name(job_id)
        first = self._describe_training_job(name)
        if first is None or not _is_cloudft_job(first):
            raise job_not_found(f"SageMaker has no job {job_id} that cloudft created")
        attempts = [first]
        while (next_attempt := self._describe_training_job(f"{name}-r{len(attempts)}")) is not None:
            attempts.append(next_attempt)
        return attempts

    def describe(self, job_id: str) -> JobState:
        """Return the state; the first call after completion downloads the artifacts."""
        attempts = self._list_attempts(job_id)
        description = attempts[-1]
        if serverless.is_serverless(description):
            return self._describe_serverless(description)
        trainer_state = logs.read_newest_state(self.aws, description["TrainingJobName"])
        region = parse_arn(description["TrainingJobArn"]).region
        price = catalogue.hourly_price(description["ResourceConfig"]["InstanceType"], region)
        count = description["ResourceConfig"]["InstanceCount"]
        usd_per_hour = price.usd * count if price else None
        artifacts = None
        if description["TrainingJobStatus"] == "Completed":
            try:
                artifacts = str(
                    output.download_artifacts(
                        self.aws, description, self.home, _job_id_of(description)
                    )
                )
            except (DamagedJob, ResourceNotFound) as error:
                description = description.copy()
                description.update({"TrainingJobStatus": "Failed", "FailureReason": error.message})
        billed = [a["BillableTimeInSeconds"] for a in attempts if "BillableTimeInSeconds" in a]
        if billed:
            description = {**description, "BillableTimeInSeconds": sum(billed)}
        return states.to_job_state(
            description, trainer_state, artifacts, attempts=len(attempts), usd_per_hour=usd_per_hour
        )

    def _describe_serverless(self, description: TrainingJob) -> JobState:
        """Return the state of a serverless job; its curve and manifest are kept when it is done.

        Its weights stay in S3.
        """
        job_id = _job_id_of(description)
        folder = self.home.jobs / job_id / output.ARTIFACTS
        if description["TrainingJobStatus"] != "Completed":
            return states.to_job_state(description)
        weights_uri = serverless_output.model_uri(self.aws, description)
        if not layout.is_complete(folder):
            manifest, result = self._manifest_of(description), {"weights": weights_uri}
            points = list(self._serverless_curve(description))
            serverless_output.write_artifacts(folder, points, manifest, result)
        state = states.to_job_state(description, None, str(folder))
        found = {} if weights_uri is None else {"weights": weights_uri}
        return replace(state, summary={**state.summary, **found})

    def _manifest_of(self, description: TrainingJob) -> Mapping[str, Any]:
        """Return the staged data's manifest: this machine's record, else the plan in S3."""
        record = Store(self.home.jobs).get_or_none(_job_id_of(description))
        if record is not None:
            return record.manifest
        return cast("Mapping[str, Any]", to_json(output.read_plan(self.aws, description).manifest))

    def _serverless_curve(self, description: TrainingJob) -> Iterator[Metric]:
        files = self._manifest_of(description).get("files", {})
        records = files.get("train", {}).get("records")
        lines = logs.iter_log_lines(self.aws, [str(description["TrainingJobName"])])
        yield from read_curve(lines, serverless.steps_per_epoch(description, records))

    def export(self, job_id: str, out: Path, options: ExportOptions) -> Mapping[str, Any]:
        """Merge the weights and prove the result; download those that SageMaker has merged."""
        description = self._list_attempts(job_id)[-1]
        if not serverless.is_serverless(description):
            return super().export(job_id, out, options)
        if description["TrainingJobStatus"] != "Completed":
            raise JobStateConflict(
                f"{job_id} is {description['TrainingJobStatus']}: it has left no model",
                fix=f"`cloudft watch {job_id}` waits for its end.",
            )
        if options.format != ExportOptions.format:
            raise JobStateConflict(
                f"SageMaker has merged the weights of {job_id}: they are written as they are",
                fix=f"`cloudft export {job_id} DIR` downloads them; the tools of your runtime"
                " convert them.",
            )
        return serverless_output.export_merged(self.aws, description, out)

    def _downloaded_job(self, job_id: str) -> str:
        """Return the job's id in the local backend, which has no weights of a serverless job."""
        if serverless.is_serverless(self._list_attempts(job_id)[-1]):
            raise JobStateConflict(
                f"the weights of {job_id} are in S3, not on this machine",
                fix=f"`cloudft import {job_id}` makes them a Bedrock model that answers;"
                f" `cloudft export {job_id} DIR` downloads them.",
            )
        return super()._downloaded_job(job_id)

    def describe_many(self, job_ids: Sequence[str]) -> Mapping[str, JobState]:
        """List the account's training jobs, a hundred a page; the newest of each job counts."""
        by_name = {request.training_job_name(job_id): job_id for job_id in job_ids}
        described: dict[str, JobState] = {}
        for summary in inventory.list_training_jobs(self.aws):
            matched = request.TRAINING_JOB_NAME.fullmatch(summary["TrainingJobName"])
            job_id = by_name.get(matched["base"]) if matched else None
            if job_id is None or job_id in described:  # the newest comes first
                continue
            folder = self.home.jobs / job_id / output.ARTIFACTS
            artifacts = str(folder) if layout.is_complete(folder) else None
            description = summary.copy()
            description["HyperParameters"] = {request.JOB_KEY: job_id}
            described[job_id] = states.to_job_state(description, None, artifacts)
            if len(described) == len(by_name):
                break
        return described

    def list_untracked(self, known: Collection[str]) -> Iterator[DiscoveredJob | DamagedJob]:
        """Yield jobs whose hyperparameters say that cloudft created them; their plan lies in S3."""
        names = {request.training_job_name(job_id) for job_id in known}
        listed = (summary["TrainingJobName"] for summary in inventory.list_training_jobs(self.aws))
        matched = ((name, request.TRAINING_JOB_NAME.fullmatch(name)) for name in listed)
        candidates = (
            (name, name)
            for name, match in matched
            if name not in names and match is not None and not match["number"]
        )
        yield from discovered_plan.discover_each(candidates, self._discover)

    def _discover(self, name: str, _: str) -> DiscoveredJob | None:
        description = self._describe_training_job(name)
        if description is None or not _is_cloudft_job(description):
            return None
        plan = output.read_plan(self.aws, description)
        created = str(states.iso_format(description["CreationTime"]))
        return plan.to_discovered_job(name, created, self.location_with_region("sagemaker"))

    def metrics(self, job_id: str) -> Iterator[Metric]:
        """Yield the points that the trainer wrote into the log.

        An old log is gone; then the points are those of the artifacts.
        """
        attempts = self._list_attempts(job_id)
        if serverless.is_serverless(attempts[-1]):
            yield from self._serverless_curve(attempts[-1])
            return
        points = logs.read_metrics(self.aws, _training_job_names(attempts))
        folder = self.home.jobs / _job_id_of(attempts[0]) / output.ARTIFACTS
        if not points and layout.is_complete(folder):
            read = layout.read_metrics(folder)
            points = sorted(read, key=lambda point: (point.step, point.split))
        yield from points

    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        """Yield what the container printed, of all the job's training jobs."""
        return logs.iter_log_lines(
            self.aws, _training_job_names(self._list_attempts(job_id)), after
        )

    def stop(self, job_id: str) -> None:
        """Call StopTrainingJob: the trainer has two minutes to save a checkpoint."""
        description = self._list_attempts(job_id)[-1]
        if description["TrainingJobStatus"] != "InProgress":
            return
        what, name = f"the job {job_id} can't be stopped", description["TrainingJobName"]
        try:
            self.aws.call(what, "sagemaker", "stop_training_job", TrainingJobName=name)
        except CloudRefused:
            ended = self._describe_training_job(name)  # it has ended meanwhile, or is being stopped
            if ended is not None and ended["TrainingJobStatus"] == "InProgress":
                raise

    def resume(self, job_id: str) -> None:
        """Create another training job with the same request, which resumes from the checkpoints."""
        attempts, what = self._list_attempts(job_id), f"the job {job_id} can't be resumed"
        if serverless.is_serverless(attempts[-1]):
            fix = "submit it again with --force-new: SageMaker keeps no checkpoint to go on from."
            raise JobStateConflict(f"{what}: SageMaker's customization is never resumed", fix=fix)
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
        parameters = request.resume_parameters(self._original_request(attempts[0]), len(attempts))
        record = Store(self.home.jobs).get_or_none(job_id)
        if record is not None:
            request_guard.require_complete(what, parse_spec(record.spec), parameters)
        try:
            self.aws.call(what, "sagemaker", request.CREATE, **parameters)
        except ResourceConflict:  # another resume beside this has made it
            return

    def _original_request(self, description: TrainingJob) -> Mapping[str, Any]:
        """Return the request that created the job.

        It comes from this machine's record, else from SageMaker's description; never from the plan
        in S3, which has a role, an image and a command.
        """
        record = Store(self.home.jobs).get_or_none(_job_id_of(description))
        recorded = recorded_request(record)
        sent = recorded.planned.create.parameters if recorded else None
        return sent or request.parameters_from_description(
            description, record.tags if record else {}
        )

    def download_artifacts(
        self, job_id: str, to: Path, on_copied: Callable[[int], None] | None = None
    ) -> Path:
        """Copy the job's artifacts to `to`, which must not exist."""
        return layout.copy_artifacts(job_id, self.describe(job_id).artifacts, to, on_copied)

    def list_resources(self) -> Listing[CloudResource]:
        """List running jobs, warm pools and staged data of this account and Region."""
        return inventory.list_resources(self.aws)

    def remove_resource(self, resource: CloudResource) -> None:
        """Remove one resource. A running job is left alone."""
        inventory.delete_resource(self.aws, resource)


def _on_any_device(job: LoadedJob) -> LoadedJob:
    """Return the job without this machine's device: the container uses its own."""
    local = job.spec.local.model_copy(update={"device": "auto"})
    return replace(job, spec=job.spec.model_copy(update={"local": local}))


def _resolve_image(job: LoadedJob) -> str:
    spec, instance = job.spec.sagemaker, instances.choose_instance_type(job)
    region = request.location_of(job)["region"]
    if spec.image_uri is not None:
        return str(spec.image_uri)
    if not images.is_sdk_installed() or region is None or instance is None:
        return UNKNOWN_IMAGE  # preflight refuses it
    return images.find_sdk_image(region, instance, spec.pytorch_version)


def _is_cloudft_job(description: TrainingJob) -> bool:
    """Return whether a job carries the id from which its name follows."""
    job_id = (description.get("HyperParameters") or {}).get(request.JOB_KEY, "")
    name = request.TRAINING_JOB_NAME.fullmatch(description["TrainingJobName"])
    return (
        is_job_id(job_id) and name is not None and request.training_job_name(job_id) == name["base"]
    )


def _job_id_of(description: TrainingJob) -> str:
    return str(description["HyperParameters"][request.JOB_KEY])


def _training_job_names(attempts: Sequence[TrainingJob]) -> list[str]:
    return [str(description["TrainingJobName"]) for description in attempts]
