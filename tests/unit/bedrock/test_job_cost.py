"""Estimates on Bedrock: every active model and type, AWS's own examples, and what a budget says."""

from __future__ import annotations

import dataclasses
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudft import catalogue
from cloudft.backends.bedrock import job_cost, states
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.catalogue import Prices, cost
from cloudft.cli.commands import submit
from cloudft.cli.estimate_text import estimates_text
from cloudft.cli.options import Console
from cloudft.errors import CloudUnreachable, CredentialsExpired, OverBudget
from cloudft.jobs import prepare
from cloudft.jobs.wait import stopping_after
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home
from cloudft.types import DataVolume, Estimate, JobState, StatusDetails

ACTIVE = [
    (model.alias, kind)
    for model in catalogue.load_models()
    for kind in model.customization_types
    if model.bedrock_id is not None and model.lifecycle.state != "end-of-life"
]
LAMBDA = "arn:aws:lambda:us-east-1:123456789012:function:grader"
SECTIONS: dict[str, dict[str, Any]] = {
    "DISTILLATION": {"teacher": "", "max_response_length": 500},
    "REINFORCEMENT_FINE_TUNING": {"lambda_arn": LAMBDA, "max_hours": 3},
}


def loaded(folder: Path, alias: str, kind: str = "FINE_TUNING", **more: Any) -> LoadedJob:
    model = catalogue.find_model(alias)
    spec: dict[str, Any] = {
        "name": "own",
        "base_model": alias,
        "customization_type": kind,
        "data": {"train": "train.jsonl"},
    }
    if kind == "DISTILLATION":
        spec["distillation"] = {**SECTIONS[kind], "teacher": model.teachers[0]}
    if kind == "REINFORCEMENT_FINE_TUNING":
        spec["reinforcement"] = dict(SECTIONS[kind])
    for name, value in more.items():
        spec[name] = {**spec.get(name, {}), **value} if isinstance(value, dict) else value
    path = folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump(spec))
    return load_job(path)


def estimated(job: LoadedJob, tokens: int, records: int = 100) -> Estimate:
    return job_cost.estimate_job("bedrock", job, DataVolume(records, 6 * tokens, tokens))


@pytest.mark.parametrize(("alias", "kind"), ACTIVE)
def test_every_active_model_and_type_has_an_amount_and_holds_a_budget(
    tmp_path: Path, alias: str, kind: str
) -> None:
    job = loaded(tmp_path, alias, kind, budget_usd=1e6)
    estimate = estimated(job, 100_000)
    usd = estimate.usd["training"]
    assert usd is not None and usd > 0 and estimate.usd["storagePerMonth"]
    assert estimate.unpriced is None and estimate.unknown is None
    assert estimate.price_certainty and estimate.price_date and estimate.price_source
    assert all(part.price is not None and part.price.date for part in estimate.parts)
    assert estimate.at_most == (kind != "FINE_TUNING")
    prepare.enforce_budget(job, estimate)
    poor = loaded(tmp_path, alias, kind, budget_usd=usd / 2)
    with pytest.raises(OverBudget, match="above the budget"):
        prepare.enforce_budget(poor, estimate)
    text = estimates_text([estimate])
    assert f"bedrock: {estimate.parts[0].what}" in text and "price: " in text


def test_a_distillation_pays_the_students_training_and_the_teachers_tokens(tmp_path: Path) -> None:
    job = loaded(tmp_path, "nova-micro", "DISTILLATION", hyperparameters={"epochCount": 2})
    estimate = estimated(job, tokens=20_000, records=100)
    # 15,000 pairs at most, by data synthesis: 200 tokens a prompt, 500 an answer.
    prompts, answers = 15_000 * 200, 15_000 * 500
    expected = [
        2 * (prompts + answers) / 1000 * 0.001,
        prompts / 1000 * 0.0008,
        answers / 1000 * 0.0032,
    ]
    assert [part.usd for part in estimate.parts] == pytest.approx(expected)
    assert [part.model for part in estimate.parts] == ["nova-micro", "nova-pro", "nova-pro"]
    assert estimate.usd["training"] == pytest.approx(sum(expected)) and estimate.at_most
    own = sum(expected) * 100 / 15_000
    assert f"without them it is at most {cost.format_usd(own)}" in estimate.notes[0]


def test_a_distillation_without_a_bound_of_its_answers_names_the_field(tmp_path: Path) -> None:
    job = loaded(
        tmp_path,
        "nova-micro",
        "DISTILLATION",
        distillation={"max_response_length": None},
        budget_usd=50,
    )
    estimate = estimated(job, 20_000)
    assert estimate.usd["training"] is None
    with pytest.raises(OverBudget, match="teacher's answers") as refused:
        prepare.enforce_budget(job, estimate)
    assert "distillation.max_response_length" in str(refused.value.fix)


def test_an_unknown_price_of_the_teacher_is_stated_in_the_users_own_file(tmp_path: Path) -> None:
    teacher = {"teacher": "amazon.titan-text-premier-v1:0"}
    job = loaded(tmp_path, "nova-micro", "DISTILLATION", distillation=teacher)
    job = dataclasses.replace(job, spec=job.spec.model_copy(update={"budget_usd": 9.0}))
    estimate = estimated(job, 20_000)
    unknown = loaded(
        tmp_path, "nova-micro", "DISTILLATION", distillation={"teacher": "some.other-v1:0"}
    )
    assert job_cost.find_teacher(unknown) is None
    if estimate.unpriced is not None:
        assert estimate.unpriced.model == "titan-text-premier"
        assert "models: {titan-text-premier:" in prepare.price_remedy(estimate, "then go on")
    assert estimated(unknown, 20_000).usd["training"] is None


def test_reinforcement_is_bounded_by_its_hours(tmp_path: Path) -> None:
    job = loaded(tmp_path, "nova-2-lite", "REINFORCEMENT_FINE_TUNING")
    estimate = estimated(job, 1000)
    assert estimate.usd["training"] == 240.0 and estimate.at_most
    assert "nothing stops it without a watcher" in estimate.notes[0]
    open_ended = loaded(
        tmp_path,
        "nova-2-lite",
        "REINFORCEMENT_FINE_TUNING",
        reinforcement={"max_hours": None},
        budget_usd=200,
    )
    unbounded = estimated(open_ended, 1000)
    assert unbounded.usd["training"] is None and "80 USD per hour" in estimates_text([unbounded])
    with pytest.raises(OverBudget, match="how many hours") as refused:
        prepare.enforce_budget(open_ended, unbounded)
    assert "set reinforcement.max_hours, such as 8 (2.5 of them are within" in str(
        refused.value.fix
    )


def test_the_examples_of_aws_come_out(tmp_path: Path) -> None:
    # AWS ML blog, text to SQL with Nova Micro, 2026-04-16: 2,000 examples of 800 tokens, 5 epochs.
    job = loaded(tmp_path, "nova-micro", hyperparameters={"epochCount": 5})
    assert estimated(job, 2000 * 800, 2000).usd["training"] == pytest.approx(8.00)
    # The same post: 22,000 queries a month, 800 tokens in and 60 out, with the tuned model.
    pair = job.model.prices_in("us-east-1")
    assert pair is not None
    tuned = pair.pair("tuned_per_1k_tokens")
    assert tuned is not None
    month = 22_000 * (800 * tuned[0] + 60 * tuned[1]) / 1000
    assert round(month, 2) == 0.80
    assert estimated(job, 1000).usd["storagePerMonth"] == 1.95


@pytest.mark.parametrize(
    ("alias", "tokens", "billed", "digits"),
    [
        # AWS ML blog, customize Amazon Nova models: the ATIS job. Its tokens are not published:
        # at 0.001 USD per 1,000 it had 2.18 million in all epochs.
        ("nova-micro", 2_180_000, 2.18, 2),
        # A post of 2025-05: image records; how many tokens an image has is not published. What
        # can be said: at 0.002 USD, 300 x 5 had 700 tokens each, and 900 x 5 had 833.
        ("nova-lite", 300 * 5 * 700, 2.1, 1),
        ("nova-lite", 900 * 5 * 833, 7.5, 1),
        # A bill of 2026-08: USW2-Llama3-3-70B-Customization-Training.
        ("llama-3.3-70b", 257_379, 0.84935, 5),
    ],
)
def test_bills_are_whole_numbers_of_tokens_at_the_catalogues_price(
    tmp_path: Path, alias: str, tokens: int, billed: float, digits: int
) -> None:
    job = loaded(tmp_path, alias, hyperparameters={"epochCount": 1})
    assert round(estimated(job, tokens).usd["training"] or 0, digits) == billed


def test_an_old_price_is_said(tmp_path: Path) -> None:
    job = loaded(tmp_path, "nova-lite")
    prices = job.model.prices_in("us-east-1")
    old = cost.unit_price(prices, "training_per_1k_tokens", date(2026, 10, 22))
    young = cost.unit_price(prices, "training_per_1k_tokens", date(2026, 10, 21))
    assert old is not None and young is not None and (old.is_old, young.is_old) == (True, False)
    estimate = estimated(job, 1000)
    part = cost.priced(estimate.parts[0], old)
    text = estimates_text([cost.with_parts(estimate, [part])])
    assert "(us-east-1, one source, more than a year old)" in text
    assert "more than a year old" not in estimates_text(
        [cost.with_parts(estimate, [cost.priced(part, young)])]
    )


def test_the_price_lists_price_counts_and_the_catalogues_is_shown(tmp_path: Path) -> None:
    job = loaded(tmp_path, "nova-micro", "DISTILLATION")
    before = estimated(job, 20_000)
    source = catalogue.Source("price-list", "Price List API, us-east-1", "2026-11-30")
    amounts = {"training_per_1k_tokens": 0.002, "base_per_1k_tokens": (0.0008, 0.0032)}
    listed = {
        "nova-micro": Prices.of({"training_per_1k_tokens": 0.002}, source, "list", "us-east-1"),
        "nova-pro": Prices.of(amounts, source, "list", "us-east-1"),
    }
    after = cost.with_list_prices(before, job.model, listed)
    student, prompts, _ = after.parts
    assert student.usd == pytest.approx(2 * (before.parts[0].usd or 0))
    assert student.not_used is not None and student.not_used.usd == 0.001
    assert prompts.not_used is None and prompts.price is not None
    assert prompts.price.certainty == "list", "the same price, read today"
    text = estimates_text([after])
    assert "not used: 0.001 USD" in text and "AWS's Price List of today has another price" in text


def test_check_finds_what_submit_would_refuse_of_a_budget(tmp_path: Path) -> None:
    rows = [f'{{"prompt": "How is {n}?", "completion": "Fine, {n}."}}' for n in range(40)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    backend = BedrockBackend(Home(tmp_path / "home"))
    for budget, codes in ((1e-6, ["OverBudget"]), (10, [])):
        job = loaded(tmp_path, "nova-micro", budget_usd=budget)
        report = prepare.check(job, backend.for_job(job))
        found = [f for f in report.findings if f.code == "OverBudget"]
        assert [f.code for f in found] == codes
        assert report.estimate is not None and report.estimate.usd["training"]
    job = loaded(tmp_path, "nova-micro", budget_usd=1e-6)
    [finding] = [
        f for f in prepare.check(job, backend.for_job(job)).findings if f.code == "OverBudget"
    ]
    assert finding.severity == "error" and finding.field == "budget_usd" and finding.line
    assert re.search("fewer epochs, or raise budget_usd", finding.fix or "")


BEGAN = "2026-11-30T10:00:00.000+00:00"


def state(status: Any = "InProgress", details: StatusDetails | None = None, **summary: Any) -> Any:
    return JobState("own-1", status, details or StatusDetails(), BEGAN, summary=summary)


@pytest.mark.parametrize(
    ("described", "stopped"),
    [
        (state(trainingBegan=BEGAN), True),
        (state(), True),  # an account without phases: counted from the creation
        (state(details=StatusDetails("Completed", "InProgress", "NotStarted")), False),
        (state(queuedIn="a state machine"), False),
        (state("Completed", trainingBegan=BEGAN), False),
        (state("Stopping", trainingBegan=BEGAN), False),
    ],
)
def test_a_watcher_stops_the_training_once_at_its_bound(described: Any, stopped: bool) -> None:
    began = 1_796_032_800.0
    assert date.fromtimestamp(began) == date(2026, 11, 30)
    calls: list[str] = []
    clock = [began + 3599]
    look = stopping_after(lambda: described, calls.append, 3600, lambda: clock[0])
    look()
    assert calls == []
    clock[0] += 1
    look()
    look()
    assert calls == (["own-1"] if stopped else [])


def test_an_outage_at_the_bound_does_not_end_the_watch() -> None:
    state = JobState(
        "own-1", "InProgress", StatusDetails(), BEGAN, summary={"trainingBegan": BEGAN}
    )
    errors: list[Exception] = [CloudUnreachable("no network"), CredentialsExpired("expired")]
    calls: list[str] = []
    outages: list[Exception] = []

    def stop(job_id: str) -> None:
        calls.append(job_id)
        if errors:
            raise errors.pop()

    look = stopping_after(lambda: state, stop, 3600, lambda: 2e9, outages.append)
    for _ in range(5):
        look()
    assert calls == ["own-1"] * 3 and len(outages) == 2


def test_submit_says_what_limits_the_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = loaded(tmp_path, "nova-2-lite", "REINFORCEMENT_FINE_TUNING")
    backend: Any = object()
    submit._print_cost(estimated(job, 100_000), job, backend, Console("text", 0))
    printed = capsys.readouterr().err
    assert printed.startswith("training costs at most 240.00 USD (")
    assert "nothing stops it without a watcher" in printed


def test_the_state_says_when_training_began() -> None:
    from datetime import datetime, timezone

    began = datetime(2026, 11, 30, 10, tzinfo=timezone.utc)
    job: Any = {
        "jobName": "own",
        "jobArn": "arn",
        "status": "InProgress",
        "creationTime": began,
        "statusDetails": {"trainingDetails": {"status": "InProgress", "creationTime": began}},
    }
    assert states.to_job_state(job, None).summary["trainingBegan"] == BEGAN
    job["statusDetails"]["trainingDetails"]["status"] = "NotStarted"
    assert "trainingBegan" not in states.to_job_state(job, None).summary
