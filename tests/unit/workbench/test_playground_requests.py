"""What the playground answers to requests: who may ask what, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from job_records import make_record
from processes import wait_until
from talking_parrot import open_parrot
from test_workbench_guard import HOST, ask

from cloudft.storage.home import Home
from cloudft.storage.store import Store
from cloudft.workbench.answer_runs import AnswerRuns
from cloudft.workbench.model_pool import ModelPool
from cloudft.workbench.workbench import Workbench

DECODING = {"maxNewTokens": "8", "temperature": "0", "topP": "1", "seed": "7"}
Make = Callable[..., Workbench]


@pytest.fixture
def make_workbench(tmp_path: Path) -> Make:
    """A workbench with a local job and one on Bedrock, whose models say what they are sent."""
    home = Home(tmp_path)
    store = Store(home.jobs)
    for name, backend in (("here-0", "local"), ("there-0", "bedrock")):
        with store.create(make_record(store, name, backend=backend)):
            pass

    def make(**options: Any) -> Workbench:
        workbench = Workbench(home, **options)
        object.__setattr__(workbench, "models", ModelPool(home, opener=open_parrot))
        object.__setattr__(workbench, "answers", AnswerRuns(workbench.models))
        return workbench

    return make


def post(workbench: Workbench, path: str, **request: Any) -> tuple[int, Any]:
    """Post a request as the page's script does."""
    token = workbench.form_token(path)
    body = urlencode({"form": token, "request": json.dumps(request)}).encode()
    status, _, text = ask(
        workbench,
        f"/{workbench.guard.token}{path}",
        method="POST",
        body=body,
        accept="application/json",
        origin=f"http://{HOST}",
    )
    return status, json.loads(text) if text.startswith("{") else text


def question(workbench: Workbench, text: str, job: str = "here", **more: Any) -> tuple[int, Any]:
    return post(workbench, "/playground/answers", jobs=[job], text=text, **DECODING, **more)


def test_each_model_goes_on_with_its_own_answers(make_workbench: Make) -> None:
    workbench = make_workbench()
    long = "<b>" + "\u0627" * 100_000 + "</b>"
    status, first = question(workbench, long)
    assert status == 200
    run = workbench.answers.get(first["id"])
    wait_until(lambda: run.has_ended, "the answers")
    assert [(task.variant, task.text) for task in run.tasks] == [
        ("base", f"{long} "),
        ("tuned", f"{long} "),
    ]
    status, second = question(workbench, "and", after=first["id"], system="Be brief.")
    turns = workbench.answers.get(second["id"]).tasks[1].prompt.messages
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert turns[2]["content"] == f"{long} "
    status, text = ask(
        workbench, f"/{workbench.guard.token}/playground/answers/{first['id']}/live"
    )[::2]
    assert status == 200 and text.rstrip().endswith("data: {}") and long.split()[0][:50] in text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text": " "}, "the prompt is empty"),
        ({"maxNewTokens": "0"}, "out of range"),
        ({"temperature": "nan"}, "out of range"),
        ({"topP": "x"}, "not made of numbers"),
        ({"jobs": ["nobody"]}, "nobody"),
        ({"jobs": ["here-0", "there-0", "x"]}, "room for 2 jobs"),
        ({"after": "gone"}, "conversation is lost"),
        ({"cases": "../jobs"}, "can't be the name of a set"),
        ({"cases": "none"}, "has no test cases"),
    ],
)
def test_what_can_t_be_answered_is_an_error_with_a_fix(
    make_workbench: Make, change: dict[str, Any], reason: str
) -> None:
    request = {"jobs": ["here"], "text": "x", **DECODING} | change
    status, answer = post(make_workbench(), "/playground/answers", **request)
    assert status in (400, 404) and reason in answer["error"]["message"]
    assert answer["error"]["fix"]


def test_billed_answers_need_a_confirmation(make_workbench: Make) -> None:
    workbench = make_workbench()
    status, answer = question(workbench, "x", "there")
    assert status == 400 and "are billed" in answer["error"]["message"]
    assert workbench.models.list_open() == [], "nothing was sent"
    status, answer = question(workbench, "x", "there", confirmed="yes")
    assert status == 400, "only true confirms"
    status, _ = question(workbench, "x", "there", confirmed=True)
    assert status == 200


def test_read_only_answers_and_saves_nothing(make_workbench: Make) -> None:
    workbench = make_workbench(read_only=True)
    status, run = question(workbench, "x")
    assert status == 200
    assert post(workbench, f"/playground/answers/{run['id']}/stop")[0] == 200
    status, answer = question(workbench, "x", "there", confirmed=True)
    assert status == 400 and "read-only" in answer["error"]["message"]
    case = {"job": "here", "set": "cases", "text": "x", "expected": "y"}
    assert post(workbench, "/playground/cases/save", **case)[0] == 403
    assert post(workbench, "/playground/cases/remove")[0] == 403
    assert not workbench.home.cases.exists()


def test_cases_are_saved_with_what_was_said_before_and_run(make_workbench: Make) -> None:
    workbench = make_workbench()
    _, first = question(workbench, "one")
    wait_until(lambda: workbench.answers.get(first["id"]).has_ended, "the answers")
    case = {"job": "here", "set": "cases", "text": "two", "expected": "2", "after": first["id"]}
    assert post(workbench, "/playground/cases/save", **case) == (200, {"set": "cases", "cases": 1})
    [line] = (workbench.home.cases / "cases.jsonl").read_bytes().splitlines()
    assert [turn["content"] for turn in json.loads(line)["messages"]] == ["one", "one ", "two", "2"]
    status, run = post(workbench, "/playground/answers", jobs=["here"], cases="cases", **DECODING)
    assert status == 200 and len(run["keys"]) == 1
    tasks = workbench.answers.get(run["id"]).tasks
    wait_until(lambda: workbench.answers.get(run["id"]).has_ended, "the cases")
    assert [task.text for task in tasks] == ["two ", "two "]
    status, _, page = ask(workbench, f"/{workbench.guard.token}/playground/cases?job=here")
    assert status == 200 and run["keys"][0] in page


def test_a_request_without_the_form_s_token_is_refused(make_workbench: Make) -> None:
    workbench = make_workbench()
    path = f"/{workbench.guard.token}/playground/answers"
    status, _, text = ask(workbench, path, method="POST", body=b"request={}&form=x")
    assert status == 403 and "no valid token" in text
