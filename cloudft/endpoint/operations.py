"""Which operations of the two services the endpoint offers: read off its code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cloudft.aws.shapes import service_model
from cloudft.endpoint.app import snake
from cloudft.endpoint.batches import Batches
from cloudft.endpoint.customization import Customization
from cloudft.endpoint.foundation import Foundation
from cloudft.endpoint.runtime import Runtime
from cloudft.endpoint.serving import ServingOperations
from cloudft.endpoint.training_jobs import TrainingJobs
from cloudft.endpoint.transfers import Transfers

ROOMS = (Foundation, Customization, ServingOperations, Transfers, Batches, Runtime)
SAGEMAKER = "sagemaker"
"""Of its some four hundred operations those alone are told that are offered."""


@dataclass(frozen=True)
class Line:
    """One operation of botocore's model. `does` is the first line of what it does here."""

    service: str
    operation: str
    offered: bool
    does: str


def operations() -> Iterator[Line]:
    """All of them, in botocore's order."""
    for service in ("bedrock", "bedrock-runtime"):
        for name in service_model(service).operation_names:
            room = next((room for room in ROOMS if hasattr(room, snake(name))), None)
            words = (getattr(room, snake(name)).__doc__ or "").strip() if room else ""
            yield Line(service, name, room is not None, words.partition(" Raises")[0])
    for name in service_model(SAGEMAKER).operation_names:
        does = getattr(TrainingJobs, snake(name), None)
        if does is not None:
            yield Line(SAGEMAKER, name, True, does.__doc__.strip().partition(" Raises")[0])


def markdown() -> str:
    """The table of the docs."""
    rows = [
        f"| {line.service} | {line.operation} | {'yes' if line.offered else 'no'} | {line.does} |"
        for line in operations()
    ]
    return "\n".join(["| service | operation | offered | here |", "|---|---|---|---|", *rows])
