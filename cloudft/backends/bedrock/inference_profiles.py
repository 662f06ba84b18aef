"""Inference profiles of an account: which one a base model is called by, and what that needs.

Source: Bedrock user guide, "Prerequisites for inference profiles", "Geographic cross-Region
inference", "Global cross-Region inference" and "Model customization access and security", 2026-10.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from cloudft import catalogue
from cloudft.aws.client import Aws
from cloudft.aws.permissions import ArnContext, RequiredPermission
from cloudft.catalogue.profile_ids import AREAS, GLOBAL, IN_REGION, SYSTEM, parse_profile
from cloudft.errors import CloudRefused, CloudUnreachable, UsageError

INVOKE = "bedrock:InvokeModel"
INVOKE_STREAM = "bedrock:InvokeModelWithResponseStream"
"""The action of ConverseStream. Without it, answers arrive whole."""
"""The action of InvokeModel and of Converse."""
PROFILE_CONDITION = "bedrock:InferenceProfileArn"
"""Condition key of a request to a model that comes through a profile."""


class ProfileModel(TypedDict):
    """A model of a profile in one Region."""

    modelArn: str


class ProfileSummary(TypedDict):
    """A profile, as ListInferenceProfiles returns it."""

    inferenceProfileId: str
    inferenceProfileArn: str
    models: list[ProfileModel]
    status: str


@dataclass(frozen=True)
class ChosenModelId:
    """The id that a base model is called by; `notes` are what people should know about it."""

    id: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProfileArnContext(ArnContext):
    """A job's ARN context, with the ARNs of each profile's models where they could be read."""

    profile_models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def requested_profile(spec: Mapping[str, object]) -> str | None:
    """Return the profile that a job file requests for its base model: an area, an id or an ARN.

    `bedrock.inference_profile` wins over a `base_model` that is the id or ARN of a profile.
    """
    section, name = spec.get("bedrock"), str(spec.get("base_model") or "")
    requested = section.get("inference_profile") if isinstance(section, Mapping) else None
    if requested:
        return str(requested)
    return name if parse_profile(name) is not None else None


def named_model_id(identifier: str, requested: str) -> str:
    """Return the id or ARN that a request for a profile means for a base model."""
    if requested == IN_REGION:
        return catalogue.on_demand_id(identifier)
    return catalogue.profile_id(requested, identifier) if requested in AREAS else requested


def expected_model_id(model: catalogue.Model, region: str | None, requested: str | None) -> str:
    """Return the id that a base model is called by, as far as that is known without AWS."""
    identifier = model.bedrock_id or model.alias
    if requested is not None:
        return named_model_id(identifier, requested)
    return catalogue.inference_id(identifier, region or "")


def choose_model_id(
    aws: Aws, identifier: str, region: str, requested: str | None = None
) -> ChosenModelId:
    """Return the id to call a base model by in a Region.

    It is what is requested; else the model's own id where the Region answers to it; else the
    nearest profile of the account's list, or of the catalogue where the list can't be read. Raise
    UsageError where there is none, and for a requested profile of another model.
    """
    own = catalogue.on_demand_id(identifier)
    if requested is not None:
        chosen = named_model_id(own, requested)
        _require_same_model(own, chosen)
        return ChosenModelId(chosen)
    model = catalogue.find_catalogue_model(own)
    if model is None or catalogue.answers_in_region(model, region):
        return ChosenModelId(own)
    try:
        ids = _list_profile_ids(aws, own)
    except (CloudRefused, CloudUnreachable) as error:
        return _by_catalogue(model, own, region, error)
    if not ids:
        raise _no_profile_error(model, own, region, _application_profiles(aws, own))
    return _with_routing_note(min(ids, key=lambda one: _distance(one, region)))


def _require_same_model(own: str, chosen: str) -> None:
    """Raise UsageError for a profile that is named after another model than the base model."""
    profile = parse_profile(chosen)
    if profile is not None and profile.model not in ("", own):
        raise UsageError(
            f"the inference profile {chosen} is of {profile.model}, and the base model is {own}",
            field="bedrock.inference_profile",
            fix=f"name a profile of {own}, or an area such as us or global.",
        )


def _list_profile_ids(aws: Aws, own: str) -> list[str]:
    """Return the ids of the profiles that Bedrock defines for a model and that can be called."""
    return [one["inferenceProfileId"] for one in _list_profiles(aws, own, "SYSTEM_DEFINED")]


def _list_profiles(aws: Aws, own: str, kind: str) -> Iterator[ProfileSummary]:
    failure, operation = "can't list the inference profiles", "list_inference_profiles"
    profiles: Iterator[ProfileSummary] = aws.paginate(
        failure, "bedrock", operation, "inferenceProfileSummaries", typeEquals=kind, maxResults=100
    )
    for profile in profiles:
        models = {model["modelArn"].rpartition("/")[2] for model in profile["models"]}
        if own in models and profile["status"] == "ACTIVE":
            yield profile


def _distance(identifier: str, region: str) -> tuple[int, str]:
    """Return the order of a profile for a Region: near areas, then unknown ones, then `global`."""
    profile, areas = parse_profile(identifier), catalogue.profile_areas(region)
    area = profile.area if profile else ""
    if area == GLOBAL:
        return len(areas) + 1, identifier
    return (areas.index(area) if area in areas else len(areas)), identifier


def _with_routing_note(identifier: str, *notes: str) -> ChosenModelId:
    """Return a profile, with a note if it may send requests to any Region."""
    if not identifier.startswith(f"{GLOBAL}."):
        return ChosenModelId(identifier, notes)
    routing = (
        f"the base model is called by {identifier}, the only profile here: requests may be"
        " processed in any commercial Region"
    )
    return ChosenModelId(identifier, (*notes, routing))


def _by_catalogue(
    model: catalogue.Model, own: str, region: str, error: CloudRefused | CloudUnreachable
) -> ChosenModelId:
    """Return the nearest profile of the catalogue, where the account's list can't be read."""
    areas = catalogue.callable_areas(model, region)
    if not areas:
        raise _no_profile_error(model, own, region, (), unread=error.message)
    identifier = catalogue.profile_id(areas[0], own)
    return _with_routing_note(
        identifier,
        f"{error.message}; the base model is called by {identifier}, as the catalogue says",
    )


def _application_profiles(aws: Aws, own: str) -> list[str]:
    """Return the ARNs of the account's own profiles of a model; none where they can't be listed."""
    try:
        found = _list_profiles(aws, own, "APPLICATION")
        return [profile["inferenceProfileArn"] for profile in found]
    except (CloudRefused, CloudUnreachable):
        return []


def _no_profile_error(
    model: catalogue.Model, own: str, region: str, others: Sequence[str], unread: str = ""
) -> UsageError:
    """Return the error that names the profiles that exist, where none can be called in a Region."""
    known = [
        f"{catalogue.profile_id(area, own)} in {', '.join(regions) or 'its area'}"
        for area, regions in model.inference_profiles.items()
    ]
    in_regions = ", ".join(model.in_region or ())
    known += [f"{own} itself in {in_regions}"] if in_regions else []
    message = f"{own} does not answer in {region}, and no inference profile of it does"
    message += f" ({unread}; this is the catalogue's word)" if unread else ""
    message += f"; there are: {'; '.join(known) or 'none'}"
    fix = "set bedrock.region to one of these Regions, or name a profile: --inference-profile ARN."
    if others:
        fix = f"--inference-profile {others[0]} is this account's own: use it, or another Region."
    return UsageError(message, field="bedrock.inference_profile", fix=fix)


def read_profile_models(aws: Aws, identifier: str) -> tuple[str, ...]:
    """Return the ARNs of a profile's models: one for each Region that it sends requests to.

    Raise CloudRefused and CloudUnreachable.
    """
    failure, operation = f"can't read the inference profile {identifier}", "get_inference_profile"
    response = aws.call(failure, "bedrock", operation, inferenceProfileIdentifier=identifier)
    return tuple(str(model["modelArn"]) for model in response["models"])


def profile_arn(identifier: str, arns: ArnContext) -> str:
    """Return the ARN of a profile in the Region that it is called in."""
    return (
        identifier
        if identifier.startswith("arn:")
        else arns.arn("bedrock", f"{SYSTEM}/{identifier}")
    )


def invoke_permissions(
    identifier: str, arns: ArnContext, *, model: str = "", is_conditional: bool = False
) -> Iterator[RequiredPermission]:
    """Yield what an identity needs to invoke a model by its own id or ARN, or by a profile's.

    A profile needs the permission for itself and for its model in each Region that it sends
    requests to; where these could not be read, the statement is for the model in any Region.
    `model` is the model's id, which the name of an application profile lacks. `is_conditional`
    limits the model to requests through the profile, as AWS recommends for callers.
    """
    profile = parse_profile(identifier)
    if profile is None:
        own = arns.arn("bedrock", f"foundation-model/{identifier}", account=False)
        yield RequiredPermission(INVOKE, identifier if identifier.startswith("arn:") else own)
        return
    arn = profile_arn(identifier, arns)
    yield RequiredPermission(INVOKE, arn)
    context = {PROFILE_CONDITION: arn} if is_conditional else {}
    name = f"foundation-model/{profile.model or model}"
    any_region = f"arn:{arns.partition}:bedrock:*::{name}"
    read = arns.profile_models.get(identifier, ()) if isinstance(arns, ProfileArnContext) else ()
    resources = dict.fromkeys(read or (arns.arn("bedrock", name, account=False),))
    if profile.area == GLOBAL:  # a request that leaves the Region names none
        resources[f"arn:{arns.partition}:bedrock:::{name}"] = None
    for resource in resources:
        in_policy = "" if read else any_region
        yield RequiredPermission(INVOKE, resource, context, statement_resource=in_policy)
