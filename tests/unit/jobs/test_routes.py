"""The routes to a tuned model, side by side."""

from __future__ import annotations

import itertools
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudft import starter
from cloudft.backends import TRAINING_BACKENDS, make_backend
from cloudft.catalogue import load_models
from cloudft.catalogue.model import Lifecycle
from cloudft.cli.routes_plot import LABEL_GAP, draw_routes, spread
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
    assert sorted(models) == ["nova-2-lite", "nova-lite", "nova-micro", "nova-pro"]
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


def test_the_prices_of_the_job_file_count_for_its_model(tmp_path: Path) -> None:
    own = {"training_per_1k_tokens": 1.0, "storage_per_month": 7.0}
    stated = {**own, "source": "our offer", "date": "2026-11-01"}
    rows = compared(tmp_path, prices=stated).routes
    named = {r.model: r for r in rows if r.kind == "bedrock-fine-tuning"}
    assert named["nova-lite"].storage_usd_per_month == 7 and named["nova-lite"].training_usd > 1
    assert "our offer" in named["nova-lite"].price_source
    assert named["nova-micro"].storage_usd_per_month == 1.95
    [distilled] = [r for r in rows if r.kind == "bedrock-distillation" and r.model == "nova-lite"]
    assert distilled.storage_usd_per_month == 7


def test_a_term_that_is_longer_than_the_time_of_the_total_is_not_the_cheapest(
    tmp_path: Path,
) -> None:
    [micro] = [
        r
        for r in compared(tmp_path).routes
        if r.model == "nova-micro" and r.kind == "bedrock-fine-tuning"
    ]
    many = 10**12  # a model unit is cheaper than tokens then
    chosen = [micro.cheapest(months, many) for months in (1, 5, 6)]
    assert [one and one.name for one in chosen] == [
        *("1 provisioned unit, 1 month", "1 provisioned unit, 1 month"),
        "1 provisioned unit, 6 months",
    ]
    assert micro.training_usd is not None
    assert micro.total_usd(1, many) == pytest.approx(micro.training_usd + 1.95 + 55 * 730)


def test_lengths_are_those_of_the_data_unless_they_are_given(tmp_path: Path) -> None:
    own = compared(tmp_path, routes.Usage(None, None, 100, 1))
    assert (own.traffic.input_tokens, own.traffic.output_tokens) == (9, 2)  # 54 and 10 characters
    assert own.lengths_from.startswith("the mean of 240 records")
    assert compared(tmp_path).lengths_from == "given"


def test_a_legacy_model_is_left_out_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = date(2026, 11, 30)
    monkeypatch.setattr(Lifecycle, "state", property(lambda life: life.state_on(day)))
    comparison = compared(tmp_path)
    legacy = [m.alias for m in load_models() if m.lifecycle.state == "legacy"]
    assert "llama-3.1-8b" in legacy
    assert not [r for r in comparison.routes if r.kind != "local-import" and r.model in legacy]
    reason = comparison.left_out["llama-3.1-8b"]
    assert reason.startswith("Legacy, its end of life is 2027-03-30 (https://docs.aws")
    assert "takes no new customization job" in comparison_text(comparison)


def test_a_model_that_can_not_take_the_data_is_left_out_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = compared(tmp_path, records=60)
    assert "200 at least" in few.left_out["nova-2-lite"]
    assert not [route for route in few.routes if route.model == "nova-2-lite"]
    assert not [r for r in few.routes if r.kind == "bedrock-distillation"], "it needs 100 prompts"
    chat = [{"role": r, "content": f"{r}"} for r in ("user", "assistant", "user", "assistant")]
    (tmp_path / "chats").mkdir()
    job = loaded(tmp_path / "chats")
    rows = "\n".join(json.dumps({"messages": chat, "id": n}) for n in range(240))
    (tmp_path / "chats" / "train.jsonl").write_text(rows)
    # No model that takes another format is active today.
    monkeypatch.setattr(routes, "_legacy_reason", lambda model: None)
    comparison = routes.compare(job, Home(tmp_path / "home"), USAGE)
    assert "don't fit prompt-completion" in comparison.left_out["llama-3.1-8b"]


def test_regions_and_epochs_that_a_model_lacks_are_said(tmp_path: Path) -> None:
    more = {"bedrock": {"region": "us-west-2"}, "hyperparameters": {"epochCount": 5}}
    comparison = compared(tmp_path, **more)
    [pro] = [r for r in comparison.routes if r.model == "nova-pro"]
    assert pro.region == "us-east-1" and "does not train it in us-west-2" in pro.notes[0]


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


def test_labels_are_spread_below_the_top() -> None:
    places = [0.1, 0.5, 0.97, 0.98, 0.98, 0.99]
    spaced = spread(places)
    gaps = [later - earlier for earlier, later in itertools.pairwise(spaced)]
    assert min(gaps) >= LABEL_GAP - 1e-9 and spaced[-1] <= 1
    assert spaced[:2] == places[:2]
