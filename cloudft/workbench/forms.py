"""Read what a form or a script of a page posts: never without the token of that form."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from cloudft.errors import CloudftError, UsageError
from cloudft.workbench.workbench import workbench_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

Form = dict[str, str]
"""The fields of a form; of several values with one name the last one."""
FORM_TOKEN = "form"
MAX_FORM_BYTES = 2_000_000


class FormRefused(CloudftError):
    """A form that is too large, or without the token of its page."""

    code = "FormRefused"


def form_action(
    handle: Callable[[Request, Form], Response],
) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that reads and checks a form, then calls `handle` in a thread.

    Raise FormRefused.
    """
    from starlette.concurrency import run_in_threadpool

    async def endpoint(request: Request) -> Response:
        form = await read_form(request)
        return await run_in_threadpool(handle, request, form)

    return endpoint


async def read_form(request: Request) -> Form:
    """Return the fields of a URL-encoded form. Raise FormRefused, UsageError."""
    size = request.headers.get("content-length", "")
    if not size.isdecimal() or int(size) > MAX_FORM_BYTES:
        raise FormRefused("the form is too large", fix=f"send at most {MAX_FORM_BYTES:,} bytes.")
    body = await request.body()
    try:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=1000))
    except ValueError as error:
        raise UsageError(f"the form can't be read: {error}") from error
    workbench = workbench_of(request)
    path = request.url.path.removeprefix(request.scope["root_path"])
    if not workbench.is_valid_form_token(path, fields.pop(FORM_TOKEN, "")):
        raise FormRefused(
            "the form has no valid token",
            fix="open the page again: the workbench was restarted since.",
        )
    return fields
