"""Judge two models' answers blind, several reviewers at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudft.errors import UsageError
from cloudft.evaluate.human_review.review import Reviewer, ReviewPosition
from cloudft.workbench.forms import Form, form_action
from cloudft.workbench.rendering import render_page
from cloudft.workbench.reviews import create_review, evaluated_jobs, list_reviews, open_review
from cloudft.workbench.workbench import workbench_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute


def routes() -> list[BaseRoute]:
    """Return the routes of this page."""
    from starlette.routing import Route

    return [
        Route("/review", show_reviews),
        Route("/review", form_action(create), methods=["POST"]),
        Route("/review/{id}", show_review),
        Route("/review/{id}/work", show_work),
        Route("/review/{id}/record", send_record),
        Route("/review/{id}/judge", form_action(judge), methods=["POST"]),
        Route("/review/{id}/results", show_results),
    ]


def show_reviews(request: Request) -> Response:
    """Show all reviews, and the form that starts one."""
    workbench = workbench_of(request)
    values = {
        "section": "review",
        "reviews": list_reviews(workbench.home.reviews),
        "jobs": evaluated_jobs(workbench.jobs),
    }
    return render_page(request, "review.html", values)


def create(request: Request, form: Form) -> Response:
    """Start a review of two sides, or open the one that there is."""
    first, second = form.get("a", "").strip(), form.get("b", "").strip()
    sample = _read_number(form.get("sample", "") or "0")
    review = create_review(workbench_of(request).home, first, second, sample)
    return _redirect(request, f"/review/{review.id}")


def show_review(request: Request) -> Response:
    """Show how much of a review is judged by whom, and not who wins."""
    review = open_review(workbench_of(request).home, request.path_params["id"])
    judged = {name: len(by_record) for name, by_record in review.load_judgments().items()}
    cut = sum(len(pair.cut) for pair in review.pairs.values())
    values = {"section": "review", "review": review, "judged": judged, "cut": cut}
    return render_page(request, "review_overview.html", values)


def _reviewer(request: Request, name: str) -> Reviewer:
    return Reviewer(open_review(workbench_of(request).home, request.path_params["id"]), name)


def show_work(request: Request) -> Response:
    """Show the first record that a reviewer has not judged; the script shows the others."""
    reviewer = _reviewer(request, request.query_params.get("reviewer", ""))
    values = {
        "section": "review",
        "review": reviewer.review,
        "reviewer": reviewer.name,
        "start": reviewer.get_record(),
    }
    return render_page(request, "review_work.html", values)


def send_record(request: Request) -> Response:
    """Send the record at a position of a reviewer's order."""
    from starlette.responses import JSONResponse

    reviewer = _reviewer(request, request.query_params.get("reviewer", ""))
    position = request.query_params.get("position")
    found: ReviewPosition = reviewer.get_record(
        None if position is None else _read_number(position)
    )
    return JSONResponse(found)


def judge(request: Request, form: Form) -> Response:
    """Save a judgment. It is on disk when this answers, with the next record."""
    from starlette.responses import JSONResponse

    reviewer = _reviewer(request, form.get("reviewer", ""))
    position = _read_number(form.get("position", ""))
    reviewer.save_judgment(position, form.get("choice", ""), form.get("note", ""))
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse(reviewer.get_record())
    review = reviewer.review
    return _redirect(request, f"/review/{review.id}/work?reviewer={reviewer.name}")


def show_results(request: Request) -> Response:
    """Show who wins and how well the reviewers agree: on demand, for it biases who reads it."""
    review = open_review(workbench_of(request).home, request.path_params["id"])
    values = {"section": "review", "review": review, "summary": review.summarize()}
    return render_page(request, "review_results.html", values)


def _read_number(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise UsageError(f"{text[:40]!r} is no number", fix="reload the page.")
    return int(text)


def _redirect(request: Request, path: str) -> Response:
    from starlette.responses import RedirectResponse

    return RedirectResponse(f"{request.scope['root_path']}{path}", status_code=303)
