"""Which names of repositories a push takes: those of huggingface_hub."""

from __future__ import annotations

import pytest

from cloudft.errors import UsageError
from cloudft.publishing.hub_repository import require_hub_id

hub = pytest.importorskip("huggingface_hub.utils")
NAMES = (
    *("router", "org/router", "my-org/ticket_router.v2", "o/" + "x" * 96, "a/b/c", "o/x y"),
    *(
        "org/",
        "/x",
        "",
        "o/-x",
        "o/x.",
        "o/a..b",
        "o/a--b",
        "o/" + "x" * 97,
        "../x",
        "o/é",
        "o/x\n",
    ),
)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_push_refuses_the_names_that_the_hub_refuses(name: str) -> None:
    try:
        hub.validate_repo_id(name)
    except hub.HFValidationError:
        with pytest.raises(UsageError, match="is no name of a repository on the Hub"):
            require_hub_id(name)
    else:
        require_hub_id(name)
