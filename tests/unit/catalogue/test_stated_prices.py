"""Prices that a person states: in the job file, or in CLOUDFT_HOME for every job and for `ps`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudft import catalogue
from cloudft.backends.base import Backend, with_placeholder_data
from cloudft.backends.bedrock import job_cost
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.backends.sagemaker.backend import SageMakerBackend
from cloudft.catalogue import Prices, Source, cost
from cloudft.errors import OverBudget, SpecError, UsageError
from cloudft.jobs import prepare
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home
from cloudft.types import DataVolume, Estimate, Plan

VOLUMES = {"train": DataVolume(records=10, characters=0, tokens=100_000)}
UNPRICED = {
    "titan-text-premier": (BedrockBackend, "{}", "training titan-text-premier on Bedrock"),
    "smollm2-135m": (
        SageMakerBackend,
        "{instance_type: ml.p6.48xlarge}",
        "an hour of ml.p6.48xlarge",
    ),
}


def loaded(folder: Path, model: str, more: str = "") -> LoadedJob:
    path = folder / "cloudft.yaml"
    path.write_text(
        f"name: own\nbase_model: {model}\ndata: {{train: train.jsonl}}\nbudget_usd: 3000\n"
        f"sagemaker: {UNPRICED.get(model, ('', '{}'))[1]}\n{more}"
    )
    return load_job(path)


def plan_of(job: LoadedJob, estimate: Estimate) -> Plan:
    manifest = with_placeholder_data(job).manifest
    return Plan(estimate.backend, "token", "own", {}, {}, manifest, estimate, {})


def check(job: LoadedJob, backend: Backend) -> Estimate:
    estimate = backend.estimate(job, VOLUMES)
    prepare.check_budget(job, plan_of(job, estimate))
    return estimate


@pytest.mark.parametrize("model", UNPRICED)
def test_the_remedy_for_an_unknown_price_is_a_line_that_states_it(
    tmp_path: Path, model: str
) -> None:
    make, _, what = UNPRICED[model]
    backend = make(Home(tmp_path / "home"))
    with pytest.raises(OverBudget, match=f"no price is known for {what}, so the budget") as refused:
        check(loaded(tmp_path, model), backend)
    [line] = re.findall(r"`(prices: .*?)`", refused.value.fix or "")
    with pytest.raises(SpecError) as unfilled:
        loaded(tmp_path, model, line)
    assert "prices." in str(unfilled.value.field)
    estimate = check(loaded(tmp_path, model, line.replace("USD", "2.5")), backend)
    assert estimate.usd["training"] == {"bedrock": 500.0, "sagemaker": 60.0}[backend.name]
    assert "https://aws.amazon.com/" in estimate.price_source and estimate.price_date


STATED = """
models:
  titan-text-premier: {training_per_1k_tokens: 0.5, source: our offer, date: 2026-11-01}
  amazon.nova-lite-v1:0: {base_per_1k_tokens: [1, 2], source: our offer, date: 2026-11-02}
instances:
  ml.p5.48xlarge: {usd_per_hour: 40, source: our offer, date: 2026-11-03}
import_units:
  v1.0: {unit_minute: 0.06, source: our offer, date: 2026-11-04}
"""


def test_a_home_states_prices_for_every_job_and_a_job_file_wins(tmp_path: Path, home: Path) -> None:
    assert catalogue.find_model("titan-text-premier").stated_prices is None
    before = catalogue.hourly_price("ml.p5.48xlarge")
    assert before is not None and before.certainty == "several"
    home.mkdir(exist_ok=True)
    (home / "prices.yaml").write_text(STATED)
    backend = BedrockBackend(Home(home))
    job = loaded(tmp_path, "titan-text-premier")
    assert check(job, backend).usd["training"] == 100.0
    line = "prices: {training_per_1k_tokens: 0.1, source: the page, date: 2026-11-28}"
    own = check(loaded(tmp_path, "titan-text-premier", line), backend)
    assert own.usd["training"] == 20.0 and own.price_date == "2026-11-28"
    nova = catalogue.find_model("nova-lite").prices_in("us-east-1")
    assert nova is not None and nova.pair("base_per_1k_tokens") == (1, 2)
    assert nova.usd("training_per_1k_tokens") == 0.002
    assert "Price List" in str(nova.source_of("training_per_1k_tokens"))
    assert str(nova.source_of("base_per_1k_tokens")) == "our offer, 2026-11-02"
    price = catalogue.hourly_price("ml.p5.48xlarge")
    assert price is not None and price.usd == 40 and str(price.source) == "our offer, 2026-11-03"
    units = catalogue.get_unit_prices("v1.0", "eu-central-1")
    assert units is not None and units.unit_minute == 0.06 and units.unit_month == 1.95


READ = "source: a, date: 2026-11-01"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (f"models: {{nova-lite: {{training: 1, {READ}}}}}", "models.nova-lite"),
        ("models: {nova-lite: {storage_per_month: 1}}", "models.nova-lite"),
        (
            f"models: {{nova-lite: {{storage_per_month: -1, {READ}}}}}",
            "models.nova-lite.storage_per_month",
        ),
        (f"models: {{nova-late: {{storage_per_month: 1, {READ}}}}}", "models.nova-late"),
        (
            f"instances: {{ml.g5.xlarge: {{usd_per_hour: USD, {READ}}}}}",
            "instances.ml.g5.xlarge.usd_per_hour",
        ),
        ("model: {}", "model"),
        ("- 1", None),
        ("a: [", None),
    ],
)
def test_a_bad_price_is_named_with_file_and_field(home: Path, text: str, field: str | None) -> None:
    home.mkdir(exist_ok=True)
    (home / "prices.yaml").write_text(text)
    with pytest.raises(UsageError) as bad:
        catalogue.find_model("nova-micro")
        catalogue.hourly_price("ml.g5.xlarge")
    assert bad.value.file == str(home / "prices.yaml") and bad.value.field == field
    assert "nova-lite" in str(bad.value.fix)


def test_a_list_replaces_what_is_not_stated_alone(tmp_path: Path) -> None:
    own = "prices: {training_per_1k_tokens: 0.5, source: our offer, date: 2026-11-02}"
    job = loaded(tmp_path, "nova-lite", own)
    nova = job.model
    before = job_cost.estimate_job("bedrock", job, VOLUMES["train"])
    source = Source("price-list", "Price List API", "2026-11-28")
    listed = Prices.of({"training_per_1k_tokens": 9.0, "storage_per_month": 9.0}, source, "list")
    after = cost.with_list_prices(before, nova, {"nova-lite": listed})
    assert after.usd["training"] == before.usd["training"] == 100.0
    assert after.usd["storagePerMonth"] == 9.0
    assert "our offer" in after.price_source


def test_amounts_are_shown_with_the_digits_that_differ() -> None:
    assert cost.format_distinct_usd(0.0063, 0.0) == ("0.0063 USD", "0.00 USD")
    assert cost.format_distinct_usd(0.0023, 0.0) == ("0.0023 USD", "0.00 USD")
    assert cost.format_distinct_usd(0.0042, 0.004) == ("0.0042 USD", "0.004 USD")
    assert cost.format_distinct_usd(36.36, 3.03) == ("36.36 USD", "3.03 USD")
    assert [cost.format_usd(usd) for usd in (0.0, 0.00267, 0.05, 1234.5)] == [
        *("0.00 USD", "0.0027 USD", "0.05 USD", "1,234.50 USD")
    ]


@given(st.floats(0, 1e5), st.floats(0, 1e5))
def test_two_amounts_that_differ_never_look_alike(one: float, other: float) -> None:
    if abs(one - other) > 1e-9:
        first, second = (
            text.removesuffix(" USD").replace(",", "")
            for text in cost.format_distinct_usd(one, other)
        )
        assert (float(first) < float(second)) == (one < other)
