"""The routes to a tuned model, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudft import starter
from cloudft.backends import TRAINING_BACKENDS, make_backend
from cloudft.cli.routes_plot import draw_routes
from cloudft.cli.routes_text import comparison_text
from cloudft.errors import UsageError
from cloudft.jobs import prepare, routes
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home

USAGE = routes.Usage(800, 60, requests=22_000, months=12)


def loaded(folder: Path, records: int = 240, **more: Any) -> LoadedJob:
    rows = [
        {"prompt": f"How is ticket {n}?" * 3, "completion": f"Fine, {n}."} for n in range(records)
    ]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec = {
        "name": "own",
        "base_model": "nova-lite",
        "data": {"train": "train.jsonl"},
        "local": {"model": "smollm2-135m"},
        **more,
    }
    path = folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump(spec))
    return load_job(path)


def compared(folder: Path, usage: routes.Usage = USAGE, **more: Any) -> routes.Comparison:
    return routes.compare(loaded(folder, **more), Home(folder / "home"), usage)


def test_all_routes_to_the_same_goal_are_there_the_cheapest_first(tmp_path: Path) -> None:
    comparison = compared(tmp_path)
    kinds = {route.kind for route in comparison.routes}
    assert kinds == {
        *("bedrock-fine-tuning", "bedrock-distillation", "local-import", "sagemaker-import"),
        "sagemaker-serverless",
    }
    models = [r.model for r in comparison.routes if r.kind == "bedrock-fine-tuning"]
    assert sorted(models) == [
        *("llama-3.1-70b", "llama-3.1-8b", "llama-3.3-70b"),
        *("nova-2-lite", "nova-lite", "nova-micro", "nova-pro"),
    ]
    totals = [route.total_usd(12) for route in comparison.routes]
    known = [total for total in totals if total is not None]
    assert known == sorted(known) and totals[: len(known)] == known, "unknown ones come last"
    assert comparison.routes[-1].kind == "sagemaker-serverless" and comparison.routes[-1].unknown
    assert comparison.routes[0].model == "nova-micro"


def test_a_route_adds_up(tmp_path: Path) -> None:
    [micro] = [
        r
        for r in compared(tmp_path).routes
        if r.model == "nova-micro" and r.kind == "bedrock-fine-tuning"
    ]
    serving = 22_000 * (800 * 0.000035 + 60 * 0.00014) / 1000
    assert micro.training_usd is not None and micro.storage_usd_per_month == 1.95
    assert micro.total_usd(12) == pytest.approx(micro.training_usd + 12 * (1.95 + serving))
    assert micro.total_usd(1, 0) == pytest.approx(micro.training_usd + 1.95)
    even = micro.servings[-1].break_even_requests
    assert even is not None
    before, after = micro.cheapest(12, even - 1), micro.cheapest(12, even + 1)
    assert before is not None and after is not None
    assert (before.kind, after.kind) == ("on-demand", "provisioned")


def test_a_commitment_is_billed_to_the_end_of_its_term(tmp_path: Path) -> None:
    [llama] = [
        r
        for r in compared(tmp_path).routes
        if r.model == "llama-3.1-8b" and r.kind == "bedrock-fine-tuning"
    ]
    monthly, term = llama.servings[1], llama.servings[2]
    assert (monthly.term_months, term.term_months) == (1, 6)
    assert monthly.usd_per_month is not None and term.usd_per_month is not None
    assert term.usd_per_month < monthly.usd_per_month, "a longer term is cheaper by the month"
    assert [llama.cheapest(months) for months in (1, 6, 7)] == [monthly, term, monthly]
    assert llama.training_usd is not None and llama.storage_usd_per_month is not None
    fixed = llama.training_usd + 11 * llama.storage_usd_per_month
    assert llama.cheapest(11) == term, "two terms cost less than 11 months one by one"
    assert llama.total_usd(11) == pytest.approx(fixed + 12 * term.usd_per_month)


def test_lengths_are_those_of_the_data_unless_they_are_given(tmp_path: Path) -> None:
    own = compared(tmp_path, routes.Usage(None, None, 100, 1))
    assert (own.traffic.input_tokens, own.traffic.output_tokens) == (9, 2)  # 54 and 10 characters
    assert own.lengths_from.startswith("the mean of 240 records")
    assert compared(tmp_path).lengths_from == "given"


def test_a_model_that_can_not_take_the_data_is_left_out_with_its_reason(tmp_path: Path) -> None:
    few = compared(tmp_path, records=60)
    assert "200 at least" in few.left_out["nova-2-lite"]
    assert not [route for route in few.routes if route.model == "nova-2-lite"]
    assert not [r for r in few.routes if r.kind == "bedrock-distillation"], "it needs 100 prompts"
    chat = [{"role": r, "content": f"{r}"} for r in ("user", "assistant", "user", "assistant")]
    (tmp_path / "chats").mkdir()
    job = loaded(tmp_path / "chats")
    rows = "\n".join(json.dumps({"messages": chat, "id": n}) for n in range(240))
    (tmp_path / "chats" / "train.jsonl").write_text(rows)
    comparison = routes.compare(job, Home(tmp_path / "home"), USAGE)
    assert "don't fit prompt-completion" in comparison.left_out["llama-3.1-8b"]


def test_regions_and_epochs_that_a_model_lacks_are_said(tmp_path: Path) -> None:
    more = {"bedrock": {"region": "us-east-1"}, "hyperparameters": {"epochCount": 5}}
    comparison = compared(tmp_path, **more)
    [llama] = [r for r in comparison.routes if r.model == "llama-3.3-70b"]
    assert llama.region == "us-west-2" and "does not train it in us-east-1" in llama.notes[1]
    assert llama.notes[0] == "llama-3.3-70b is Legacy, its end of life is 2027-03-30"


def test_the_text_says_what_is_assumed_and_what_is_unknown(tmp_path: Path) -> None:
    text = comparison_text(compared(tmp_path))
    assert "22,000 requests a month of 800 tokens in and 60 out (given)" in text
    assert "cheaper than on demand from" in text and "requests are spread evenly" in text
    assert "1 to 2 custom model units v1.0 a copy" in text and "AWS publishes no time" in text
    assert "for each window with a request" in text and "unknown: " in text
    assert "fine-tune nova-micro on Bedrock  " in text.split("\n")[2]


def test_other_types_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="CONTINUED_PRE_TRAINING are not compared"):
        compared(tmp_path, base_model="smollm2-135m", customization_type="CONTINUED_PRE_TRAINING")


@pytest.mark.parametrize("name", ["routes.svg", "routes.png"])
def test_the_picture_names_its_routes_and_marks_the_break_even_points(
    tmp_path: Path, name: str
) -> None:
    pytest.importorskip("matplotlib")
    comparison = compared(tmp_path)
    left_out = draw_routes(comparison, tmp_path / name)
    assert (tmp_path / name).stat().st_size > 10_000
    assert "tune nova-lite by SageMaker's serverless customization" in left_out
    assert len(left_out) == len(comparison.routes) - 8
    with pytest.raises(UsageError, match="can't be written"):
        draw_routes(comparison, tmp_path / "missing" / name)
    with pytest.raises(UsageError, match=r"is no \.png or \.svg file"):
        draw_routes(comparison, tmp_path / "routes.gif")


def test_the_starters_own_job_has_an_estimate_on_every_backend(tmp_path: Path) -> None:
    starter.write_starter("FINE_TUNING", tmp_path)
    job = load_job(tmp_path / "cloudft.yaml")
    volumes = prepare.check_records(job).volumes
    assert volumes is not None
    for name in TRAINING_BACKENDS:
        backend = make_backend(name, Home(tmp_path / "home")).for_job(job)
        assert backend.estimate(job, volumes).usd["training"] is not None
    value = routes.to_json(routes.compare(job, Home(tmp_path / "home"), USAGE))
    rows = value["routes"]
    assert isinstance(rows, list) and rows[0]["totalUsd"] > 0 and rows[0]["trainingUsd"] > 0
