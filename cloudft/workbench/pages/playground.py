"""Talk to a job's models side by side, look into their tokens, and keep prompts as test cases."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import TYPE_CHECKING

from cloudft.errors import UsageError
from cloudft.jobs.case_sets import DEFAULT_SET, CaseSets
from cloudft.jobs.inference_price import inference_price_text
from cloudft.jobs.lifecycle import backend_for
from cloudft.workbench import playground
from cloudft.workbench.answer_runs import RunFollower, turns_of
from cloudft.workbench.events import stream_events
from cloudft.workbench.forms import Form, form_action
from cloudft.workbench.job_choices import list_choices
from cloudft.workbench.job_states import KnownJob
from cloudft.workbench.rendering import render_page, render_part
from cloudft.workbench.workbench import Workbench, workbench_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

ANSWERS, CASES = "/playground/answers", "/playground/cases"
TOKEN_POLL_S = 0.05
"""Seconds between two looks at answers: a reader sees words appear, not lumps."""


def routes() -> list[BaseRoute]:
    """Return the routes of this page."""
    from starlette.routing import Route

    return [
        Route("/playground", show_playground),
        Route("/playground/price", send_price),
        Route("/playground/models", send_models),
        Route(ANSWERS, form_action(start_answers), methods=["POST"]),
        Route(f"{ANSWERS}/{{run}}/live", follow_answers),
        Route(f"{ANSWERS}/{{run}}/stop", form_action(stop_answers), methods=["POST"]),
        Route(f"{ANSWERS}/{{run}}/probabilities", form_action(rate_tokens), methods=["POST"]),
        Route(CASES, show_cases),
        Route(f"{CASES}/save", form_action(save_case), methods=["POST"]),
        Route(f"{CASES}/remove", form_action(remove_case), methods=["POST"]),
    ]


def show_playground(request: Request) -> Response:
    """Show the panes of the chosen jobs, or the jobs to choose from."""
    workbench = workbench_of(request)
    chosen = request.query_params.getlist("job")
    speakers = playground.list_speakers(workbench, chosen)
    values = {
        "section": "playground",
        "jobs": _jobs_with_models(workbench, {one.record.id for one in speakers}),
        "speakers": speakers,
        "chosen": list(dict.fromkeys(one.record.id for one in speakers)),
        "training": playground.list_training(workbench),
        "config": {
            "jobs": list(dict.fromkeys(one.record.id for one in speakers)),
            "speakers": [[one.record.id, one.variant] for one in speakers],
            "billed": [one.record.id for one in speakers if one.is_billed],
            "answersToken": workbench.form_token(ANSWERS),
            "saveToken": workbench.form_token(f"{CASES}/save"),
        },
        **_case_values(request, workbench),
    }
    return render_page(request, "playground.html", values)


def start_answers(request: Request, form: Form) -> Response:
    """Begin to answer a question, or the test cases of a set; send the id of the answers."""
    from starlette.responses import JSONResponse

    workbench, posted = workbench_of(request), playground.read_request(form.get("request", ""))
    speakers = playground.list_speakers(workbench, playground.read_jobs(posted))
    is_confirmed = posted.get("confirmed") is True
    playground.check_billing(workbench, speakers, is_confirmed=is_confirmed)
    decoding, keys = playground.read_decoding(posted), list[str]()
    if "cases" in posted:
        keys, tasks = playground.make_case_tasks(workbench, speakers, str(posted["cases"]))
        decoding = playground.as_greedy(decoding)
    else:
        tasks = playground.make_tasks(workbench, speakers, posted)
    run = workbench.answers.start(tasks, decoding)
    path = f"{ANSWERS}/{run.id}"
    tokens = {name: workbench.form_token(f"{path}/{name}") for name in ("stop", "probabilities")}
    return JSONResponse({"id": run.id, "keys": keys, **tokens})


def follow_answers(request: Request) -> Response:
    """Send the answers as they are generated."""
    workbench = workbench_of(request)
    run = workbench.answers.get(request.path_params["run"])
    follower = RunFollower(run, lambda: _models(workbench))
    return stream_events(request, follower.look, poll=TOKEN_POLL_S)


def stop_answers(request: Request, _form: Form) -> Response:
    """Stop the answers of a run."""
    from starlette.responses import JSONResponse

    workbench_of(request).answers.stop(request.path_params["run"])
    return JSONResponse({})


def rate_tokens(request: Request, form: Form) -> Response:
    """Send the probability of each token of an answer, by both models of its job."""
    from starlette.responses import JSONResponse

    posted = playground.read_request(form.get("request", ""))
    answers, run = workbench_of(request).answers, request.path_params["run"]
    rated = answers.rate_tokens(run, playground.read_index(posted), ["base", "tuned"])
    return JSONResponse(rated)


def send_price(request: Request) -> Response:
    """Send what answers of a job cost. Reads the account."""
    from starlette.responses import JSONResponse

    workbench = workbench_of(request)
    record = workbench.store.find_by_reference(request.query_params.get("job", ""))
    backend = backend_for(record, workbench.home)
    return JSONResponse({"price": inference_price_text(record, backend)})


def send_models(request: Request) -> Response:
    """Send which models are loaded."""
    from starlette.responses import JSONResponse

    return JSONResponse(_models(workbench_of(request)))


def show_cases(request: Request) -> Response:
    """Send the table of a set's test cases, for a page that shows an older one."""
    from starlette.responses import HTMLResponse

    workbench = workbench_of(request)
    speakers = playground.list_speakers(workbench, request.query_params.getlist("job"))
    if not speakers:
        raise UsageError("no job is chosen", fix="choose one on the page Playground.")
    values = {"speakers": speakers, **_case_values(request, workbench)}
    return HTMLResponse(render_part(request, "playground_cases.html", values))


def save_case(request: Request, form: Form) -> Response:
    """Save a prompt as a test case. It is on the disk when the page gets the answer."""
    from starlette.responses import JSONResponse

    workbench, posted = workbench_of(request), playground.read_request(form.get("request", ""))
    record = workbench.store.find_by_reference(str(posted.get("job", "")))
    before = workbench.answers.get(str(posted["after"])).tasks if posted.get("after") else ()
    turns = [
        *(turns_of(before[-1]) if before else ()),
        {"role": "user", "content": str(posted.get("text", ""))},
    ]
    sets, name = CaseSets(workbench.home), str(posted.get("set", ""))
    sets.add(name, record, str(posted.get("system", "")), turns, str(posted.get("expected", "")))
    return JSONResponse({"set": name, "cases": len(sets.load(name).cases)})


def remove_case(request: Request, form: Form) -> Response:
    """Remove a test case, and show the page again."""
    from starlette.responses import RedirectResponse

    CaseSets(workbench_of(request).home).remove(form.get("set", ""), form.get("key", ""))
    root = request.scope["root_path"]
    return RedirectResponse(f"{root}/playground?{form.get('back', '')}#cases", status_code=303)


def _models(workbench: Workbench) -> list[dict[str, object]]:
    found = [asdict(one) for one in workbench.models.list_open()]
    return [{**one, "seconds": int(one["seconds"])} for one in found]


def _jobs_with_models(workbench: Workbench, chosen: Collection[str]) -> list[KnownJob]:
    """Return the jobs whose models may answer, newest first."""
    known = list_choices(workbench.jobs, chosen)
    return [one for one in known if one.status in ("Completed", "Looking", "Unknown")]


def _case_values(request: Request, workbench: Workbench) -> dict[str, object]:
    from urllib.parse import urlencode

    sets = CaseSets(workbench.home)
    name = request.query_params.get("set") or next(iter(sets.names()), DEFAULT_SET)
    jobs = request.query_params.getlist("job")
    return {
        "sets": sets.names(),
        "case_set": sets.load(name),
        "back_jobs": jobs,
        "back": urlencode([*(("job", job) for job in jobs), ("set", name)]),
    }
