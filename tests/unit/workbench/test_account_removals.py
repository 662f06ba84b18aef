"""What the account page removes: only what was confirmed by its form, and is unused now as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from test_workbench_guard import ask

from cloudft.account import cleanup
from cloudft.backends.resources import CloudResource
from cloudft.errors import CloudUnreachable
from cloudft.storage.home import Home
from cloudft.storage.ledger import SubmittedJobs
from cloudft.types import Listing
from cloudft.workbench import account
from cloudft.workbench.workbench import Workbench


def resource(name: str, **changes: Any) -> CloudResource:
    values: dict[str, Any] = {
        "kind": "custom-model",
        "id": f"arn:{name}",
        "name": name,
        "status": "Active",
        "created_at": "2026-01-02T03:04:05+00:00",
        "usd": {"perHour": None, "perMonth": 1.95},
        "job": f"{name}-00000000",
    }
    return CloudResource(**values | changes)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home(tmp_path / "home")
    for name in ("orphan", "other"):
        SubmittedJobs(found.jobs).add(f"{name}-00000000")
    return found


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was removed from an account with two orphans."""
    names: list[str] = []
    listing = Listing((resource("orphan"), resource("other")))
    monkeypatch.setattr(cleanup, "list_account", lambda *_: listing)

    def remove(_home: Home, _location: object, resources: Any) -> Any:
        for one in resources:
            if one.name == "other":
                raise CloudUnreachable("no connection", fix="try again.")
            names.append(one.name)
            yield one

    monkeypatch.setattr(cleanup, "remove_resources", remove)
    return names


def make_tokens(home: Home, name: str) -> Path:
    folder = home.tokens / name
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text("{}")
    return folder


def test_only_what_was_confirmed_is_removed(home: Home, removed: list[str]) -> None:
    found = account.remove_confirmed(home, ["custom-model arn:orphan", "data s3://in-use-by-now"])
    assert removed == ["orphan"] and found.removed == ("custom-model orphan",)
    assert found.left == ("data s3://in-use-by-now",) and found.error is None
    assert account.remove_confirmed(home, []).removed == () and removed == ["orphan"]


def test_an_error_midway_says_what_is_gone_and_what_is_not(home: Home, removed: list[str]) -> None:
    keys = ["custom-model arn:orphan", "custom-model arn:other"]
    found = account.remove_confirmed(home, keys)
    assert found.removed == ("custom-model orphan",)
    assert found.left == ("custom-model arn:other",)
    assert found.error is not None and found.error.message == "no connection"


def test_every_removal_needs_the_token_of_its_own_form(home: Home, removed: list[str]) -> None:
    workbench = Workbench(home)
    tokens = make_tokens(home, "f00d")
    targets = {"/account/remove": "custom-model arn:orphan", "/account/remove-tokens": "f00d"}
    for path, key in targets.items():
        other = next(one for one in targets if one != path)
        for form in ("", "0" * 64, workbench.form_token(other)):
            body = urlencode({"keys": key, "form": form}).encode()
            address = f"/{workbench.guard.token}{path}"
            assert ask(workbench, address, method="POST", body=body)[0] == 403
    assert removed == [] and tokens.exists()
    for path, key in targets.items():
        body = urlencode({"keys": key, "form": workbench.form_token(path)}).encode()
        status, headers, _ = ask(
            workbench, f"/{workbench.guard.token}{path}", method="POST", body=body
        )
        assert status == 303 and "/account?removal=" in headers["location"]
    assert removed == ["orphan"] and not tokens.exists()


def test_a_read_only_workbench_shows_what_it_does_not_remove(
    home: Home, removed: list[str]
) -> None:
    workbench = Workbench(home, read_only=True)
    tokens = make_tokens(home, "f00d")
    for path, key in {"remove": "orphan", "remove-tokens": "f00d"}.items():
        address = f"/{workbench.guard.token}/account/{path}"
        status, _, page = ask(workbench, address)
        assert status == 200 and key in page and "read-only" in page and "<form" not in page
        form = urlencode({"keys": key, "form": workbench.form_token(f"/account/{path}")})
        assert ask(workbench, address, method="POST", body=form.encode())[0] == 403
    assert removed == [] and tokens.exists()


def test_names_of_others_are_text(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = resource("<script>alert(1)</script>", job=None, expires_at="<b>never</b>")
    monkeypatch.setattr(cleanup, "list_account", lambda *_: Listing((theirs,)))
    workbench = Workbench(home)
    _, _, page = ask(workbench, f"/{workbench.guard.token}/account?look=1")
    assert "&lt;script&gt;alert(1)" in page and "<script>alert" not in page
    assert "not of cloudft" in page and "Nothing to remove" in page
