"""A customization type is a row of a table: spec, check, plan and permissions follow it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import tiny
import yaml
from pydantic import Field

from cloudft.aws.permissions import ArnContext, RequiredPermission
from cloudft.backends.base import with_placeholder_data
from cloudft.backends.bedrock import customizations, request
from cloudft.backends.bedrock.customizations import CUSTOMIZATIONS, Customization
from cloudft.backends.bedrock.preflight import REQUEST_FIELDS, check_offline
from cloudft.backends.bedrock.required_permissions import role_permissions
from cloudft.catalogue import CUSTOMIZATION_TYPES, CustomizationType, find, find_model
from cloudft.errors import SpecError
from cloudft.spec.load import LoadedJob, load_job
from cloudft.spec.sections import JobSection, Section, job_sections, registered_section

ROLE = "arn:aws:iam::123456789012:role/bedrock"
CRITIC = "arn:aws:lambda:us-east-1:123456789012:function:critic"


class Critique(Section):
    """The section of the type that this test adds."""

    critic_arn: str = Field(description="The critic: the ARN of a Lambda function.")


def critic_permissions(job: LoadedJob, arns: ArnContext) -> Iterator[RequiredPermission]:
    yield RequiredPermission("lambda:InvokeFunction", job.spec.section(Critique).critic_arn)


@pytest.fixture
def critique(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Add a type in the four places that CONTRIBUTING names: table, section, request, model."""
    row = CustomizationType(
        name="CRITIQUE_TUNING",
        data="prompts",
        formats=("distillation",),
        trains_on=frozenset({"bedrock"}),
        section="critique",
        section_fix="name the critic.",
    )
    monkeypatch.setitem(CUSTOMIZATION_TYPES, row.name, row)
    monkeypatch.setitem(
        CUSTOMIZATIONS,
        row.name,
        Customization(
            build_config=lambda job: {
                "critiqueConfig": {"lambdaArn": job.spec.section(Critique).critic_arn}
            },
            role_permissions=critic_permissions,
            request_fields={"customizationConfig.critiqueConfig": "critique.critic_arn"},
            regional_arns=("critique.critic_arn",),
        ),
    )
    nova = find_model("nova-micro")
    changed = replace(
        nova,
        customization_types=(*nova.customization_types, row.name),
        formats=MappingProxyType({**nova.formats, row.name: "distillation"}),
    )
    monkeypatch.setattr(find, "_models_by_name", lambda: {"nova-micro": changed})
    with registered_section(
        JobSection("critique", Critique, "For CRITIQUE_TUNING.", is_nullable=True)
    ):
        yield


def load(folder: Path, **values: Any) -> LoadedJob:
    tiny.write_jsonl(folder / "train.jsonl", [{"prompt": f"question {n}"} for n in range(8)])
    bedrock = {"region": "us-east-1", "role_arn": ROLE, "s3_uri": "s3://some-bucket/team"}
    spec = {
        "name": "critic",
        "base_model": "nova-micro",
        "customization_type": "CRITIQUE_TUNING",
        "data": {"train": "train.jsonl"},
        "bedrock": bedrock,
    }
    path = folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump({**spec, **values}))
    return load_job(path)


def test_a_type_that_is_not_in_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="CRITIQUE_TUNING"):
        load(tmp_path)


@pytest.mark.usefixtures("critique")
def test_a_new_type_is_accepted_checked_planned_and_permitted(tmp_path: Path) -> None:
    job = load(tmp_path, critique={"critic_arn": CRITIC})
    assert check_offline(job) == []
    parameters = request.create_request(with_placeholder_data(job))
    assert parameters["customizationType"] == "CRITIQUE_TUNING"
    assert parameters["customizationConfig"] == {"critiqueConfig": {"lambdaArn": CRITIC}}
    permissions = list(role_permissions(job, {}))
    assert RequiredPermission("lambda:InvokeFunction", CRITIC) in permissions


@pytest.mark.usefixtures("critique")
def test_faults_of_a_new_types_section_are_found(tmp_path: Path) -> None:
    [missing] = check_offline(load(tmp_path))
    assert (missing.code, missing.field, missing.fix) == (
        "MissingValue",
        "critique",
        "name the critic.",
    )
    section = {"critic_arn": CRITIC}
    [unused] = check_offline(load(tmp_path, customization_type="FINE_TUNING", critique=section))
    assert (unused.code, unused.fix) == (
        "UnusedValue",
        "set customization_type: CRITIQUE_TUNING, or remove the section.",
    )
    abroad = {"critic_arn": CRITIC.replace("us-east-1", "eu-west-1")}
    [region] = check_offline(load(tmp_path, critique=abroad))
    assert (region.code, region.field) == ("WrongRegion", "critique.critic_arn")


def test_every_type_with_a_section_has_its_request() -> None:
    with_section = {row.name for row in CUSTOMIZATION_TYPES.values() if row.section}
    assert with_section == CUSTOMIZATIONS.keys()
    assert {
        str(CUSTOMIZATION_TYPES[name].section) for name in with_section
    } <= job_sections().keys()
    assert not REQUEST_FIELDS.keys() & customizations.request_fields().keys()
