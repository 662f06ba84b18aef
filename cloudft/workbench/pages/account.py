"""The account: what costs now, budgets, what expires, and what `gc` would remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudft.account.cleanup import is_expired
from cloudft.workbench.account import (
    Removal,
    Removals,
    look_at_account,
    remove_confirmed,
    remove_confirmed_tokens,
    resource_key,
    view_local,
)
from cloudft.workbench.forms import Form, form_action
from cloudft.workbench.rendering import render_page
from cloudft.workbench.text_format import format_bytes, format_time
from cloudft.workbench.workbench import workbench_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

KEYS = "keys"
"""The field that holds what was confirmed, one a line."""
FORMATS = {"bytes": format_bytes, "time": format_time, "key": resource_key, "expired": is_expired}


def routes() -> list[BaseRoute]:
    """Return the routes of this page."""
    from starlette.routing import Route

    return [
        Route("/account", show_account),
        Route("/account/cloud", send_cloud_part),
        Route("/account/remove", confirm_removal),
        Route("/account/remove", form_action(remove_resources), methods=["POST"]),
        Route("/account/remove-tokens", confirm_token_removal),
        Route("/account/remove-tokens", form_action(remove_tokens), methods=["POST"]),
    ]


def show_account(request: Request) -> Response:
    """Show what this machine knows; with `look`, what the account says as well."""
    workbench = workbench_of(request)
    cloud = look_at_account(workbench.home) if "look" in request.query_params else None
    removal = _removals(request).found.get(request.query_params.get("removal", ""))
    values = {"local": view_local(workbench), "cloud": cloud, "removal": removal}
    return render_page(request, "account.html", {"section": "account", **FORMATS, **values})


def send_cloud_part(request: Request) -> Response:
    """Send the part of the page that the account says, for the page's script."""
    cloud = look_at_account(workbench_of(request).home)
    return render_page(request, "account_cloud.html", {**FORMATS, "cloud": cloud})


def confirm_removal(request: Request) -> Response:
    """Show everything that would be removed from the account, and ask for it."""
    cloud = look_at_account(workbench_of(request).home)
    values = {"section": "account", **FORMATS, "cloud": cloud}
    return render_page(request, "account_remove.html", values)


def remove_resources(request: Request, form: Form) -> Response:
    """Remove what was confirmed, then show what is gone."""
    home = workbench_of(request).home
    return _show_removal(request, remove_confirmed(home, form.get(KEYS, "").splitlines()))


def confirm_token_removal(request: Request) -> Response:
    """Show the tokens on this machine that would be removed, and ask for it."""
    local = view_local(workbench_of(request))
    values = {"section": "account", **FORMATS, "local": local}
    return render_page(request, "account_remove_tokens.html", values)


def remove_tokens(request: Request, form: Form) -> Response:
    """Remove the tokens that were confirmed, then show what is gone."""
    home = workbench_of(request).home
    return _show_removal(request, remove_confirmed_tokens(home, form.get(KEYS, "").splitlines()))


def _show_removal(request: Request, removal: Removal) -> Response:
    from starlette.responses import RedirectResponse

    key = _removals(request).add(removal)
    root = request.scope["root_path"]
    return RedirectResponse(f"{root}/account?removal={key}", status_code=303)


def _removals(request: Request) -> Removals:
    state = request.app.state
    if not hasattr(state, "removals"):
        state.removals = Removals()
    found = state.removals
    assert isinstance(found, Removals)
    return found
