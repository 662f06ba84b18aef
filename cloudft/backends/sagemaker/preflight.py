"""Check everything that can be checked before a job is submitted to SageMaker."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator

from cloudft.aws.client import Aws
from cloudft.aws.request_validation import load_service_model, validate_request
from cloudft.backends.aws_base import request_checks
from cloudft.backends.findings import FindingFactory, serverless_hint
from cloudft.backends.sagemaker import (
    account_checks,
    images,
    instances,
    request,
    request_guard,
    required_values,
    weights,
)
from cloudft.backends.teacher import check_teacher
from cloudft.backends.trained_model import trained_model
from cloudft.catalogue import CUSTOMIZATION_TYPES
from cloudft.errors import UsageError
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

TRAINER_FINDINGS = {
    *("NotLocal", "MaxLengthOverContext", "NoTokenizer"),
    *("HyperparameterNotLocal", "SlowLearningRate", "NotSharded"),
    *("TargetModules", "TokensWithoutEmbedding", "UnusedValue"),
}
"""Findings of the local trainer that hold wherever it runs; the others are about this machine."""
NEURON_PREFIXES = ("ml.trn", "ml.inf")
"""Types of machines with Trainium and Inferentia (local_backend/container/environment.py)."""


def check_job(
    job: LoadedJob,
    aws: Aws,
    trainer_findings: list[Finding],
    make_inputs: Callable[[], request.TrainingJobInputs],
) -> list[Finding]:
    """Check offline first, with the trainer's findings about the job; then the account.

    `make_inputs` builds the inputs of the request, for a job without an error so far.
    """
    finding = FindingFactory(job)
    findings = [f for f in trainer_findings if _holds_in_a_container(f)]
    findings += [
        *_customization_type(job, finding),
        *_check_reinforcement(job, finding),
        *_check_settings(job, finding),
        *_check_instance(job, finding),
        *_check_weights(job, finding),
        *check_teacher(job, trains_here=False),
    ]
    named = "sagemaker" if job.spec.sagemaker.profile else "bedrock"
    findings += [
        *request_checks.check_profile_configured(aws.location, f"{named}.profile", finding),
        *_check_regions(job, finding),
    ]
    if _has_errors(findings):
        return findings
    try:
        inputs = make_inputs()
    except UsageError as error:  # the SDK names no image
        return [
            *findings,
            finding("NoImage", "sagemaker.image_uri", error.message, error.fix or ""),
        ]
    findings += [*_check_request(job, inputs, finding), *_check_image(job, inputs.image, finding)]
    if _has_errors(findings):
        return findings
    return [*findings, *account_checks.check_account(job, aws, finding, inputs.image)]


def _holds_in_a_container(finding: Finding) -> bool:
    """Return whether a finding of the local trainer holds wherever it runs."""
    sections = ("reinforcement", "local.reinforcement")
    return finding.code in TRAINER_FINDINGS or str(finding.field).startswith(sections)


def _check_regions(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    spec = job.spec.sagemaker
    keys = {
        "sagemaker.kms_key_id": spec.kms_key_id,
        "sagemaker.s3_kms_key_id": spec.s3_kms_key_id,
    }
    return request_checks.check_arn_regions(keys, request.location_of(job)["region"], finding)


REQUEST_FIELDS = {
    "TrainingJobName": "name",
    "RoleArn": "sagemaker.role_arn",
    "AlgorithmSpecification.TrainingImage": "sagemaker.image_uri",
    "InputDataConfig": "sagemaker.s3_uri",
    "OutputDataConfig.S3OutputPath": "sagemaker.s3_uri",
    "OutputDataConfig.KmsKeyId": "sagemaker.kms_key_id",
    "CheckpointConfig": "sagemaker.s3_uri",
    "ResourceConfig.InstanceType": "sagemaker.instance_type",
    "ResourceConfig.InstanceCount": "sagemaker.instance_count",
    "ResourceConfig.VolumeSizeInGB": "sagemaker.volume_gb",
    "ResourceConfig.VolumeKmsKeyId": "sagemaker.kms_key_id",
    "ResourceConfig.KeepAlivePeriodInSeconds": "sagemaker.keep_alive_seconds",
    "StoppingCondition.MaxRuntimeInSeconds": "sagemaker.max_runtime_seconds",
    "StoppingCondition.MaxWaitTimeInSeconds": "sagemaker.max_wait_seconds",
    "VpcConfig.Subnets": "sagemaker.vpc.subnet_ids",
    "VpcConfig.SecurityGroupIds": "sagemaker.vpc.security_group_ids",
    "Tags": "tags",
}
"""Member of the request -> the field of the job file that it is made from."""


def _has_errors(findings: list[Finding]) -> bool:
    return any(f.severity == "error" for f in findings)


def _customization_type(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    """Yield findings for what the container can't train; SageMaker's own offer is named."""
    kind = job.spec.customization_type
    job_type = CUSTOMIZATION_TYPES[kind]
    if "sagemaker" not in job_type.trains_on:
        fix = "submit with --backend bedrock."
        yield finding(
            "NotOnSageMaker", "customization_type", f"the trainer does not support {kind}", fix
        )
        yield from serverless_hint(job, "customization_type", finding)
    elif trained_model(job) is None:
        message = f"the weights of {job.model.alias} are not available: no container trains them"
        fix = "submit with --backend bedrock; or set an open model to train in its place:"
        fix += " `local: {model: smollm2-135m}`."
        yield finding("NoLocalModel", "local.model", message, fix)
        yield from serverless_hint(job, "base_model", finding)


def _check_reinforcement(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    """Check what a reinforcement job needs: its grader's file, which goes with it, one machine."""
    section = job.spec.reinforcement
    if job.spec.customization_type != "REINFORCEMENT_FINE_TUNING" or section is None:
        return
    if section.grader is None:
        message = (
            "the container has no grader: the function of reinforcement.lambda_arn is not called"
        )
        fix = "set reinforcement.grader to its file."
        yield finding("MissingValue", "reinforcement.grader", message, fix)
    if job.spec.sagemaker.instance_count > 1:
        message = f"{job.spec.customization_type} trains on one machine here"
        fix = "set sagemaker.instance_count: 1."
        yield finding("OneProcess", "sagemaker.instance_count", message, fix)


def _check_settings(  # a list of independent checks, one branch each
    job: LoadedJob, finding: FindingFactory
) -> Iterator[Finding]:
    spec = job.spec.sagemaker
    yield from required_values.check_required_values(job, finding)
    if spec.image_uri is None and not images.is_sdk_installed():
        fix = "set sagemaker.image_uri to a PyTorch training image; or"
        fix += " pip install 'cloudft[sagemaker]', whose SDK knows AWS's own images."
        yield finding("NoImage", "sagemaker.image_uri", "no container image is known", fix)
    yield from _check_combinations(job, finding)


def _check_combinations(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    """Yield findings for settings that contradict each other."""
    spec, longest = job.spec.sagemaker, request.max_runtime_seconds(job)
    if spec.image_uri is not None and spec.pytorch_version is not None:
        message = "sagemaker.pytorch_version has no effect with sagemaker.image_uri"
        yield finding("UnusedValue", "sagemaker.pytorch_version", message, "remove one of them.")
    field = "sagemaker.max_wait_seconds"
    if spec.max_wait_seconds is not None and not spec.spot:
        message = "sagemaker.max_wait_seconds has no effect without spot"
        yield finding("UnusedValue", field, message, "set sagemaker.spot: true.")
    elif spec.max_wait_seconds is not None and spec.max_wait_seconds < longest:
        message = f"the wait for spot capacity ({spec.max_wait_seconds} s) is shorter than the run"
        yield finding("OutOfRange", field, message, f"set it to {longest} or more.")
    if spec.spot and spec.keep_alive_seconds:
        message = "a spot instance can't be kept in a warm pool"
        yield finding("BadRequest", "sagemaker.keep_alive_seconds", message, "remove one of them.")
    if spec.vpc is not None and not spec.network_isolation:
        message = "the container installs packages that its image lacks from PyPI"
        fix = "give the VPC a route to PyPI, or use an image that has them"
        fix += " (docs/how-to/train-on-sagemaker.md)."
        yield finding("NetworkOfItsOwn", "sagemaker.vpc", message, fix, "warning")
    if spec.network_isolation and not uploads_weights(job):
        message = "without a network the container can't download the weights"
        fix = "set base_model (or local.model) to a folder with the weights."
        yield finding("NoNetwork", "sagemaker.network_isolation", message, fix)


def uploads_weights(job: LoadedJob) -> bool:
    """Return whether the model's files are on this machine and are uploaded with the job."""
    model = trained_model(job)
    return model is None or bool(weights.list_weight_files(model))


def _check_instance(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    spec, name = job.spec.sagemaker, instances.choose_instance_type(job)
    field = "sagemaker.instance_type"
    if name is None and trained_model(job) is not None:
        needed = instances.required_gpu_bytes(job)
        message = "the size of the model is unknown"
        if needed is not None:
            message = f"no known instance has a GPU with {needed / 2**30:.0f} GiB"
        yield finding("NoInstance", field, message, "set sagemaker.instance_type.")
        yield from serverless_hint(job, field, finding)
        return
    yield from _check_instance_type(name, finding)
    known, processes = instances.find_instance(name), instances.count_processes(job)
    needed = instances.required_gpu_bytes(job, processes if job.spec.local.fsdp else 1)
    if job.spec.local.fsdp is True and known and processes == 1:
        message = f"local.fsdp shards the model over several GPUs, and one {name} has one"
        yield finding("OneProcess", "local.fsdp", message, "use more of them, or remove it.")
    if known and needed and spec.instance_type and known.gpus and known.gpu_bytes < needed:
        message = f"a GPU of {name} has {known.gib} GiB; the job needs about {needed / 2**30:.0f}"
        fix = "use a larger one, or `method: qlora`; without instance_type one is chosen."
        yield finding("InstanceSmall", field, message, fix, "warning")
    if known and known.gpus == 0 and job.spec.local.method == "qlora":
        message = f"local.method is qlora, which is slow without a GPU, and {name} has none"
        yield finding("NoGpu", field, message, "use ml.g5.xlarge, for example; or `method: lora`.")
    elif known and known.gpus == 0:
        message = f"{name} has no GPU: training there is slow"
        yield finding("NoGpu", field, message, "use ml.g5.xlarge, for example.", "warning")


def _check_instance_type(name: str | None, finding: FindingFactory) -> Iterator[Finding]:
    """Yield a finding for a type that the API, or whose chips the trainer, does not support."""
    known = load_service_model("sagemaker").shape_for("TrainingInstanceType").enum
    if name is not None and name.startswith(NEURON_PREFIXES):
        message = f"{name} has AWS's own accelerators, which the trainer can't use"
        fix = "use an instance with NVIDIA GPUs, for example ml.g5.2xlarge."
        yield finding("NoGpu", "sagemaker.instance_type", message, fix)
    if name is None or name in known:
        return
    near = difflib.get_close_matches(name, known, 1, 0.8)
    fix = f"did you mean {near[0]}?" if near else "use ml.g5.2xlarge, for example."
    fix += " (A newer type needs a newer boto3.)"
    message = f"SageMaker has no training instance type {name}"
    yield finding("NoSuchInstance", "sagemaker.instance_type", message, fix)


def _check_request(
    job: LoadedJob, inputs: request.TrainingJobInputs, finding: FindingFactory
) -> Iterator[Finding]:
    """Check the request against the service model; check that each GPU gets a record."""
    parameters = request.create_request(inputs)
    for missing in request_guard.find_missing(job.spec, parameters):
        yield finding("BadRequest", missing.field, missing.message, request_guard.FIX)
    for problem in validate_request("sagemaker", "CreateTrainingJob", parameters):
        field = request_checks.field_for_member(problem, REQUEST_FIELDS, "sagemaker")
        yield finding("BadRequest", field, problem, f"correct {field}.")
    processes, batch = (
        instances.count_processes(job),
        inputs.trainer["hyperParameters"]["batchSize"],
    )
    if processes > batch:
        message = f"{processes} GPUs or instances share batches of {batch}: some would be idle"
        fix = "use fewer of them, or raise batchSize."
        yield finding("GpusIdle", "sagemaker.instance_type", message, fix)


def _check_image(job: LoadedJob, uri: str, finding: FindingFactory) -> Iterator[Finding]:
    """Check Region, PyTorch version and GPU support of the image, by its URI."""
    image, field = images.parse_ecr_uri(uri), "sagemaker.image_uri"
    if image is None:
        return
    region, machine = (
        request.location_of(job)["region"],
        instances.find_instance(instances.choose_instance_type(job)),
    )
    if job.spec.sagemaker.image_uri is None:
        field = "sagemaker.pytorch_version"
    if image.region != region:
        message = f"the image is in {image.region}, the job in {region}"
        fix = f"use one in {region}, or copy it there: SageMaker pulls within one Region."
        yield finding("WrongRegion", field, message, fix)
    if image.is_torch_too_old:
        message = (
            f"the image has PyTorch {image.torch_version}; the trainer needs {images.TORCH_MIN}"
        )
        yield finding("ImageTooOld", field, message, f"use PyTorch {images.TORCH_MIN} or newer.")
    if image.is_cpu_only and machine is not None and machine.gpus:
        message = f"the image is for instances without a GPU, and {machine.name} has one"
        yield finding("ImageWithoutGpu", field, message, "use the -gpu- image of that version.")


def _check_weights(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    model = trained_model(job)
    if model is None or weights.list_weight_files(model):
        return
    name = weights.find_hub_id(model)
    field = "local.model" if job.spec.local.model else "base_model"
    trained = next((one.job for one in model.weights if one.kind == "job"), None)
    if trained is not None:
        message = (
            f"a job on SageMaker can't start from {trained}, which was trained on this machine"
        )
        fix = f"`cloudft export {trained} FOLDER`, and name that folder here."
        yield finding("TrainedJobHere", field, message, fix)
        return
    if name is None:
        message = f"the weights of {model.alias} are not on this machine, and no model hub has them"
        yield finding(
            "WeightsNotHere", field, message, "`cloudft models` shows where they come from."
        )
    else:
        message = f"the container downloads {name} from the hub"
        fix = "nothing to do for an open model; for a gated one, use a folder with its weights."
        yield finding("WeightsFromHub", field, message, fix, "warning")
