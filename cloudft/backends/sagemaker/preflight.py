"""Everything that can be known before a job is submitted to SageMaker."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator

from cloudft.aws.client import Aws
from cloudft.aws.request_validation import load_service_model, validate_request
from cloudft.backends.aws_base import request_checks
from cloudft.backends.findings import FindingFactory
from cloudft.backends.sagemaker import account_checks, images, instances, request, weights
from cloudft.errors import UsageError
from cloudft.spec.fields import TRAINER_CUSTOMIZATION_TYPES
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

TRAINER_FINDINGS = {
    *("NotLocal", "MaxLengthOverContext", "NoTokenizer"),
    *("HyperparameterNotLocal", "SlowLearningRate", "NotSharded"),
}
"""Findings of the local trainer that hold wherever it runs; the others are about this machine."""
CUSTOMIZATION_GUIDE = "https://docs.aws.amazon.com/sagemaker/latest/dg/customize-model.html"
NOVA_GUIDE = "https://docs.aws.amazon.com/nova/latest/userguide/customization.html"
NEURON_PREFIXES = ("ml.trn", "ml.inf")
"""Types of machines with Trainium and Inferentia (local_backend/container/environment.py)."""
SERVERLESS = (
    "SageMaker's serverless customization (SFT, DPO, RLVR or RLAIF on models of its public hub;"
    " CreateTrainingJob with ServerlessJobConfig)"
)
"""The techniques are those of botocore's service model (1.44.5), which has no pre-training."""


def check_job(
    job: LoadedJob,
    aws: Aws,
    trainer_findings: list[Finding],
    make_inputs: Callable[[], request.TrainingJobInputs],
) -> list[Finding]:
    """Off line first, with what the trainer says of the job; then the account's own word.

    `asked` makes what the job's request is made from, of a job without a fault so far.
    """
    note = FindingFactory(job)
    found = [finding for finding in trainer_findings if finding.code in TRAINER_FINDINGS]
    found += [
        *_customization_type(job, note),
        *_check_settings(job, note),
        *_check_instance(job, note),
        *_check_weights(job, note),
    ]
    named = "sagemaker" if job.spec.sagemaker.profile else "bedrock"
    found += [
        *request_checks.check_profile_configured(aws.location, f"{named}.profile", note),
        *_check_regions(job, note),
    ]
    if _has_errors(found):
        return found
    try:
        made = make_inputs()
    except UsageError as error:  # of the SDK, asked for the image
        return [*found, note("NoImage", "sagemaker.image_uri", error.message, error.fix or "")]
    found += [*_check_request(job, made, note), *_check_image(job, made.image, note)]
    return (
        found
        if _has_errors(found)
        else [*found, *account_checks.check_account(job, aws, note, made.image)]
    )


def _check_regions(job: LoadedJob, note: FindingFactory) -> Iterator[Finding]:
    spec = job.spec.sagemaker
    keys = {
        "sagemaker.kms_key_id": spec.kms_key_id,
        "sagemaker.s3_kms_key_id": spec.s3_kms_key_id,
    }
    return request_checks.check_arn_regions(keys, request.location_of(job)["region"], note)


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


def _has_errors(found: list[Finding]) -> bool:
    return any(finding.severity == "error" for finding in found)


def _customization_type(job: LoadedJob, note: FindingFactory) -> Iterator[Finding]:
    """What no container of ours trains; where SageMaker has something of its own, it is named."""
    kind = job.spec.customization_type
    if kind not in TRAINER_CUSTOMIZATION_TYPES:
        fix = "submit with --backend bedrock."
        yield note("NotOnSageMaker", "customization_type", f"{kind} is not trained so", fix)
        if kind == "REINFORCEMENT_FINE_TUNING":
            yield _serverless_hint(note, "customization_type", "tunes some models with rewards")
    elif instances.trained_model(job) is None:
        message = f"the weights of {job.model.alias} can't be had, so no container trains them"
        fix = "submit with --backend bedrock; or name an open stand-in: `local: {model:"
        yield note("NoLocalModel", "local.model", message, f"{fix} smollm2-135m}}`.")
        if job.model.family == "amazon-nova" and kind == "FINE_TUNING":
            what = f"is for Amazon Nova, too, beside recipes in training jobs ({NOVA_GUIDE})"
            yield _serverless_hint(note, "base_model", what)


def _serverless_hint(note: FindingFactory, field: str, what: str) -> Finding:
    fix = (
        f"look whether its hub has your model ({CUSTOMIZATION_GUIDE}); cloudft starts no such jobs."
    )
    return note("ServerlessServes", field, f"{SERVERLESS} {what}", fix, "warning")


def _check_settings(job: LoadedJob, note: FindingFactory) -> Iterator[Finding]:
    spec = job.spec.sagemaker
    if request.location_of(job)["region"] is None:
        fix = "set sagemaker.region, --region or AWS_REGION."
        yield note("MissingValue", "sagemaker.region", "no AWS Region is named", fix)
    if spec.role_arn is None:
        fix = "set sagemaker.role_arn (sagemaker.amazonaws.com may assume it), or sagemaker.stack."
        yield note("MissingValue", "sagemaker.role_arn", "no execution role is named", fix)
    if spec.s3_uri is None:
        fix = "set sagemaker.s3_uri: s3://BUCKET/PREFIX, in the job's Region; or sagemaker.stack."
        yield note("MissingValue", "sagemaker.s3_uri", "no place in S3 is named", fix)
    if spec.image_uri is None and not images.is_sdk_installed():
        fix = "name sagemaker.image_uri, a PyTorch training image; or"
        fix += " pip install 'cloudft[sagemaker]', whose SDK knows the stock ones."
        yield note("NoImage", "sagemaker.image_uri", "no container image is known", fix)
    if spec.image_uri is not None and spec.pytorch_version is not None:
        message = "sagemaker.pytorch_version chooses no image beside sagemaker.image_uri"
        yield note("UnusedValue", "sagemaker.pytorch_version", message, "leave one of them out.")
    if spec.max_wait_seconds is not None and not spec.spot:
        message = "sagemaker.max_wait_seconds has no effect without spot"
        yield note(
            "UnusedValue", "sagemaker.max_wait_seconds", message, "set sagemaker.spot: true."
        )
    elif spec.max_wait_seconds is not None and spec.max_wait_seconds < request.max_runtime_seconds(
        job
    ):
        message = f"waiting ({spec.max_wait_seconds} s) is shorter than running"
        fix = f"set it to {request.max_runtime_seconds(job)} or more."
        yield note("OutOfRange", "sagemaker.max_wait_seconds", message, fix)
    if spec.spot and spec.keep_alive_seconds:
        message = "a spot machine can't be kept warm"
        yield note("BadRequest", "sagemaker.keep_alive_seconds", message, "leave one of them out.")
    if spec.vpc is not None and not spec.network_isolation:
        message = "the container installs from PyPI what its image lacks of the trainer's packages"
        fix = "let the network have a way there, or the image have them (docs/how-to/train-on-sagemaker.md)."
        yield note("NetworkOfItsOwn", "sagemaker.vpc", message, fix, "warning")
    if spec.network_isolation and not uploads_weights(job):
        message = "without a network the container can't download the weights"
        fix = "name a folder with the weights as base_model (or local.model)."
        yield note("NoNetwork", "sagemaker.network_isolation", message, fix)


def uploads_weights(job: LoadedJob) -> bool:
    """True when the model's files are on this machine and go with the job."""
    model = instances.trained_model(job)
    return model is None or bool(weights.list_weight_files(model))


def _check_instance(job: LoadedJob, note: FindingFactory) -> Iterator[Finding]:
    spec, name = job.spec.sagemaker, instances.choose_instance_type(job)
    field = "sagemaker.instance_type"
    if name is None and instances.trained_model(job) is not None:
        wanted = instances.required_gpu_bytes(job)
        message = "how large the model is, is not known here"
        if wanted is not None:
            message = f"no known machine has a GPU with {wanted / 2**30:.0f} GiB"
        yield note("NoInstance", field, message, "name sagemaker.instance_type.")
        if wanted is not None and job.spec.customization_type == "FINE_TUNING":
            yield _serverless_hint(note, field, "needs no machine of yours")
        return
    yield from _check_instance_type(name, note)
    known, processes = instances.find_instance(name), instances.count_processes(job)
    wanted = instances.required_gpu_bytes(job, processes if job.spec.local.fsdp else 1)
    if job.spec.local.fsdp is True and known and processes == 1:
        message = f"local.fsdp shards the model over several GPUs, and one {name} has one"
        yield note("OneProcess", "local.fsdp", message, "take more of them, or leave it out.")
    if known and wanted and spec.instance_type and known.gpus and known.gpu_bytes < wanted:
        message = f"a GPU of {name} has {known.gib} GiB; the job wants some {wanted / 2**30:.0f}"
        fix = "take a larger one, or `method: qlora`; leave instance_type out to have one chosen."
        yield note("InstanceSmall", field, message, fix, "warning")
    if known and known.gpus == 0 and job.spec.local.method == "qlora":
        message = f"local.method is qlora: 4-bit weights need a GPU, and {name} has none"
        yield note("NoGpu", field, message, "take ml.g5.xlarge, say; or `method: lora`.")
    elif known and known.gpus == 0:
        message = f"{name} has no GPU: training there is slow"
        yield note("NoGpu", field, message, "take ml.g5.xlarge, say.", "warning")


def _check_instance_type(name: str | None, note: FindingFactory) -> Iterator[Finding]:
    """A machine that the API does not know, or whose chips the trainer does not."""
    known = load_service_model("sagemaker").shape_for("TrainingInstanceType").enum
    if name is not None and name.startswith(NEURON_PREFIXES):
        message = f"{name} has AWS's own accelerators: the trainer would run on its CPU"
        fix = "take a machine with NVIDIA GPUs, ml.g5.2xlarge, say."
        yield note("NoGpu", "sagemaker.instance_type", message, fix)
    if name is None or name in known:
        return
    near = difflib.get_close_matches(name, known, 1, 0.8)
    fix = f"did you mean {near[0]}?" if near else "take ml.g5.2xlarge, say."
    fix += " (A type that is newer than this boto3 needs a newer one.)"
    message = f"SageMaker has no training instance {name}"
    yield note("NoSuchInstance", "sagemaker.instance_type", message, fix)


def _check_request(
    job: LoadedJob, asked: request.TrainingJobInputs, note: FindingFactory
) -> Iterator[Finding]:
    """The request itself against the service model; and whether each GPU gets a record."""
    for problem in validate_request(
        "sagemaker", "CreateTrainingJob", request.create_request(asked)
    ):
        field = request_checks.field_for_member(problem, REQUEST_FIELDS, "sagemaker")
        yield note("BadRequest", field, problem, f"correct {field}.")
    processes, batch = instances.count_processes(job), asked.trainer["hyperParameters"]["batchSize"]
    if processes > batch:
        message = f"{processes} GPUs or machines share batches of {batch}: some would be idle"
        fix = "take fewer of them, or raise batchSize."
        yield note("GpusIdle", "sagemaker.instance_type", message, fix)


def _check_image(job: LoadedJob, uri: str, note: FindingFactory) -> Iterator[Finding]:
    """What the image's URI tells: its Region, its PyTorch, whether it is for machines with GPUs."""
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
        fix = f"name one in {region}, or copy it there: SageMaker pulls within one Region."
        yield note("WrongRegion", field, message, fix)
    if image.is_torch_too_old:
        message = (
            f"the image has PyTorch {image.torch_version}; the trainer needs {images.TORCH_MIN}"
        )
        yield note("ImageTooOld", field, message, f"take PyTorch {images.TORCH_MIN} or newer.")
    if image.is_cpu_only and machine is not None and machine.gpus:
        message = f"the image is for machines without a GPU, and {machine.name} has one"
        yield note("ImageWithoutGpu", field, message, "take the -gpu- image of that version.")


def _check_weights(job: LoadedJob, note: FindingFactory) -> Iterator[Finding]:
    model = instances.trained_model(job)
    if model is None or weights.list_weight_files(model):
        return
    name = weights.find_hub_id(model)
    field = "local.model" if job.spec.local.model else "base_model"
    if name is None:
        message = f"the weights of {model.alias} are not on this machine, and no hub has them"
        yield note("WeightsNotHere", field, message, "`cloudft models` says where they come from.")
    else:
        message = f"the container downloads {name} from the hub"
        fix = "none is needed for an open model; a gated one: name a folder with its weights."
        yield note("WeightsFromHub", field, message, fix, "warning")
