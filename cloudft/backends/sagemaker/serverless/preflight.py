"""Check a serverless job before it is submitted: offline first, then hub, group and account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloudft.aws.aws_cli import aws_cli_command
from cloudft.aws.client import Aws
from cloudft.aws.request_validation import validate_request
from cloudft.backends.aws_base import account_checks as shared_checks
from cloudft.backends.aws_base import request_checks
from cloudft.backends.aws_base.account_checks import MakeFinding
from cloudft.backends.base import with_placeholder_data
from cloudft.backends.findings import FindingFactory, serverless_hint
from cloudft.backends.sagemaker import account_checks, request, request_guard
from cloudft.backends.sagemaker.required_values import check_required_values
from cloudft.backends.sagemaker.serverless import hub
from cloudft.backends.sagemaker.serverless import request as serverless
from cloudft.catalogue import CUSTOMIZATION_TYPES
from cloudft.errors import BadDocument, CloudRefused, ResourceNotFound
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding, Severity, validation_set_of

SECTION = "sagemaker.serverless"
MACHINE_FIELDS = (
    *("instance_type", "instance_count", "image_uri", "pytorch_version", "spot"),
    *("max_wait_seconds", "keep_alive_seconds", "volume_gb", "network_isolation"),
)
"""Fields of the section that say something of a machine: a serverless job has none."""
LENGTHS = {"max_epochs", "max_steps"}
"""Hyperparameters of recipes that say how long to train: Amazon Nova 2's count steps."""
REQUEST_FIELDS = {
    "TrainingJobName": "name",
    "RoleArn": "sagemaker.role_arn",
    "HyperParameters": f"{SECTION}.hyperparameters",
    "InputDataConfig": "sagemaker.s3_uri",
    "OutputDataConfig.S3OutputPath": "sagemaker.s3_uri",
    "OutputDataConfig.KmsKeyId": "sagemaker.kms_key_id",
    "StoppingCondition.MaxRuntimeInSeconds": "sagemaker.max_runtime_seconds",
    "ServerlessJobConfig.BaseModelArn": f"{SECTION}.model",
    "ServerlessJobConfig.SequenceLength": f"{SECTION}.sequence_length",
    "ModelPackageConfig": f"{SECTION}.model_package_group",
    "MlflowConfig": f"{SECTION}.mlflow_arn",
    "VpcConfig.Subnets": "sagemaker.vpc.subnet_ids",
    "VpcConfig.SecurityGroupIds": "sagemaker.vpc.security_group_ids",
    "Tags": "tags",
}
"""Member of the request -> the field of the job file that it is made from."""


def check_job(job: LoadedJob, aws: Aws) -> list[Finding]:
    """Return the findings about a serverless job: the job file's, then the account's."""
    finding = FindingFactory(job)
    named = "sagemaker" if job.spec.sagemaker.profile else "bedrock"
    findings = [
        *_check_type(job, finding),
        *_check_settings(job, finding),
        *_check_model(job, finding),
        *_check_hyperparameters(job, finding),
        *_check_exports(job, finding),
        *request_checks.check_profile_configured(aws.location, f"{named}.profile", finding),
    ]
    if any(one.severity == "error" for one in findings):
        return findings
    findings += _check_request(job, finding)
    if any(one.severity == "error" for one in findings):
        return findings
    findings += shared_checks.run_checks(
        (
            ("the model in the hub", f"{SECTION}.model", _check_hub),
            ("the model package group", f"{SECTION}.model_package_group", _check_group),
        ),
        job,
        aws,
        finding,
    )
    return [*findings, *account_checks.check_account(job, aws, finding)]


def _check_exports(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    """Yield a warning for runtimes that shall run the model, whose configuration is not here."""
    if job.spec.export is not None:
        message = "what runtimes would read is not known before SageMaker has merged the model"
        fix = "name the runtime to `cloudft export JOB DIR`, with --for, when the job has ended."
        yield finding("CouldNotCheck", "export.for", message, fix, "warning")


def _check_type(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    kind = job.spec.customization_type
    if serverless.TECHNIQUE in CUSTOMIZATION_TYPES[kind].sagemaker_techniques:
        return
    message = f"cloudft starts serverless jobs of FINE_TUNING (SFT) alone, not of {kind}"
    fix = "set `customization_type: FINE_TUNING`, or use another backend."
    yield finding("NotOnSageMaker", "customization_type", message, fix)
    yield from serverless_hint(job, "customization_type", finding)


def _check_settings(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    spec = job.spec.sagemaker
    yield from check_required_values(job, finding)
    for name in MACHINE_FIELDS:
        # A default that is written out says nothing, and a serverless job does not differ from it.
        default = type(spec).model_fields[name].default
        if getattr(spec, name) != default:
            message = f"sagemaker.{name} has no meaning with {SECTION}: SageMaker has the machines"
            yield finding("UnusedValue", f"sagemaker.{name}", message, "remove one of them.")
    if any(validation_set_of(role) for role in with_placeholder_data(job).manifest.files):
        message = f"{SECTION} takes one validation set: SageMaker's jobs have one channel for it"
        yield finding("UnusedValue", "data.validation", message, "name one file or folder.")
    if job.spec.early_stopping is not None:
        message = f"early_stopping has no meaning with {SECTION}"
        yield finding("UnusedValue", "early_stopping", message, "remove it.")


def _check_model(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    name, listed = serverless.hub_content(job), serverless.hub_model(job)
    field, region = f"{SECTION}.model", request.location_of(job)["region"]
    if name is None:
        message = f"no source here says that SageMaker's hub has {job.model.alias} to tune"
        fix = f"set {field} to the name of its content in {serverless.HUB}"
        yield finding("NoHubModel", field, message, f"{fix}, or train without {SECTION}.")
        return
    if listed is None:
        return  # newer than the catalogue: the hub itself is looked at
    method = serverless.serverless_of(job).method
    able = listed.lora if method == "lora" else listed.full
    if listed.techniques and serverless.TECHNIQUE not in able:
        message = f"{name} has no {serverless.TECHNIQUE} of method {method} ({listed.source})"
        yield finding("NoRecipe", f"{SECTION}.method", message, "set the other method.")
    if region and region not in listed.regions:
        message = f"{name} is tuned in {', '.join(listed.regions)} ({listed.regions_source})"
        # An endpoint of one's own may offer any model in any Region.
        at_home = request.location_of(job)["endpoint_url"] is not None
        severity: Severity = "warning" if at_home else "error"
        fix = f"set sagemaker.region: {listed.regions[0]}, with a bucket there."
        yield finding("RegionUnsupported", "sagemaker.region", message, fix, severity)


def _check_hyperparameters(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    own = serverless.serverless_of(job).hyperparameters
    if not LENGTHS & set(serverless.resolve_hyperparameters(job)):
        message = "how long to train is not set: recipes differ in it, and it decides the price"
        fix = f"set hyperparameters.epochCount, or {SECTION}.hyperparameters.max_steps"
        fix += " for a recipe that counts steps."
        yield finding("MissingValue", "hyperparameters.epochCount", message, fix)
    for name in job.spec.hyperparameters:
        field = f"hyperparameters.{name}"
        target = serverless.RECIPE_NAMES.get(name)
        if target is None:
            message = f"SageMaker's recipes have no {name}"
            fix = f"remove it, or set what you mean in {SECTION}.hyperparameters."
            yield finding("UnusedValue", field, message, fix)
        elif target in own:
            message = f"{field} and {SECTION}.hyperparameters.{target} set the same value"
            yield finding("BadValue", field, message, "keep one of the two.")


def _check_request(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    parameters = serverless.create_request(with_placeholder_data(job))
    for problem in validate_request("sagemaker", "CreateTrainingJob", parameters):
        field = request_checks.field_for_member(problem, REQUEST_FIELDS, "sagemaker")
        yield finding("BadRequest", field, problem, f"correct {field}.")
    for missing in request_guard.find_missing(job.spec, parameters):
        yield finding("BadRequest", missing.field, missing.message, request_guard.FIX)


def _check_hub(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    """Check that the hub has the model, with a recipe for what the job wants."""
    name, section = str(serverless.hub_content(job)), serverless.serverless_of(job)
    field, region = f"{SECTION}.model", aws.location.region
    try:
        document = hub.read_document(aws, name)
    except CloudRefused as error:
        if not hub.is_missing(error):
            raise
        message = f"{serverless.HUB} in {region} has no model {name}"
        command = aws_cli_command(aws, "sagemaker", "list-hub-contents")
        fix = f"`{command} --hub-name {serverless.HUB} --hub-content-type Model` lists them."
        yield finding("NoHubModel", field, message, fix)
        return
    except BadDocument as error:
        yield finding("CouldNotCheck", field, error.message, error.fix or "", "warning")
        return
    if document.gated_bucket and not section.accept_eula:
        message = f"{name} has a license to accept"
        fix = f"read it in the hub, then set {SECTION}.accept_eula: true."
        yield finding("EulaNotAccepted", f"{SECTION}.accept_eula", message, fix)
    peft = "LORA" if section.method == "lora" else None
    length = section.sequence_length
    recipes = hub.matching_recipes(document, serverless.TECHNIQUE, peft, length)
    if not recipes:
        yield _missing_recipe(document, job, finding)
        return
    yield from _check_values(job, hub.read_settings(aws, recipes[0]), finding)


def _missing_recipe(document: hub.HubDocument, job: LoadedJob, finding: MakeFinding) -> Finding:
    section, name = serverless.serverless_of(job), serverless.hub_content(job)
    peft = "LORA" if section.method == "lora" else None
    others = hub.matching_recipes(document, serverless.TECHNIQUE, peft, None)
    lengths = sorted({recipe.sequence_length for recipe in others if recipe.sequence_length})
    if others and section.sequence_length:
        message = f"{name} has no recipe for records of {section.sequence_length} tokens"
        fix = f"take one of {', '.join(lengths)}, or leave it out."
        return finding("NoRecipe", f"{SECTION}.sequence_length", message, fix)
    message = f"{name} has no recipe for {serverless.TECHNIQUE} of method {section.method}"
    return finding("NoRecipe", f"{SECTION}.method", message, "set the other method or model.")


def _check_values(
    job: LoadedJob, settings: Mapping[str, hub.Setting], finding: MakeFinding
) -> Iterator[Finding]:
    """Compare the hyperparameters with the recipe's own list of them, where it has one."""
    fields = {target: f"hyperparameters.{name}" for name, target in serverless.RECIPE_NAMES.items()}
    for name, text in serverless.resolve_hyperparameters(job).items() if settings else ():
        given = name not in serverless.serverless_of(job).hyperparameters
        field = fields.get(name, SECTION) if given else f"{SECTION}.hyperparameters.{name}"
        row = settings.get(name)
        if row is None:
            message = f"the recipe has no hyperparameter {name} (it has: {', '.join(settings)})"
            severity: Severity = "warning" if name == serverless.MERGE and given else "error"
            yield finding("UnknownHyperparameter", field, message, "remove it.", severity)
        elif why := _fault(row, text):
            message = f"{name} is {text}; the recipe takes {why}"
            yield finding("OutOfRange", field, message, f"give a value of {why}.")


def _fault(row: hub.Setting, text: str) -> str | None:
    """Return what a value should be, where it is something else."""
    if row.enum:
        return None if text in {str(one) for one in row.enum} else f"one of {row.enum}"
    if row.type not in ("integer", "float"):
        return None
    try:
        value = int(text) if row.type == "integer" else float(text)
    except ValueError:
        return f"a number of type {row.type}"
    low, high = row.min, row.max
    if (low is not None and value < low) or (high is not None and value > high):
        return f"{'' if low is None else f'{low:g} '}to {'any' if high is None else f'{high:g}'}"
    return None


def _check_group(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    """Check that the model package group exists: cloudft creates none."""
    arn = serverless.model_package_group_arn(job)
    name = arn.rpartition("/")[2]
    what = f"can't read the model package group {name}"
    try:
        aws.call(what, "sagemaker", "describe_model_package_group", ModelPackageGroupName=name)
    except CloudRefused as error:
        if not isinstance(error, ResourceNotFound) and "does not exist" not in error.message:
            raise
        message = f"there is no model package group {name}"
        command = aws_cli_command(aws, "sagemaker", "create-model-package-group")
        fix = f"`{command} --model-package-group-name {name}`, which costs nothing."
        yield finding("NoModelPackageGroup", f"{SECTION}.model_package_group", message, fix)
