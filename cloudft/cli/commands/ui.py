"""ui: the workbench in the browser."""

from __future__ import annotations

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, aws_options, console_options
from cloudft.cli.param_types import PORT
from cloudft.storage.home import Home


@command(
    "ui",
    epilog="\b\nExamples:\n  cloudft ui\n  cloudft ui --read-only --port 8600 --no-browser",
)
@click.option("--port", type=PORT, default=0, help="Port of the workbench; 0 picks a free one.")
@click.option("--read-only", is_flag=True, help="Refuse everything that would change something.")
@click.option("--no-browser", is_flag=True, help="Print the URL and open no browser.")
@aws_options
@console_options
def ui_command(port: int, read_only: bool, no_browser: bool, console: Console) -> int:
    """Look at jobs, data, answers, labels and costs in the browser, live.

    The workbench is served on this machine and reachable only from it, by an address with a token.
    With --output json the first line on standard output is {"url": ...}.
    """
    import webbrowser

    from cloudft.workbench.server import serve_workbench
    from cloudft.workbench.workbench import Workbench

    def announce(url: str) -> None:
        if console.is_json:
            import json

            click.echo(json.dumps({"url": url}))
        else:
            click.echo(f"workbench at {url} (Ctrl-C stops it; jobs go on)", err=True)
        if not no_browser:
            webbrowser.open(url)

    serve_workbench(Workbench(Home.from_environ(), read_only), port, announce)
    return 0
