"""Several models held against the first, and the pages that are written of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cloudft.cli.commands.compare import comparison_lines
from cloudft.errors import UsageError
from cloudft.evaluate.compare import ModelResult, adjust_holm, compare_models
from cloudft.evaluate.report.compare_page import render_compare_page
from cloudft.evaluate.report.pages import write_page

LABELS = ["a", "b"]


def side(name: str, right: list[bool], *, prompts: str = "p", **more: Any) -> ModelResult:
    records = [
        {
            "key": f"{prompts}{n}",
            "file": "test.jsonl",
            "line": n + 1,
            "prompt": f"<b>{prompts}{n}</b>" + " long" * n,
            "reference": LABELS[n % 2],
            "tuned": {"text": LABELS[n % 2] if hit else "no", "score": float(hit)},
        }
        for n, hit in enumerate(right)
    ]
    evaluation = {"job": name, "metric": "accuracy", "labels": LABELS, "records": records}
    return ModelResult(name, evaluation | more, "tuned")


WEAK = [n % 4 == 0 for n in range(40)]
STRONG = [n % 4 != 1 or n == 0 for n in range(40)]


def test_each_is_held_against_the_first() -> None:
    found = compare_models([side("weak", WEAK), side("strong", STRONG), side("same", WEAK)])
    assert [row["name"] for row in found["leaderboard"]] == ["strong", "weak", "same"]
    strong, same = found["comparisons"]
    assert strong["verdict"] == "better" and strong["sentence"].startswith("strong is better")
    assert len(strong["fixed"]) == 20 and strong["broken"] == []
    assert strong["fixed"][0]["before"] == "no" and strong["delta"]["value"] == pytest.approx(0.5)
    assert same["verdict"] == "no difference" and same["fixed"] == same["broken"] == []
    assert {s["by"] for s in strong["slices"]} == {"label", "length"}
    [back] = compare_models([side("strong", STRONG), side("weak", WEAK)])["comparisons"]
    assert back["verdict"] == "worse" and len(back["broken"]) == 20


def test_a_model_that_learned_the_form_alone_is_not_called_better_than_its_base() -> None:
    reported = "No improvement beyond the answer format: 10 % against 12 %."

    def held(level: str) -> str:
        tuned = side("job", STRONG, pitfalls={"form": {"level": level, "sentence": reported}})
        records = [{**r, "base": {"text": "no", "score": 0.0}} for r in tuned.evaluation["records"]]
        base = ModelResult("model (base)", {**tuned.evaluation, "records": records}, "base")
        other = side("weak", WEAK)
        to_base, _ = compare_models([base, tuned, other])["comparisons"]
        [to_other] = compare_models([other, tuned])["comparisons"]
        assert to_other["verdict"] == "better"  # form is a matter between a model and its base
        assert (reported in to_base["sentence"]) is (level == "bad")
        return str(to_base["verdict"])

    assert (held("bad"), held("good")) == ("no difference", "better")


def test_p_values_are_adjusted_for_their_number() -> None:
    assert adjust_holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjust_holm([0.9, 0.8]) == [1.0, 1.0]
    assert adjust_holm([0.02]) == [0.02]


def test_other_records_and_other_metrics_are_reported_or_refused() -> None:
    found = compare_models([side("weak", WEAK), side("short", STRONG[:30])])
    assert found["n"] == 30 and found["warnings"][0]["code"] == "DifferentRecords"
    with pytest.raises(UsageError, match="none in common"):
        compare_models([side("weak", WEAK), side("other", WEAK, prompts="q")])
    with pytest.raises(UsageError, match="different metrics"):
        compare_models([side("weak", WEAK), side("other", WEAK, metric="chrf")])
    identities = {"identities": {"tuned": "sha"}}
    twice = compare_models([side("a", WEAK, **identities), side("b", WEAK, **identities)])
    assert twice["warnings"][0]["code"] == "SameModel"


def test_the_page_stands_alone_and_escapes_what_records_say(tmp_path: Path) -> None:
    page = render_compare_page(compare_models([side("weak", WEAK), side("strong", STRONG)]))
    assert "&lt;b&gt;p2&lt;/b&gt;" in page and "<b>p2" not in page
    assert "default-src 'none'" in page and not re.search(
        r'(src|href)="?http|<script|@import', page
    )
    write_page(tmp_path / "page.html", page, force=False)
    with pytest.raises(UsageError, match="exists already"):
        write_page(tmp_path / "page.html", page, force=False)
    write_page(tmp_path / "page.html", "new", force=True)
    assert (tmp_path / "page.html").read_text() == "new"


def judged_side(name: str, right: list[bool], judge: str) -> ModelResult:
    """Return a model whose answers a judge scored, all but the first one."""
    made = side(name, right)
    records = [
        {**record, "tuned": {**record["tuned"], "judged": {"Relevance": {"score": score}}}}
        for record, score in zip(
            made.evaluation["records"], [None, *map(float, right[1:])], strict=True
        )
    ]
    suite = {"suite": "bedrock-judge:Relevance", "figure": judge}
    return ModelResult(name, {**made.evaluation, "records": records, "suites": [suite]}, "tuned")


def test_models_are_compared_by_what_the_same_judge_says_of_both() -> None:
    first = judged_side("weak", WEAK, "by nova")
    found = compare_models([first, judged_side("strong", STRONG, "by nova")])
    [comparison] = found["comparisons"]
    [judged] = comparison["judged"]
    assert judged["n"] == 39 and judged["delta"]["value"] > 0.4
    assert judged["unscored"] == {"base": 1, "tuned": 1}
    assert judged["sentence"].startswith("strong is better: relevance")
    assert comparison["fixed"][0]["judgedAfter"]["Relevance"]["score"] == 1.0
    lines = "\n".join(comparison_lines(found))
    assert "bedrock-judge:Relevance by nova" in lines
    others = compare_models([first, judged_side("strong", STRONG, "by claude")])
    assert others["comparisons"][0]["judged"] == []
    assert (
        compare_models([side("weak", WEAK), side("strong", STRONG)])["comparisons"][0]["judged"]
        == []
    )
