"""`python -m cloudft.endpoint`: serve on loopback until the process ends.

The first line on standard output is the URL. Credentials may be anything.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from cloudft.endpoint.state import ACCOUNT

os.environ.setdefault("MOTO_ACCOUNT_ID", ACCOUNT)  # before moto is imported


def arguments() -> argparse.Namespace:
    """What the endpoint is started with."""
    parser = argparse.ArgumentParser(prog="python -m cloudft.endpoint", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--state", type=Path, help="folder of the trainings; temporary if unset")
    parser.add_argument("--trainer", choices=["local", "instant"], default="local")
    parser.add_argument("--seconds", type=float, default=0.0, help="of an instant training")
    parser.add_argument("--stand-in", default="smollm2-135m", help="trained for closed models")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the trained job"
    )
    parser.add_argument("--jobs", type=int, default=2, help="customization jobs at once")
    parser.add_argument(
        "--as-on-aws", action="store_true", help="offer no model past its end of life"
    )
    parser.add_argument(
        "--until-pid", type=int, metavar="PID", help="end when that process is gone"
    )
    parser.add_argument("--s3", help="URL of the S3 that jobs use; our own (moto's) if unset")
    return parser.parse_args()


def outlive(pid: int) -> None:
    """End this process when that one is gone."""
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            os._exit(0)
        time.sleep(1)


def listening(port: int) -> socket.socket:
    """A socket on loopback. Clients may connect from now on."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    made.listen(128)
    return made


def build(given: argparse.Namespace, url: str, state: Path) -> Any:
    """The application."""
    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    from cloudft.endpoint.app import App
    from cloudft.endpoint.customization import Customization
    from cloudft.endpoint.foundation import Foundation
    from cloudft.endpoint.state import State
    from cloudft.endpoint.training import InstantTrainer, LocalTrainer, Trainer

    s3 = boto3.client(
        "s3",
        endpoint_url=given.s3 or url,
        region_name=given.region,
        aws_access_key_id=os.environ.get("AWS_ACCESS_KEY_ID", "endpoint"),
        aws_secret_access_key=os.environ.get("AWS_SECRET_ACCESS_KEY", "endpoint"),
    )
    foundation = Foundation(given.region, as_on_aws=given.as_on_aws)
    settings = dict(item.split("=", 1) for item in given.set)
    trainer: Trainer = LocalTrainer(state, given.stand_in, settings)
    if given.trainer == "instant":
        trainer = InstantTrainer(state, given.seconds)
    customization = Customization(State(given.region), foundation, trainer, s3, given.jobs)
    return App(foundation, customization, DomainDispatcherApplication(create_backend_app))


def main() -> None:
    """Serve."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    from cloudft.endpoint.faults import Dropped
    from cloudft.endpoint.wire import SERVER

    class Handler(WSGIRequestHandler):
        """Says that it is not AWS; says nothing about requests."""

        protocol_version = "HTTP/1.1"

        def version_string(self) -> str:
            return SERVER

        def log(self, type: str, message: str, *args: Any) -> None:
            """Requests are not logged: they may hold what is nobody's business."""

        def run_wsgi(self) -> None:
            """A dropped reply breaks the connection off without a word."""
            try:
                super().run_wsgi()
            except Dropped:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

    given = arguments()
    with contextlib.ExitStack() as stack:
        state = given.state or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        state.mkdir(parents=True, exist_ok=True)
        ours = listening(given.port)
        url = f"http://127.0.0.1:{ours.getsockname()[1]}"
        app = build(given, url, state)
        server = make_server(
            "127.0.0.1", 0, app, threaded=True, request_handler=Handler, fd=ours.fileno()
        )
        server.passthrough_errors = True
        if given.until_pid:
            threading.Thread(target=outlive, args=(given.until_pid,), daemon=True).start()
        print(url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    sys.exit(0)


if __name__ == "__main__":
    main()
