"""A job as the calls that Bedrock gets."""

from __future__ import annotations

import json
import string
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_files import write_job_file

from cloudft import catalogue
from cloudft.aws.request_validation import SAFE_PATTERNS, load_service_model, validate_request
from cloudft.backends.base import with_placeholder_data
from cloudft.backends.bedrock import customizations, job_cost, request, states
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.backends.findings import FindingFactory
from cloudft.catalogue import cost
from cloudft.errors import OverBudget
from cloudft.jobs import prepare
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home
from cloudft.types import DETAIL_STATUSES, STATUSES, DataVolume, job_id, to_json

ROLE = "arn:aws:iam::123456789012:role/bedrock"
SECTION = {"region": "us-east-1", "role_arn": ROLE, "s3_uri": "s3://some-bucket/team"}
CUSTOMIZED = [
    (model.alias, kind)
    for model in catalogue.load_models()
    for kind in model.customization_types
    if model.bedrock_id and kind in ("FINE_TUNING", "CONTINUED_PRE_TRAINING")
]


def loaded(folder: Path, model: str = "nova-micro", **more: Any) -> LoadedJob:
    section = SECTION | more.pop("bedrock", {})
    path = write_job_file(folder, Path(model), bedrock=section, **more)
    text = path.read_text()
    for setting in (
        "batchSize: 4",
        "learningRate: 0.01",
        "learningRateWarmupSteps: 0",
        "epochCount: 2",
    ):
        text = text.replace(setting, "")
    path.write_text(text)
    return load_job(path)


@pytest.mark.parametrize(
    ("teacher", "code", "severity"),
    [
        ("amazon.nova-pro-v1:0", None, None),
        ("us.amazon.nova-pro-v1:0", None, None),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0", None, None),
        ("amazon.nova-premier-v1:0", "ModelEndOfLife", "error"),
        ("meta.llama3-3-70b-instruct-v1:0", "TeacherUnknown", "warning"),
    ],
)
def test_a_teacher_that_is_gone_or_unknown_is_found(
    tmp_path: Path, teacher: str, code: str | None, severity: str | None
) -> None:
    flags = {"customization_type": "DISTILLATION", "distillation.teacher": teacher}
    job = load_job(loaded(tmp_path).path, flags=flags)
    found = customizations.check_customization(job, FindingFactory(job))
    assert [(f.code, f.severity) for f in found] == ([(code, severity)] if code else [])


@pytest.mark.parametrize(("alias", "kind"), CUSTOMIZED)
def test_every_models_request_fits_the_service_model(tmp_path: Path, alias: str, kind: str) -> None:
    job = loaded(tmp_path, alias, customization_type=kind, tags={"team": "support desk"})
    parameters = request.create_request(with_placeholder_data(job))
    assert validate_request("bedrock", "CreateModelCustomizationJob", parameters) == []
    assert parameters["baseModelIdentifier"] == catalogue.find_model(alias).bedrock_id
    assert all(isinstance(value, str) for value in parameters["hyperParameters"].values())


def test_every_member_of_the_api_can_be_reached(tmp_path: Path) -> None:
    shape = load_service_model("bedrock").operation_model("CreateModelCustomizationJob").input_shape
    more = {"customizationConfig": {"distillationConfig": {}}, "customizationType": "DISTILLATION"}
    job = loaded(
        tmp_path,
        bedrock={
            "kms_key_id": "alias/mine",
            "vpc": {"subnet_ids": ["subnet-1"], "security_group_ids": ["sg-1"]},
            "request": more,
        },
        data={"validation": 0.2},
    )
    assert set(request.create_request(with_placeholder_data(job))) == set(shape.members)


def test_a_hyperparameter_is_text_without_an_exponent() -> None:
    assert [request.to_api_text(v) for v in (2, 1e-5, 0.1, 5e-07, 1.0)] == [
        *("2", "0.00001", "0.1", "0.0000005", "1.0")
    ]


@given(st.floats(min_value=1e-9, max_value=1e6))
def test_a_hyperparameter_is_the_same_number_as_text(value: float) -> None:
    assert float(request.to_api_text(value)) == value
    assert Decimal(request.to_api_text(value)) == Decimal(repr(value))


NAMES = st.text(string.ascii_letters + string.digits + "+.-", min_size=1, max_size=63)


@given(NAMES.filter(lambda name: name[0].isalnum()), st.text("0123456789abcdef", min_size=8))
def test_names_are_names_that_bedrock_takes(name: str, token: str) -> None:
    made = job_id(name, token)
    parameters = {"jobIdentifier": made}
    assert validate_request("bedrock", "GetModelCustomizationJob", parameters) == []
    assert len(made) <= 63 and made.endswith(token[:8])
    tags = {"targetModelName": request.custom_model_name(made), "sourceModelArn": ARN}
    assert validate_request("bedrock", "CreateModelCopyJob", tags) == []


ARN = "arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.nova-micro-v1:0:128k/abcdefghijkl"


@given(st.text("aB3+.-_ ", max_size=20))
def test_the_safe_patterns_mean_what_the_published_ones_do(text: str) -> None:
    import re

    for published, safe in SAFE_PATTERNS.items():
        if len(text) <= 14:  # the published ones take for ever beyond it
            assert bool(re.fullmatch(published, text)) == bool(re.fullmatch(safe, text)), published


def test_the_token_follows_from_the_request_and_not_from_the_machine(tmp_path: Path) -> None:
    def token(folder: str, **more: Any) -> str:
        return request.request_token(with_placeholder_data(loaded(tmp_path / folder, **more)))

    one = token("one")
    assert one == token("two") == token("three", bedrock={"profile": "other"})
    others = [
        token("four", name="other"),
        token("five", bedrock={"region": "us-west-2"}),
        token("six", tags={"a": "b"}),
        token("seven", bedrock={"endpoint_url": "http://127.0.0.1:1"}),
        token("eight", hyperparameters={"epochCount": 3}),
    ]
    assert len({one, *others}) == 6


def test_the_table_of_words_is_complete() -> None:
    model = load_service_model("bedrock")
    assert set(model.shape_for("ModelCustomizationJobStatus").enum) == set(STATUSES)
    assert set(model.shape_for("JobStatusDetails").enum) == set(DETAIL_STATUSES)
    assert set(model.shape_for("StatusDetails").members) == set(states.PHASES)


def test_the_price_is_tokens_times_epochs_or_unknown(tmp_path: Path) -> None:
    train = DataVolume(records=10, characters=0, tokens=2_000_000)
    nova = loaded(tmp_path, "nova-micro", hyperparameters={"epochCount": 3})
    known = job_cost.estimate_job("bedrock", nova, train)
    assert known.usd["training"] == pytest.approx(6.0)
    premier = loaded(tmp_path, "titan-text-premier")
    estimate = job_cost.estimate_job("bedrock", premier, train)
    assert estimate.usd["training"] is None and estimate.price_source == cost.NO_PRICE_KNOWN


@pytest.mark.parametrize(
    ("model", "budget", "refused"),
    [
        ("nova-micro", 0.0, True),
        ("nova-micro", 1.0, False),
        ("titan-text-premier", 5.0, True),
        ("titan-text-premier", None, False),
    ],
)
def test_a_budget_is_held_also_where_no_price_is_known(
    tmp_path: Path, model: str, budget: float | None, refused: bool
) -> None:
    job = loaded(tmp_path, model, **({} if budget is None else {"budget_usd": budget}))
    staged = with_placeholder_data(job)
    file = staged.manifest.files["train"]
    object.__setattr__(file, "tokens", 50_000)
    plan = BedrockBackend(Home(tmp_path / "home")).plan(staged)
    if refused:
        with pytest.raises(OverBudget):
            prepare.check_budget(job, plan)
    else:
        prepare.check_budget(job, plan)


def test_a_plan_prints_whole_and_equal_and_hides_nothing_that_it_sends(tmp_path: Path) -> None:
    staged = with_placeholder_data(loaded(tmp_path))
    backend = BedrockBackend(Home(tmp_path / "home"))
    text = json.dumps(to_json(backend.plan(staged)), sort_keys=True)
    assert text == json.dumps(to_json(backend.plan(staged)), sort_keys=True)
    [*puts, create] = json.loads(text)["request"]["calls"]
    assert [call["operation"] for call in puts] == ["put_object", "put_object"]
    assert create["parameters"]["clientRequestToken"] == json.loads(text)["token"]
    assert all(call["parameters"]["ExpectedBucketOwner"] == "123456789012" for call in puts)


def test_the_typical_duration_is_that_of_similar_jobs() -> None:
    began = datetime(2026, 11, 1, tzinfo=timezone.utc)

    def job(minutes: int, model: str = "a", kind: str = "FINE_TUNING") -> dict[str, Any]:
        times = {"creationTime": began, "endTime": began + timedelta(minutes=minutes)}
        return {"baseModelArn": model, "customizationType": kind, **times}

    others = [job(999, "b"), job(999, kind="CONTINUED_PRE_TRAINING")]
    now = {"baseModelArn": "a", "customizationType": "FINE_TUNING"}
    assert states.typical_seconds(now, [job(30), job(40), job(90), *others]) == 2400
    assert states.typical_seconds(now, others) is None
