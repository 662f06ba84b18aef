"""Ids and ARNs of inference profiles name the models behind them."""

from __future__ import annotations

from datetime import date

import pytest

from cloudft import catalogue
from cloudft.catalogue.profile_ids import AREAS
from cloudft.errors import UnknownModel

NOVA, NOVA_2 = "amazon.nova-lite-v1:0", "amazon.nova-2-lite-v1:0"
ACCOUNT_ARN = "arn:aws:bedrock:us-east-1:123456789012"

DAY = date(2026, 11, 30)


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        *((f"{area}.{NOVA}", "nova-lite") for area in AREAS),
        (f"{ACCOUNT_ARN}:inference-profile/us.{NOVA}", "nova-lite"),
        (f"{ACCOUNT_ARN}:inference-profile/global.{NOVA_2}", "nova-2-lite"),
        (
            "arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:inference-profile/us-gov."
            "anthropic.claude-3-haiku-20240307-v1:0",
            "claude-3-haiku",
        ),
        ("us.meta.llama3-3-70b-instruct-v1:0", "llama-3.3-70b"),
    ],
)
def test_a_profile_stands_for_its_model(name: str, alias: str) -> None:
    assert catalogue.find_model(name).alias == alias
    found = catalogue.find_catalogue_model(name)
    assert found is not None and found.alias == alias


@pytest.mark.parametrize(
    ("name", "words", "fix"),
    [
        (
            f"{ACCOUNT_ARN}:application-inference-profile/a1b2c3",
            "does not say its model",
            "bedrock.inference_profile",
        ),
        ("us.amazon.nova-lite-v1", "no inference profile", f"write us.{NOVA}"),
        (f"us.{NOVA}:300k", "no inference profile", f"write us.{NOVA}"),
        ("us.amazon.nova-tiny-v1:0", "of a model that the catalogue lacks", "cloudft models"),
        (f"mars.{NOVA}", "no model", "cloudft models"),
        ("us.nova-lite", "no model", "cloudft models"),
    ],
)
def test_what_is_no_profile_of_a_known_model_is_said(name: str, words: str, fix: str) -> None:
    assert catalogue.find_catalogue_model(name) is None
    with pytest.raises(UnknownModel, match=words) as caught:
        catalogue.find_model(name)
    assert fix in str(caught.value.fix)


def test_the_parts_of_a_profile() -> None:
    arn = f"{ACCOUNT_ARN}:inference-profile/global.{NOVA_2}"
    profile = catalogue.parse_profile(arn)
    assert profile is not None
    assert (profile.area, profile.model, profile.region) == ("global", NOVA_2, "us-east-1")
    assert profile.id == f"global.{NOVA_2}" and not profile.is_application
    own = catalogue.parse_profile(f"{ACCOUNT_ARN}:application-inference-profile/a1b2c3")
    assert own is not None and own.is_application and own.region == "us-east-1"
    for other in (NOVA, f"arn:aws:bedrock:us-east-1::foundation-model/{NOVA}", "nova-lite", ""):
        assert catalogue.parse_profile(other) is None


@pytest.mark.parametrize(
    ("alias", "region", "called"),
    [
        # The cards of the models, 2026-10: London has Nova Pro itself and no profile of the EU.
        ("nova-pro", "eu-west-2", "amazon.nova-pro-v1:0"),
        ("nova-pro", "us-west-2", "us.amazon.nova-pro-v1:0"),
        ("nova-pro", "il-central-1", "eu.amazon.nova-pro-v1:0"),
        ("nova-pro", "me-central-1", "amazon.nova-pro-v1:0"),
        ("nova-micro", "us-east-2", "us.amazon.nova-micro-v1:0"),
        ("nova-micro", "ap-northeast-1", "apac.amazon.nova-micro-v1:0"),
        ("nova-micro", "ap-southeast-2", "amazon.nova-micro-v1:0"),
        ("nova-2-lite", "eu-west-2", f"global.{NOVA_2}"),
        ("nova-2-lite", "ca-central-1", f"us.{NOVA_2}"),
        ("nova-2-lite", "ap-northeast-1", f"jp.{NOVA_2}"),
        ("nova-2-lite", "ap-south-1", f"global.{NOVA_2}"),
        ("llama-3.3-70b", "us-east-2", "meta.llama3-3-70b-instruct-v1:0"),
        ("llama-3.1-70b", "us-east-1", "us.meta.llama3-1-70b-instruct-v1:0"),
        # No profile there: the model's own id, which Bedrock refuses with its own words.
        ("nova-2-lite", "sa-east-1", NOVA_2),
    ],
)
def test_the_id_of_a_region_is_that_of_the_models_card(
    alias: str, region: str, called: str
) -> None:
    model = catalogue.find_model(alias)
    assert catalogue.inference_id(str(model.bedrock_id), region) == called


def test_every_profiles_regions_are_regions_of_its_area() -> None:
    for model in catalogue.load_models():
        for area, regions in model.inference_profiles.items():
            for region in regions:
                assert area in catalogue.profile_areas(region), (model.alias, area, region)


@pytest.mark.parametrize("alias", ["llama-3.1-8b", "llama-3.1-70b", "llama-3.3-70b"])
def test_llama_3_is_legacy_with_its_last_day(alias: str) -> None:
    life = catalogue.find_model(alias).lifecycle
    assert (life.state_on(DAY), life.date) == ("legacy", "2027-03-30")  # the models' cards, 2026-10


@pytest.mark.parametrize(
    ("student", "living"),
    [
        ("nova-lite", ["nova-pro"]),
        ("nova-pro", []),
        ("llama-3.1-8b", ["llama-3.1-70b", "llama-3.3-70b"]),
        ("llama-3.3-70b", []),
    ],
)
def test_the_teachers_that_still_answer(student: str, living: list[str]) -> None:
    model = catalogue.find_model(student)
    assert [one.alias for one in catalogue.living_teachers(model)] == living
    former = [catalogue.find_model(name).lifecycle.state_on(DAY) for name in model.former_teachers]
    assert former == ([] if living else ["end-of-life"])
