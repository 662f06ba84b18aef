"""Read templates from requests, and describe and validate them (GetTemplateSummary and others).

Sources: CloudFormation API reference, "ValidateTemplate", "GetTemplateSummary" and "CreateStack"
(parameter `Capabilities`); user guide, "Quotas"; Amazon S3 user guide, "Virtual hosting of general
purpose buckets" (the addresses of objects).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote, urlsplit

from botocore.exceptions import ClientError

from cloudft.endpoint.clients import ClientFactory
from cloudft.endpoint.cloudformation.shapes import (
    StackRequest,
    TemplateSource,
    TemplateSummaryRequest,
)
from cloudft.endpoint.cloudformation.store import StackStore
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.infra.intrinsics import TemplateScope, list_references, sort_by_dependency
from cloudft.infra.template import (
    MAX_BODY_BYTES,
    TemplateNode,
    find_parameter_errors,
    parse_parameters,
    parse_template,
    to_text,
)

MAX_OBJECT_BYTES = 1_000_000
"""Largest template in a bucket, in bytes (CloudFormation user guide, "Quotas")."""
S3_HOST = re.compile(r"(?:(?P<bucket>.+)\.)?s3[.-](?:[a-z0-9-]+\.)*amazonaws\.com")
"""Host names of S3, with a bucket in front of them or not."""
NAME_PROPERTIES = {
    "AWS::IAM::Group": "GroupName",
    "AWS::IAM::InstanceProfile": "InstanceProfileName",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::IAM::Role": "RoleName",
    "AWS::IAM::User": "UserName",
}
"""IAM resources that may have a custom name, which needs CAPABILITY_NAMED_IAM."""
ACKNOWLEDGED_BY = {
    "CAPABILITY_IAM": {"CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"},
    "CAPABILITY_NAMED_IAM": {"CAPABILITY_NAMED_IAM"},
}
"""Required capability -> those of which a request needs one."""


class TemplateReader:
    """Reads templates of requests: from the body, or from a bucket of this endpoint."""

    def __init__(self, clients: ClientFactory) -> None:
        self._clients = clients

    def read(self, request: TemplateSource) -> str:
        """Return the template's text. Raises ServiceError (ValidationError)."""
        if ("TemplateBody" in request) == ("TemplateURL" in request):
            what = "Either Template URL or Template Body must be specified."
            raise ServiceError("ValidationError", what)
        if "TemplateURL" in request:
            return self._read_object(str(request["TemplateURL"]))
        text = str(request["TemplateBody"])
        if len(text.encode()) > MAX_BODY_BYTES:
            raise ServiceError(
                "ValidationError",
                "1 validation error detected: Value at 'templateBody' failed to satisfy constraint:"
                f" Member must have length less than or equal to {MAX_BODY_BYTES}",
            )
        return text

    def _read_object(self, url: str) -> str:
        bucket, key = split_object_url(url)
        try:
            response = self._clients("s3").get_object(Bucket=bucket, Key=key)
        except ClientError as error:
            reason = error.response["Error"].get("Message", "")
            raise ServiceError("ValidationError", f"S3 error: {reason}") from error
        content: bytes = response["Body"].read(MAX_OBJECT_BYTES + 1)
        if len(content) > MAX_OBJECT_BYTES:
            message = f"Template may not exceed {MAX_OBJECT_BYTES} bytes in size."
            raise ServiceError("ValidationError", message)
        return content.decode("utf-8", "replace")


def split_object_url(url: str) -> tuple[str, str]:
    """Return bucket and key of an object's address. Raises ServiceError (ValidationError).

    An address outside amazonaws.com is taken for this endpoint's own: nothing else is ever read.
    """
    parts = urlsplit(url)
    host = S3_HOST.fullmatch(parts.hostname or "")
    bucket, path = (host and host["bucket"]) or "", unquote(parts.path.removeprefix("/"))
    if not bucket:
        bucket, _, path = path.partition("/")
    if parts.scheme not in ("http", "https") or not (bucket and path):
        raise ServiceError("ValidationError", "TemplateURL must be a supported URL.")
    return bucket, path


def load_template(text: str) -> TemplateNode:
    """Return the parsed template. Raises ServiceError (ValidationError)."""
    try:
        template = parse_template(text)
        for section in ("Parameters", "Resources"):
            _require_types(template, section)
        if not isinstance(template.get("Description", ""), str):
            raise ValueError("[/Description] must be text")
    except ValueError as error:
        raise ServiceError("ValidationError", f"Template format error: {error}") from error
    return template


def _require_types(template: TemplateNode, section: str) -> None:
    """Raise ValueError unless each declaration of a section is a mapping with a `Type`."""
    declarations = template.get(section, {})
    if not isinstance(declarations, Mapping):
        raise ValueError(f"[/{section}] must be a mapping")
    for name, declaration in declarations.items():
        if not isinstance(declaration, Mapping) or not isinstance(declaration.get("Type"), str):
            raise ValueError(f"[/{section}/{name}] must be a mapping with a Type")
        if not isinstance(declaration.get("Properties", {}), Mapping):
            raise ValueError(f"[/{section}/{name}/Properties] must be a mapping")


def required_capabilities(resources: Iterable[TemplateNode]) -> tuple[list[str], str | None]:
    """Return the capabilities that resources need, and the reason as AWS words it."""
    found = list(resources)
    types = {r["Type"] for r in found if r["Type"].startswith("AWS::IAM::")}
    if not types:
        return [], None
    is_named = any(NAME_PROPERTIES.get(r["Type"]) in r.get("Properties", {}) for r in found)
    capability = "CAPABILITY_NAMED_IAM" if is_named else "CAPABILITY_IAM"
    reason = f"The following resource(s) require capabilities: [{', '.join(sorted(types))}]"
    return [capability], reason


def check_template(
    template: TemplateNode, values: Mapping[str, str], scope: TemplateScope, request: StackRequest
) -> None:
    """Raise ServiceError for parameters or capabilities that AWS would refuse, and for transforms.

    Raises ValueError and KeyError for a template that can't be resolved.
    """
    if "Transform" in template:
        raise ServiceError("ValidationError", "Transforms are not offered by this endpoint")
    problems = [*find_parameter_errors(template, values)] or [*scope.failed_rules()]
    if problems:
        raise ServiceError("ValidationError", "; ".join(problems))
    resources = scope.active_resources()
    sort_by_dependency(resources)
    known = {*template["Resources"], *scope.values, *scope.pseudo, "AWS::NoValue"}
    unresolved = {
        section: sorted({*list_references(content)} - known)
        for section, content in (("Resources", resources), ("Outputs", template.get("Outputs")))
    }
    for section, names in unresolved.items():
        if names:
            where = f"[{', '.join(names)}] in the {section} block of the template"
            raise ValueError(f"Unresolved resource dependencies {where}")
    needed, _ = required_capabilities(resources.values())
    given = set(request.get("Capabilities", ()))
    if missing := [name for name in needed if not ACKNOWLEDGED_BY[name] & given]:
        message = f"Requires capabilities : [{', '.join(missing)}]"
        raise ServiceError("InsufficientCapabilitiesException", message)


class Templates:
    """Operations on templates."""

    def __init__(self, store: StackStore, reader: TemplateReader) -> None:
        self.store = store
        self.reader = reader

    def validate_template(self, request: TemplateSource) -> Response:
        """Return a template's parameters and the capabilities that it needs."""
        template = load_template(self.reader.read(request))
        members = ("ParameterKey", "DefaultValue", "NoEcho", "Description")
        parameters = [
            {name: item.get(name) for name in members} for item in _describe_parameters(template)
        ]
        return {**_describe(template), "Parameters": parameters}

    def get_template_summary(self, request: TemplateSummaryRequest) -> Response:
        """Return the parameters, resource types and capabilities of a template or of a stack's."""
        if "StackSetName" in request:
            raise ServiceError("ValidationError", "Stack sets are not offered by this endpoint")
        if "StackName" in request:
            with self.store.state.lock:
                text = self.store.require_stack(request["StackName"]).template
        else:
            text = self.reader.read(request)
        template = load_template(text or "Resources: {}")
        types = {resource["Type"] for resource in template["Resources"].values()}
        return {
            **_describe(template),
            "Parameters": _describe_parameters(template),
            "ResourceTypes": sorted(types),
            "Version": template.get("AWSTemplateFormatVersion"),
        }


def _describe(template: TemplateNode) -> Response:
    capabilities, reason = required_capabilities(template["Resources"].values())
    transforms = template.get("Transform", [])
    return {
        "Description": template.get("Description"),
        "Capabilities": capabilities,
        "CapabilitiesReason": reason,
        "DeclaredTransforms": [transforms] if isinstance(transforms, str) else transforms,
    }


def _describe_parameters(template: TemplateNode) -> list[Response]:
    return [
        {
            "ParameterKey": parameter.name,
            "DefaultValue": parameter.default,
            "ParameterType": parameter.type,
            "NoEcho": to_text(parameter.declaration.get("NoEcho", False)).lower() == "true",
            "Description": parameter.description or None,
            "ParameterConstraints": {
                "AllowedValues": [*map(to_text, parameter.declaration.get("AllowedValues", ()))]
            },
        }
        for parameter in parse_parameters(template).values()
    ]
