"""Types of the parts of botocore's service model that the protocols read.

botocore has no annotations. These protocols name only what is used here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Shape(Protocol):
    """A shape of the service model.

    `type_name` says which attributes exist: `members` for a structure, `member` for a list, `key`
    and `value` for a map.
    """

    name: str
    type_name: str
    serialization: Mapping[str, str]
    metadata: Mapping[str, Mapping[str, int]]
    members: Mapping[str, Shape]
    member: Shape
    key: Shape
    value: Shape


class OperationModel(Protocol):
    """An operation of the service model. `http` has its method, URI pattern and response code."""

    name: str
    http: Mapping[str, str]
    input_shape: Shape | None
    output_shape: Shape | None
    error_shapes: Sequence[Shape]
    has_event_stream_output: bool


class ServiceModel(Protocol):
    """The model of one service."""

    metadata: Mapping[str, str]
    operation_names: Sequence[str]
    shape_names: Sequence[str]

    def operation_model(self, name: str) -> OperationModel:
        """Return the model of an operation."""

    def shape_for(self, name: str) -> Shape:
        """Return a shape by its name."""
