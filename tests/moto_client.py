"""Create boto3 clients of a WSGI application in this process: no socket, no server."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from werkzeug.test import EnvironBuilder

from cloudft.endpoint.wsgi import call_wsgi_app

URL = "http://127.0.0.1:5000"


class _Body(io.BytesIO):
    def stream(self, amount: int = 1024, decode_content: bool | None = None) -> Iterator[bytes]:
        yield self.read()


def create_client(app: Callable[..., Any], service: str, region: str = "us-east-1") -> Any:
    """Return a client whose requests the application answers."""
    config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    client = boto3.client(
        service,
        endpoint_url=URL,
        region_name=region,
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=config,
    )

    def send(request: Any, **_: Any) -> AWSResponse:
        answer = call_wsgi_app(app, wsgi_environ(request))
        return AWSResponse(request.url, answer.status, dict(answer.headers), _Body(answer.body))

    client.meta.events.register("before-send", send)
    return client


def wsgi_environ(request: Any) -> dict[str, Any]:
    """Return the WSGI environment of a request that botocore has prepared."""
    parts = urlsplit(request.url)
    uri = parts.path + (f"?{parts.query}" if parts.query else "")
    body = request.body.read() if hasattr(request.body, "read") else request.body or b""
    builder = EnvironBuilder(
        method=request.method,
        path=parts.path,
        base_url=URL,
        query_string=parts.query,
        headers=[
            (name, value.decode() if isinstance(value, bytes) else value)
            for name, value in request.headers.items()
        ],
        data=body.encode() if isinstance(body, str) else body,
    )
    return builder.get_environ() | {"REQUEST_URI": uri, "RAW_URI": uri}
