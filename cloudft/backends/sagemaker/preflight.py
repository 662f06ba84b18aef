"""Everything that can be known before a job is submitted to SageMaker."""

from __future__ import annotations

from collections.abc import Iterator

from cloudft.aws.client import Aws
from cloudft.backends.notes import Notes
from cloudft.backends.sagemaker import account, images, instances, request, weights
from cloudft.spec.fields import TRAINED_HERE
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

OF_THE_TRAINER = {
    *("NotLocal", "NoLocalModel", "MaxLengthOverContext", "NoTokenizer"),
    *("HyperparameterNotLocal", "SlowLearningRate"),
}
"""Findings of the local trainer that hold wherever it runs; the others are about this machine."""
SERVERLESS = (
    "SageMaker's serverless customization (CreateTrainingJob with ServerlessJobConfig) does: SFT,"
    " DPO, RLVR and RLAIF on models of its hub; continued pre-training it does not"
)
CLOSED = {"amazon-nova", "amazon-titan", "anthropic-claude", "cohere-command"}
"""Families whose weights nobody is given."""


def findings(job: LoadedJob, aws: Aws, trainers: list[Finding]) -> list[Finding]:
    """Off line first, with what the trainer says of the job; then the account's own word."""
    note = Notes(job)
    found = [finding for finding in trainers if finding.code in OF_THE_TRAINER]
    found += [*_kind(job, note), *_settings(job, note), *_machine(job, note), *_weights(job, note)]
    if any(finding.severity == "error" for finding in found):
        return found
    return [*found, *account.findings(job, aws, note)]


def _kind(job: LoadedJob, note: Notes) -> Iterator[Finding]:
    """Where SageMaker has something of its own that fits better, it is named."""
    kind = job.spec.customization_type
    if kind not in TRAINED_HERE:
        fix = f"submit with --backend bedrock; or {SERVERLESS}."
        yield note("NotOnSageMaker", "customization_type", f"{kind} is not trained so", fix)
    elif job.spec.local.model is None and job.model.family in CLOSED:
        message = f"the weights of {job.model.alias} can't be had, so no container trains them"
        fix = "submit with --backend bedrock; or name an open stand-in, local.model; or"
        fix += f" {SERVERLESS}."
        yield note("ServerlessServes", "base_model", message, fix, "warning")


def _settings(job: LoadedJob, note: Notes) -> Iterator[Finding]:
    spec = job.spec.sagemaker
    if request.place_of(job)["region"] is None:
        fix = "set sagemaker.region, --region or AWS_REGION."
        yield note("MissingValue", "sagemaker.region", "no AWS Region is named", fix)
    if spec.role_arn is None:
        fix = "set sagemaker.role_arn to a role that sagemaker.amazonaws.com may assume."
        yield note("MissingValue", "sagemaker.role_arn", "no execution role is named", fix)
    if spec.s3_uri is None:
        fix = "set sagemaker.s3_uri: s3://BUCKET/PREFIX, in the job's Region."
        yield note("MissingValue", "sagemaker.s3_uri", "no place in S3 is named", fix)
    if spec.image_uri is None and not images.sdk_is_here():
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
    elif spec.max_wait_seconds is not None and spec.max_wait_seconds < request.max_runtime(job):
        message = f"waiting ({spec.max_wait_seconds} s) is shorter than running"
        fix = f"set it to {request.max_runtime(job)} or more."
        yield note("OutOfRange", "sagemaker.max_wait_seconds", message, fix)
    if spec.spot and spec.keep_alive_seconds:
        message = "a spot machine can't be kept warm"
        yield note("BadRequest", "sagemaker.keep_alive_seconds", message, "leave one of them out.")
    if spec.network_isolation and not weights_are_sent(job):
        message = "without a network the container can't download the weights"
        fix = "name a folder with the weights as base_model (or local.model)."
        yield note("NoNetwork", "sagemaker.network_isolation", message, fix)


def weights_are_sent(job: LoadedJob) -> bool:
    """True when the model's files are on this machine and go with the job."""
    model = instances.trained(job)
    return model is None or bool(weights.files(model))


def _machine(job: LoadedJob, note: Notes) -> Iterator[Finding]:
    spec, name = job.spec.sagemaker, instances.choice(job)
    field = "sagemaker.instance_type"
    if name is None and instances.trained(job) is not None:
        wanted = instances.need(job)
        message = "how large the model is, is not known here"
        if wanted is not None:
            message = f"no known machine has a GPU with {wanted / 2**30:.0f} GiB"
        yield note("NoInstance", field, message, "name sagemaker.instance_type.")
        return
    known, wanted = instances.known(name), instances.need(job)
    if known and wanted and spec.instance_type and known.gpus and known.gpu_bytes < wanted:
        message = f"a GPU of {name} has {known.gib} GiB; the job wants some {wanted / 2**30:.0f}"
        fix = "take a larger one, or `method: qlora`; leave instance_type out to have one chosen."
        yield note("InstanceSmall", field, message, fix, "warning")
    if known and known.gpus == 0:
        message = f"{name} has no GPU: training there is slow"
        yield note("NoGpu", field, message, "take ml.g5.xlarge, say.", "warning")
    processes = max(1, known.gpus if known else 1) * spec.instance_count
    batch = {**job.spec.hyperparameters, **job.spec.local.hyperparameters}.get("batchSize")
    if batch is not None and processes > batch:  # a default is the trainer's to refuse
        message = f"{processes} GPUs or machines share batches of {batch}: some would be idle"
        yield note("GpusIdle", field, message, "take fewer of them, or raise batchSize.")


def _weights(job: LoadedJob, note: Notes) -> Iterator[Finding]:
    model = instances.trained(job)
    if model is None or weights.files(model):
        return
    name = weights.hub_id(model)
    field = "local.model" if job.spec.local.model else "base_model"
    if name is None:
        message = f"the weights of {model.alias} are not on this machine, and no hub has them"
        yield note("WeightsNotHere", field, message, "`cloudft models` says where they come from.")
    else:
        message = f"the container downloads {name} from the hub"
        fix = "none is needed for an open model; a gated one: name a folder with its weights."
        yield note("WeightsFromHub", field, message, fix, "warning")
