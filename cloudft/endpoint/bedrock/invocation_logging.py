"""The configuration of invocation logging: one for the account and Region."""

from __future__ import annotations

from cloudft.endpoint.bedrock.shapes import LoggingConfigurationRequest
from cloudft.endpoint.protocols.messages import Parameters, Response
from cloudft.endpoint.state import State


class InvocationLogging:
    """Operations on the configuration. It is kept, and nothing is logged by it."""

    def __init__(self, state: State) -> None:
        self.state = state

    def put_model_invocation_logging_configuration(
        self, request: LoggingConfigurationRequest
    ) -> Response:
        """Keep the configuration. Nothing is logged by it."""
        with self.state.lock:
            self.state.logging = dict(request["loggingConfig"])
            self.state.save()
        return {}

    def get_model_invocation_logging_configuration(self, request: Parameters) -> Response:
        """Return the configuration; nothing where there is none."""
        with self.state.lock:
            return {"loggingConfig": self.state.logging}

    def delete_model_invocation_logging_configuration(self, request: Parameters) -> Response:
        """Delete the configuration."""
        with self.state.lock:
            self.state.logging = None
        return {}
