"""What every page of one workbench shares: the home it shows, its token, and whether it writes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloudft.storage.home import Home
from cloudft.storage.store import Store
from cloudft.web.request_guard import RequestGuard
from cloudft.workbench.answer_runs import AnswerRuns
from cloudft.workbench.cloud_details import CloudDetails
from cloudft.workbench.curves import CurveCache
from cloudft.workbench.exports import Exports
from cloudft.workbench.job_states import JobStates
from cloudft.workbench.job_table import Scores
from cloudft.workbench.model_pool import ModelPool
from cloudft.workbench.sparkline import Sparklines

if TYPE_CHECKING:
    from starlette.requests import Request


@dataclass(frozen=True)
class Workbench:
    """One running workbench. `read_only` refuses every request that would change something."""

    home: Home
    read_only: bool = False
    guard: RequestGuard = field(default_factory=RequestGuard)
    form_key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    curves: CurveCache = field(init=False, repr=False)
    jobs: JobStates = field(init=False, repr=False)
    exports: Exports = field(init=False, repr=False)
    models: ModelPool = field(init=False, repr=False)
    answers: AnswerRuns = field(init=False, repr=False)
    sparklines: Sparklines = field(default_factory=Sparklines, repr=False)
    scores: Scores = field(default_factory=Scores, repr=False)

    def __post_init__(self) -> None:
        """Begin with jobs of which nothing is known yet."""
        object.__setattr__(self, "jobs", JobStates(self.home))
        object.__setattr__(self, "curves", CurveCache(CloudDetails(self.home)))
        object.__setattr__(self, "exports", Exports(self.home))
        object.__setattr__(self, "models", ModelPool(self.home))
        object.__setattr__(self, "answers", AnswerRuns(self.models))

    @property
    def store(self) -> Store:
        """Return the store of the jobs that this machine knows."""
        return Store(self.home.jobs)

    def form_token(self, path: str) -> str:
        """Return the token that a form must send with what it posts to `path`.

        It is another one for each path: a form of one page can't be sent to another.
        """
        return hmac.new(self.form_key, path.encode(), hashlib.sha256).hexdigest()

    def is_valid_form_token(self, path: str, token: str) -> bool:
        """Return whether `token` is that of the form of `path`, in constant time."""
        return hmac.compare_digest(token.encode(), self.form_token(path).encode())


def workbench_of(request: Request) -> Workbench:
    """Return the workbench that a request came to."""
    found = request.app.state.workbench
    assert isinstance(found, Workbench)
    return found
