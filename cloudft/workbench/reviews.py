"""The blind reviews of a home: those that there are, and new ones of two evaluated sides."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from cloudft.errors import CloudftError, UsageError
from cloudft.evaluate.compare import ModelResult
from cloudft.evaluate.history import choose_evaluations, load_evaluations
from cloudft.evaluate.human_review.review import REVIEW_FILE, Review, read_review
from cloudft.evaluate.results import EVALUATIONS_FOLDER
from cloudft.storage.home import Home
from cloudft.storage.store import Store
from cloudft.workbench.job_choices import list_choices
from cloudft.workbench.job_states import JobStates

BASE = "base"


class ListedReview(TypedDict):
    """A review in the list: never who wins, which would bias the next judge."""

    id: str
    a: str
    b: str
    records: int
    judged: dict[str, int]
    createdAt: str
    problem: str


def list_reviews(root: Path) -> list[ListedReview]:
    """Return all reviews, the newest first. One that can't be opened has a `problem`."""
    found = [_list_review(path.parent) for path in root.glob(f"*/{REVIEW_FILE}")]
    return sorted(found, key=lambda one: (one["createdAt"], one["id"]), reverse=True)


def _list_review(folder: Path) -> ListedReview:
    listed: ListedReview = {
        "id": folder.name,
        "a": "",
        "b": "",
        "records": 0,
        "judged": {},
        "createdAt": "",
        "problem": "",
    }
    try:
        saved = read_review(folder)
        listed |= {"a": saved.a, "b": saved.b, "records": len(saved.records)}
        listed["createdAt"] = saved.created_at or ""
        judgments = Review.load(folder).load_judgments()
        listed["judged"] = {name: len(by_record) for name, by_record in judgments.items()}
    except CloudftError as error:
        listed["problem"] = f"{error.message}: {error.fix}" if error.fix else error.message
    return listed


def open_review(home: Home, review_id: str) -> Review:
    """Return a review by its id. Raise UsageError for one that there is not, StoreError."""
    if review_id not in {path.parent.name for path in home.reviews.glob(f"*/{REVIEW_FILE}")}:
        raise UsageError("there is no such review", fix="choose one of the list.")
    return Review.load(home.reviews / review_id)


def evaluated_jobs(states: JobStates) -> list[str]:
    """Return the ids of the jobs with an evaluation, the newest first. Raise StoreError."""
    return [
        one.record.id
        for one in list_choices(states)
        if any((one.record.folder / EVALUATIONS_FOLDER).glob("*.json"))
    ]


def create_review(home: Home, first: str, second: str, sample: int) -> Review:
    """Create the review of two sides, or return the one that there is; `base` is the base model.

    Raise UsageError when the two have no records in common, JobNotFound, StoreError.
    """
    named = [name for name in (first, second) if name != BASE]
    if not named or first == second:
        raise UsageError("a review needs two sides", fix="choose two jobs, or base and a job.")
    store = Store(home.jobs)
    records = [
        store.find_by_reference(named[0] if name == BASE else name) for name in (first, second)
    ]
    chosen = choose_evaluations([load_evaluations(record.folder)[0] for record in records])
    sides = [
        ModelResult(f"{record.base_model} (base)", evaluation, "base")
        if name == BASE
        else ModelResult(record.id, evaluation, "tuned")
        for name, record, evaluation in zip((first, second), records, chosen, strict=True)
    ]
    review = Review(home.reviews, sides[0], sides[1], sample=sample)
    review.save()
    return review
