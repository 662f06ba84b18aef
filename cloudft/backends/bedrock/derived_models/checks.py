"""Check, before anything is sent, that Bedrock makes a model out of another one.

Source of the rules: catalogue/custom-model-copy.yaml, which names its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloudft.aws.arn import parse_arn
from cloudft.aws.request_validation import validate_request
from cloudft.backends.bedrock.derived_models.request import (
    MODEL_PACKAGE_PART,
    DerivedJob,
    copy_parameters,
    create_parameters,
)
from cloudft.backends.findings import FindingFactory
from cloudft.catalogue import load_copy_rules
from cloudft.types import Finding, Severity

NOVA = "amazon-nova"


def check_copy(derived: DerivedJob) -> Iterator[Finding]:
    """Yield what CreateModelCopyJob would refuse: the model, its Region, the request's form."""
    job, finding = derived.job, FindingFactory(derived.job)
    region = job.spec.bedrock.region
    # An endpoint of one's own may know Regions and models that AWS's tables lack.
    severity: Severity = "warning" if job.spec.bedrock.endpoint_url else "error"
    if region is None:
        fix = "add --region REGION: the Region to copy to."
        yield finding("MissingValue", "bedrock.region", "no Region to copy to is set", fix)
        return
    yield from _check_copy_region(derived, region, finding, severity)
    for problem in validate_request(
        "bedrock", "CreateModelCopyJob", copy_parameters(derived, job.spec.name, "0" * 32)
    ):
        yield finding("BadRequest", "bedrock", problem, "correct it.")


def _check_copy_region(
    derived: DerivedJob, region: str, finding: FindingFactory, severity: Severity
) -> Iterator[Finding]:
    rules, model = load_copy_rules(), derived.job.model
    supported = rules.copy_to.get(model.alias)
    if supported is None:
        listed = ", ".join(rules.copy_to)
        message = (
            f"Bedrock copies no custom model of {model.alias}; it copies those of {listed}"
            f" ({rules.copy_source})"
        )
        fix = f"train in {region} if it offers {model.alias}, or serve the model where it is."
        yield finding("CopyNotSupported", "base_model", message, fix, severity)
    elif region not in supported:
        message = (
            f"a custom model of {model.alias} is copied to {', '.join(supported)}, not to {region}"
            f" ({rules.copy_source})"
        )
        yield finding("CopyRegion", "bedrock.region", message, "choose another --region.", severity)
    is_distilled = derived.job.spec.customization_type == "DISTILLATION"
    if is_distilled and model.family in rules.distilled_unsure:
        message = (
            "a distilled Nova may be refused by a copy to another Region: one source says so"
            f" ({rules.distilled_source})"
        )
        fix = "nothing to do: a refused copy costs nothing. Train the student there if it fails."
        yield finding("CopyDistilled", "customization_type", message, fix, "warning")


def check_create(derived: DerivedJob) -> Iterator[Finding]:
    """Yield what CreateCustomModel would refuse: the base model, the role, the request's form.

    Source: Bedrock API reference, "CreateCustomModel": only Nova models trained in SageMaker.
    """
    job, finding = derived.job, FindingFactory(derived.job)
    spec = job.spec.bedrock
    if job.model.family != NOVA:
        message = f"CreateCustomModel takes Nova models of SageMaker, and {job.model.alias} is none"
        fix = "open weights are imported: `cloudft import --from s3://BUCKET/FOLDER/`."
        yield finding("CreateNotSupported", "base_model", message, fix)
    if spec.region is None:
        fix = "set --region or AWS_REGION to the Region of the model's artifacts."
        yield finding("MissingValue", "bedrock.region", "no AWS Region is set", fix)
        return
    is_package = MODEL_PACKAGE_PART in derived.source
    if not is_package and (spec.import_role_arn or spec.role_arn) is None:
        fix = "add --set bedrock.import_role_arn=ARN of a role that Bedrock may assume."
        message = "no role is set that reads the artifacts"
        yield finding("MissingValue", "bedrock.import_role_arn", message, fix)
        return
    if is_package and parse_arn(derived.source).region != spec.region:
        message = f"the model package is in {parse_arn(derived.source).region}, not {spec.region}"
        fix = f"add --region {parse_arn(derived.source).region}."
        yield finding("CreateRegion", "bedrock.region", message, fix)
    if spec.kms_key_id is not None and ":key/" not in spec.kms_key_id:
        message = "CreateCustomModel takes a key's ARN alone, no alias and no id"
        yield finding("BadRequest", "bedrock.kms_key_id", message, "write the ARN of the key.")
        return
    for problem in validate_request(
        "bedrock", "CreateCustomModel", create_parameters(derived, job.spec.name, "0" * 32)
    ):
        yield finding("BadRequest", "bedrock", problem, "correct it.")
