"""Render a page from its template. Every value is escaped; a page contains no script or style."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from cloudft import __version__
from cloudft.workbench.forms import FORM_TOKEN
from cloudft.workbench.workbench import workbench_of

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from starlette.requests import Request
    from starlette.responses import HTMLResponse

SECTIONS = (
    ("jobs", "Jobs", "/"),
    ("compare", "Compare", "/compare"),
    ("sweeps", "Sweeps", "/sweeps"),
    ("data", "Data", "/data"),
    ("playground", "Playground", "/playground"),
    ("label", "Label", "/label"),
    ("review", "Review", "/review"),
    ("account", "Account", "/account"),
)
"""The navigation: key, title, path."""


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from cloudft.evaluate.metrics.metric_labels import metric_label
    from cloudft.evaluate.report.pages import format_number, format_signed
    from cloudft.workbench.text_format import format_score

    environment = Environment(
        loader=PackageLoader("cloudft.workbench", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": format_number,
        "signed": format_signed,
        "metric": metric_label,
        "codes": mark_code,
        "score": format_score,
    }
    return environment


def load_templates() -> None:
    """Compile the templates of the first page, so that it does not wait for that."""
    for name in ("jobs.html", "jobs_table.html", "jobs_row.html"):
        _environment().get_template(name)


def mark_code(text: str) -> Markup:
    """Return a message, escaped, with what it has between backticks as code."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without its pair
        return escape(text)
    code = Markup("<code>{}</code>")
    return Markup("").join(
        code.format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )


def render_page(
    request: Request, template: str, values: Mapping[str, object], *, status: int = 200
) -> HTMLResponse:
    """Return the page of a template.

    Templates have `path(TEXT)` (an address of this workbench), `static(NAME)`, `form_token(PATH)`
    (the hidden field of a form that posts to PATH), `read_only` and `sections`.
    """
    from starlette.responses import HTMLResponse

    return HTMLResponse(render_part(request, template, values), status_code=status)


def render_part(request: Request, template: str, values: Mapping[str, object]) -> str:
    """Return a template's text: a page, or a part of one that a script puts in its place."""
    workbench = workbench_of(request)
    root = request.scope["root_path"]

    def path(text: str) -> str:
        return f"{root}{text}"

    def static(name: str) -> str:
        # Without a version: modules import each other by their plain names, and a module that has
        # two addresses is two modules, each with its own state and listeners.
        return f"{root}/static/{name}"

    def form_token(action: str) -> Markup:
        from markupsafe import Markup

        field = '<input type="hidden" name="{}" value="{}">'
        return Markup(field).format(FORM_TOKEN, workbench.form_token(action))

    own = {
        "path": path,
        "static": static,
        "form_token": form_token,
        "token_of": workbench.form_token,
        "read_only": workbench.read_only,
        "sections": SECTIONS,
        "version": __version__,
    }
    return _environment().get_template(template).render({**own, **values})
