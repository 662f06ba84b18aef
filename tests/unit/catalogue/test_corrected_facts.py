"""Facts that an earlier catalogue had wrong or lacked, by the sources named beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloudft import catalogue
from cloudft.catalogue import load_import_rules, load_models
from cloudft.catalogue.prices import AmountName
from cloudft.errors import SpecError
from cloudft.spec.load import load_job


@pytest.mark.parametrize(
    ("alias", "name", "usd"),
    [
        ("nova-micro", "training_per_1k_tokens", 0.001),
        ("nova-lite", "training_per_1k_tokens", 0.002),
        ("nova-lite", "provisioned_unit_hour", 60.50),
        ("nova-pro", "training_per_1k_tokens", 0.008),
        ("nova-pro", "provisioned_unit_hour_six_months", 30.25),
        ("nova-2-lite", "reinforcement_hour", 80.00),
        ("llama-3.1-8b", "training_per_1k_tokens", 0.00149),
        ("llama-3.1-70b", "training_per_1k_tokens", 0.00799),
        ("llama-3.1-70b", "provisioned_unit_hour_one_month", 21.18),
        ("llama-3.2-1b", "training_per_1k_tokens", 0.0005),
        ("llama-3.2-90b-vision", "provisioned_unit_hour", 30.00),
        ("llama-2-13b", "training_per_1k_tokens", 0.00149),
        ("titan-text-express", "training_per_1k_tokens", 0.008),
        ("titan-text-express", "provisioned_unit_hour_six_months", 14.80),
        ("titan-text-lite", "provisioned_unit_hour_one_month", 6.40),
        ("command", "training_per_1k_tokens", 0.004),
        ("command-light", "provisioned_unit_hour", 8.56),
        # A model of Anthropic is stored for 20.00, not for 1.95; its training is billed by the
        # million tokens.
        ("claude-3-haiku", "storage_per_month", 20.00),
        ("claude-3-haiku", "training_per_1k_tokens", 0.012),
        ("gpt-oss-20b", "reinforcement_hour", 80.00),
        ("qwen3-32b", "storage_per_month", 1.95),
    ],
)
def test_prices_that_were_missing(alias: str, name: AmountName, usd: float) -> None:
    prices = catalogue.find_model(alias).prices_in(None)
    assert prices is not None and prices.usd(name) == usd


@pytest.mark.parametrize(
    ("alias", "kind", "records"),
    [
        ("titan-text-express", "FINE_TUNING", 10_000),
        ("titan-text-lite", "FINE_TUNING", 10_000),
        ("titan-text-premier", "FINE_TUNING", 20_000),
        ("titan-text-express", "CONTINUED_PRE_TRAINING", 100_000),
        ("titan-text-lite", "CONTINUED_PRE_TRAINING", 100_000),
        ("nova-2-lite", "FINE_TUNING", 20_000),
        ("llama-3.1-8b", "DISTILLATION", 15_000),
    ],
)
def test_record_sums_of_the_quotas_page(alias: str, kind: str, records: int) -> None:
    """AWS General Reference, "Amazon Bedrock endpoints and quotas", October 2026."""
    assert catalogue.find_model(alias).limits[kind].records_max == records


def test_the_least_records_of_nova_2_lite_are_no_longer_in_doubt() -> None:
    """Bedrock user guide, "Nova 2 SFT data preparation", October 2026."""
    limits = catalogue.find_model("nova-2-lite").limits["FINE_TUNING"]
    assert limits.train_records_min == 200 and "train_records_min" not in limits.unsure


@pytest.mark.parametrize("alias", ["nova-pro", "llama-3.1-70b", "llama-3.3-70b"])
def test_a_student_without_a_living_teacher_offers_no_distillation(
    alias: str, tmp_path: Path
) -> None:
    path = tmp_path / "cloudft.yaml"
    path.write_text(
        f"name: x\nbase_model: {alias}\ncustomization_type: DISTILLATION\n"
        "data: {train: train.jsonl}\ndistillation: {teacher: amazon.nova-premier-v1:0}\n"
    )
    with pytest.raises(SpecError, match="DISTILLATION"):
        load_job(path)


@pytest.mark.parametrize("model", load_models(), ids=lambda model: model.alias)
def test_every_teacher_of_a_living_student_lives(model: catalogue.Model) -> None:
    if model.lifecycle.state != "active" or model.is_open_weight:  # any model may teach those
        return
    teachers = [catalogue.find_model(name) for name in model.teachers]
    assert all(teacher.lifecycle.state == "active" for teacher in teachers)
    assert bool(teachers) == ("DISTILLATION" in model.customization_types)


def test_a_chat_template_may_be_in_a_file_of_its_own() -> None:
    rules = load_import_rules()
    assert rules.template_files[:2] == ("chat_template.jinja", "chat_template.json")


@pytest.mark.parametrize(
    ("instance", "usd"),
    [
        ("ml.g4dn.xlarge", 0.7364),
        ("ml.g4dn.12xlarge", 4.89),
        ("ml.p4d.24xlarge", 25.251286),
        ("ml.p4de.24xlarge", 33.52),
        ("ml.p5.48xlarge", 63.296),
        ("ml.m5.xlarge", 0.23),
        ("ml.m5.2xlarge", 0.461),
        ("ml.g5.48xlarge", 20.36),  # 16.288 is what EC2 takes for a g5.48xlarge
    ],
)
def test_instance_prices_that_were_missing(instance: str, usd: float) -> None:
    price = catalogue.hourly_price(instance, "us-west-2")
    assert price is not None and price.usd == usd
    elsewhere = price.region != "us-west-2"
    assert bool(re.search(r"the price of us-east-1", price.origin("us-west-2"))) == elsewhere
