"""A review is blind, saved at once and can be resumed; its judgments are summarized."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import krippendorff
import pytest
from model_results import make_model_result

from cloudft.errors import UsageError
from cloudft.evaluate.compare import ModelResult
from cloudft.evaluate.human_review.agreement import CHOICES, summarize_judgments
from cloudft.evaluate.human_review.review import Review, Reviewer, format_csv
from cloudft.evaluate.human_review.review_server import ReviewServer
from cloudft.evaluate.human_review.whole_answers import remove_unfinished_end

COUNT = 12


@pytest.fixture
def review(tmp_path: Path) -> Review:
    found = Review(
        tmp_path,
        make_model_result("first", "a", COUNT, "<i>Q{}</i>"),
        make_model_result("second", "b", COUNT, "<i>Q{}</i>"),
    )
    found.save()
    return found


def favor(reviewer: Reviewer, letter: str) -> None:
    """Judge every record for the side whose answers begin so."""
    while (look := reviewer.get_record())["record"]:
        seen = "left" if look["record"]["left"].startswith(letter) else "right"
        reviewer.save_judgment(look["position"], seen, "")


def test_sides_and_records_come_in_an_order_of_each_reviewers_own(review: Review) -> None:
    ada, bob = Reviewer(review, "ada"), Reviewer(review, "bob")
    assert ada.order != bob.order and sorted(ada.order) == sorted(bob.order)
    left = [ada.get_record(n)["record"]["left"][0] for n in range(COUNT)]
    assert set(left) == {"a", "b"}
    assert "first" not in json.dumps(ada.get_record()) and "second" not in json.dumps(
        ada.get_record()
    )
    assert Reviewer(review, "ada").order == ada.order


def test_judgments_mean_the_side_whatever_stood_where(review: Review) -> None:
    favor(Reviewer(review, "ada"), "b")
    found = review.summarize()
    assert found["counts"] == {"a": 0, "b": COUNT, "tie": 0, "bad": 0}
    assert found["winRate"]["value"] == 1.0 and 0.7 < found["winRate"]["low"] < 0.8
    assert found["agreement"]["value"] is None
    favor(Reviewer(review, "bob"), "b")
    assert review.summarize()["agreement"]["value"] == 1.0


def test_a_review_goes_on_where_it_was_left_and_the_last_word_counts(review: Review) -> None:
    ada = Reviewer(review, "ada")
    ada.save_judgment(0, "left", "first thought")
    ada.save_judgment(1, "tie", "")
    [path] = review.folder.glob("judgements-*")
    path.write_bytes(path.read_bytes()[:-20])  # the second was cut short
    again = Reviewer(review, "ada")
    assert again.get_record()["position"] == 1 and again.get_record()["judged"] == 1
    again.save_judgment(1, "bad", "now whole")
    again.save_judgment(0, "right", "second thought")
    first = again.get_record(0)["record"]
    assert (first["choice"], first["note"]) == ("right", "second thought")
    assert again.get_record(1)["record"]["choice"] == "bad" and again.get_record()["position"] == 2
    assert len(review.export_rows()) == 2


def test_agreement_is_krippendorffs() -> None:
    said = {
        "ada": {"1": "a", "2": "b", "3": "b", "4": "tie"},
        "bob": {"1": "a", "2": "b", "3": "a"},
        "cleo": {"2": "b", "3": "b", "4": "tie"},
    }
    table = [
        [CHOICES.index(found[k]) if k in found else float("nan") for k in "1234"]
        for found in said.values()
    ]
    known = krippendorff.alpha(reliability_data=table, level_of_measurement="nominal")
    assert summarize_judgments(said)["agreement"]["value"] == pytest.approx(known, abs=1e-12)
    nothing = summarize_judgments({})
    assert nothing["winRate"]["value"] is None and nothing["judgements"] == 0


def test_more_reviewers_of_the_same_records_are_no_more_records() -> None:
    one = {str(n): "b" if n < 14 else "a" if n < 19 else "tie" for n in range(20)}
    alone = summarize_judgments({"ada": one})
    four = summarize_judgments(dict.fromkeys(("ada", "bob", "cleo", "dan"), one))
    assert four["winRate"] == alone["winRate"] and four["winRate"]["decided"] == 19
    assert alone["winRate"]["value"] == pytest.approx(14 / 19)
    assert (four["judgements"], four["judgedRecords"], four["counts"]["b"]) == (80, 20, 56)
    split = summarize_judgments(
        {"ada": {"1": "a", "2": "b"}, "bob": {"1": "b", "2": "bad"}, "cleo": {"2": "b", "3": "tie"}}
    )
    # The first record is even, the second went to b, the third to nobody.
    assert (split["winRate"]["value"], split["winRate"]["decided"]) == (1.0, 1)
    assert split["winRate"]["low"] < 0.3


def test_an_export_starts_no_formula(review: Review) -> None:
    Reviewer(review, "ada").save_judgment(0, "tie", "=HYPERLINK(1)")
    assert "'=HYPERLINK" in format_csv(review.export_rows())
    with pytest.raises(UsageError):
        Reviewer(review, "../ada")


def make_cut_results() -> tuple[ModelResult, ModelResult]:
    """Return a side that a limit has cut in each record, and one that ends its answers."""
    first = make_model_result("first", "I think. The label is ", COUNT, "Q{}")
    second = make_model_result("second", "\n b", COUNT, "Q{}")
    for result, reason in ((first, "length"), (second, "stop")):
        result.evaluation["decoding"] = {"maxNewTokens": 16}
        for record in result.evaluation["records"]:
            record["tuned"]["finishReason"] = reason
    return first, second


def test_nothing_that_a_reviewer_gets_shows_which_side_a_limit_has_cut(tmp_path: Path) -> None:
    review = Review(tmp_path, *make_cut_results())
    assert len(review.cut_keys("a")) == COUNT and review.cut_keys("b") == []
    ada = Reviewer(review, "ada")
    seen = [ada.get_record(n) for n in range(COUNT)]
    assert len({tuple(look) + tuple(look["record"]) for look in seen}) == 1
    # Their evaluation has cut them at 16 tokens: 128 hold only once they are continued.
    assert {look["tokenLimit"] for look in seen} == {None}
    answers = {look["record"][side] for look in seen for side in ("left", "right")}
    assert answers == {"I think."} | {f"b{n}" for n in range(COUNT)}


def test_whole_answers_take_the_place_of_those_that_were_cut_for_good(tmp_path: Path) -> None:
    review = Review(tmp_path, *make_cut_results())
    review.save_whole({"a": {"k0": "I think. The label is billing."}, "b": {}})
    again = Review(tmp_path, *make_cut_results())
    assert again.id == review.id and "k0" not in again.cut_keys("a")
    assert again.pairs["k0"].a == "I think. The label is billing."
    assert Reviewer(again, "ada").get_record()["tokenLimit"] == 128
    Reviewer(again, "ada").save_judgment(0, "tie", "")
    again.save()
    assert Review(tmp_path, *make_cut_results()).summarize()["judgements"] == 1


@pytest.mark.parametrize(
    ("cut", "shown"),
    [
        ("One. Two is unfin", "One."),
        ('He said "yes." And th', 'He said "yes."'),
        ("- a\n- b", "- a"),
        ("1. Open it.\n2.", "1. Open it."),
        ("no end of a sen", "no end of a"),
        ("Version 3.5 of th", "Version 3.5 of"),
        ("\u4e00\u3002\u4e8c", "\u4e00\u3002"),
        ("word", "word"),
        ("Ends here.", "Ends here."),
    ],
)
def test_an_unfinished_end_is_left_out(cut: str, shown: str) -> None:
    assert remove_unfinished_end(cut) == shown


@pytest.fixture
def server(review: Review) -> Iterator[ReviewServer]:
    with ReviewServer(Reviewer(review, "ada")) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def ask(url: str, body: Any = None, **headers: str) -> tuple[int, bytes, Any]:
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def test_the_server_answers_who_has_the_address_and_no_one_else(server: ReviewServer) -> None:
    status, page, headers = ask(server.url)
    assert status == 200 and b"Which answer" in page and b"NONCE" not in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert not [part for part in (b"http://", b"https://", b"//cdn") if part in page]
    root = f"http://127.0.0.1:{server.server_port}"
    assert ask(f"{root}/")[0] == ask(f"{root}/wrong/record")[0] == 404
    assert ask(f"{server.url}record", Host="evil.example")[0] == 404
    assert ask(f"{server.url}../../etc/passwd")[0] == 404
    for body in (b"{", {"position": "0", "choice": "left"}, {"position": 0}, [], b"\xff"):
        assert ask(f"{server.url}judge", body)[0] == 400, body
    for body in ({"position": 99, "choice": "left"}, {"position": 0, "choice": "best"}):
        assert ask(f"{server.url}judge", body)[0] == 409, body
    status, answer, _ = ask(f"{server.url}judge", {"position": 0, "choice": "tie", "note": "n"})
    assert status == 200 and json.loads(answer)["judged"] == 1
    assert json.loads(ask(f"{server.url}record/0")[1])["record"]["choice"] == "tie"
