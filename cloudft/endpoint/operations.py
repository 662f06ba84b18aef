"""Find the method that implements an operation, and validate its input."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from cloudft.aws.request_validation import constraint_violations
from cloudft.endpoint.protocols.messages import Parameters, ServiceError
from cloudft.endpoint.protocols.service_models import Shape

Operation: TypeAlias = Callable[[Parameters], Parameters]


def snake_case(name: str) -> str:
    """Return an operation's name as its method: `GetCustomModel` -> `get_custom_model`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def find_operation(services: Sequence[object], name: str) -> Operation | None:
    """Return the method of one of the services that implements an operation; None if none does."""
    methods = (getattr(service, snake_case(name), None) for service in services)
    return next((method for method in methods if method is not None), None)


def validate_input(shape: Shape | None, parameters: Parameters, code: str) -> None:
    """Raise ServiceError with that code, naming every violated constraint of an input."""
    violations = list(constraint_violations(shape, parameters)) if shape else []
    if violations:
        plural = "s" if len(violations) > 1 else ""
        message = f"{len(violations)} validation error{plural} detected: {'; '.join(violations)}"
        raise ServiceError(code, message)
