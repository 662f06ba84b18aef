"""What the Data pages of one workbench share while it runs."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.storage.home import Home
from cloudft.workbench.data_pages.choices import DataSet, choose_data
from cloudft.workbench.data_pages.indexes import IndexKeeper
from cloudft.workbench.data_pages.surveys import SurveyKeeper
from cloudft.workbench.data_pages.tokenizers import TokenizerKeeper
from cloudft.workbench.workbench import workbench_of

if TYPE_CHECKING:
    from starlette.requests import Request

_LOCK = threading.Lock()


@dataclass(frozen=True)
class DataState:
    """Indexes, the tokenizer and surveys. `folder` is where the workbench was started."""

    indexes: IndexKeeper
    tokenizers: TokenizerKeeper
    surveys: SurveyKeeper
    folder: Path

    @classmethod
    def of_home(cls, home: Home) -> DataState:
        """Return the state of a workbench that shows a home."""
        return cls(
            IndexKeeper(home.data), TokenizerKeeper(home), SurveyKeeper(home.data), Path.cwd()
        )

    def close(self) -> None:
        """End what runs in the background."""
        self.indexes.close()
        self.tokenizers.close()
        self.surveys.close()


def data_state(request: Request) -> DataState:
    """Return the state of the workbench that a request came to."""
    state = request.app.state
    with _LOCK:
        if not hasattr(state, "data_pages"):
            state.data_pages = DataState.of_home(workbench_of(request).home)
        found = state.data_pages
    assert isinstance(found, DataState)
    return found


def chosen_data(request: Request) -> DataSet:
    """Return the data that an address names. Raise UsageError, JobNotFound, SpecError."""
    workbench = workbench_of(request)
    return choose_data(
        request.query_params, workbench.store, workbench.home, data_state(request).folder
    )
