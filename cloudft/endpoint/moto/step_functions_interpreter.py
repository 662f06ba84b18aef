"""Patch moto's interpreter of state machines, so that it runs what AWS runs.

It lacks three features: JSONata (its own needs a JVM), the PascalCase names of AWS's integrations
in parameters and results, and Bedrock's integrations. They are added to moto's private classes, and
its parser gets a state of its own for each definition: `moto==5.2.*` is pinned for it. This module
is slow to import: only an endpoint that gets a request to Step Functions imports it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jsonata import Jsonata
from moto.core.config import default_user_config
from moto.core.exceptions import AWSError
from moto.stepfunctions.parser import api
from moto.stepfunctions.parser.api import (
    EvaluationFailedEventDetails,
    HistoryEventType,
    InvalidDefinition,
)
from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import (
    CustomErrorName,
)
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import (
    FailureEvent,
    FailureEventException,
)
from moto.stepfunctions.parser.asl.component.common.string.string_expression import StringJSONata
from moto.stepfunctions.parser.asl.component.state.exec.state_task import state_task_factory
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service_aws_sdk,
    state_task_service_callback,
    state_task_service_sns,
)
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.parse.asl_parser import (
    AmazonStateLanguageParser,
    ASLParserException,
)
from moto.stepfunctions.parser.asl.parse.preprocessor import Preprocessor
from moto.stepfunctions.parser.models import StepFunctionsParserBackend

from cloudft.endpoint.clients import ClientFactory
from cloudft.endpoint.moto.step_functions_json_path import patch_json_path
from cloudft.endpoint.moto.step_functions_shapes import to_json_value
from cloudft.endpoint.moto.step_functions_tasks import (
    AwsSdkTask,
    BedrockTask,
    ExecutionEnvironment,
)

if TYPE_CHECKING:
    from botocore.client import BaseClient

POLL_S = 0.05
"""How often a `.sync` task checks its job."""
CLASS_NAME = re.compile(r"<class '[\w.]*?(\w+)'>")
"""A class in moto's messages: its last part is the field that is meant."""
PARSE_FUNCTION = "$parse := function($text) { $eval($text) };"
"""Step Functions has a function of JSON texts that the language lacks (developer guide, "JSONata
functions provided by Step Functions")."""


def evaluate_jsonata(self: StringJSONata, env: ExecutionEnvironment) -> None:
    """Evaluate an expression by jsonata-python; an undefined result is an error, as on AWS."""
    # What an expression can refer to: $states, and the variables of the execution.
    store = env.variable_store
    bindings = {"states": env.states._states_data, **store._outer_scope, **store._inner_scope}
    try:
        result = Jsonata(f"({PARSE_FUNCTION} {self.expression})").evaluate(
            None, to_json_value(bindings)
        )
    except Exception as error:
        raise query_evaluation_error(env, f"'{self.expression}': {error}") from error
    if result is None:
        raise query_evaluation_error(env, f"'{self.expression}' returned nothing (undefined).")
    env.stack.append(to_json_value(result))


def query_evaluation_error(env: ExecutionEnvironment, cause: str) -> FailureEventException:
    """Return the failure of an expression that can't be evaluated."""
    # The error name that state machines catch on AWS.
    name = "States.QueryEvaluationError"
    details = EvaluationFailedEventDetails(cause=cause, error=name)
    return FailureEventException(
        FailureEvent(
            env=env,
            error_name=CustomErrorName(name),
            event_type=HistoryEventType.EvaluationFailed,
            event_details=EventDetails(evaluationFailedEventDetails=details),
        )
    )


def use_own_scopes(preprocessor: Preprocessor) -> None:
    """Give a new preprocessor a list of its own of the query languages of a definition's scopes.

    moto keeps it in the class: all definitions share it, and one that is refused leaves its
    language to those that come after it.
    """
    preprocessor._query_language_per_scope = []


def find_definition_error(definition: str) -> str | None:
    """Return why a definition can't be run; None for one that can."""
    try:
        AmazonStateLanguageParser.parse(definition)
    except ASLParserException as error:
        return "; ".join(error.errors)
    except Exception as error:  # whatever moto raises is the reason
        return CLASS_NAME.sub(r"\1", str(error) or type(error).__name__)
    return None


def validate_definition(definition: str) -> None:
    """Raise InvalidDefinition, in AWS's words, for a definition that can't be run."""
    reason = find_definition_error(definition)
    if reason is not None:
        message = f"Invalid State Machine Definition: 'SCHEMA_VALIDATION_FAILED: {reason}'"
        raise InvalidDefinition(message=message)


def name_executions() -> None:
    """Give each execution that is started without a name one of its own: moto calls it `None`."""
    start = StepFunctionsParserBackend.start_execution

    def start_execution(
        self: StepFunctionsParserBackend, arn: str, name: str | None = None, *rest: object
    ) -> object:
        return start(self, arn, name or str(uuid.uuid4()), *rest)

    StepFunctionsParserBackend.start_execution = start_execution


def name_errors() -> None:
    """Give moto's errors of state machines the codes that they declare: they are sent without."""
    errors: list[Any] = [
        value
        for value in vars(api).values()
        if isinstance(value, type) and issubclass(value, AWSError) and "code" in vars(value)
    ]
    for error in errors:
        error.TYPE = error.code


def patch_moto(client: ClientFactory) -> None:
    """Patch moto in this process. `client` returns the client, without retries, of a service."""

    def boto_client_for(service: str, region: str, state_credentials: object = None) -> BaseClient:
        return client(service)

    for module in (state_task_service_aws_sdk, state_task_service_sns):
        module.boto_client_for = boto_client_for
    state_task_service_callback._DELAY_SECONDS_SYNC_CONDITION_CHECK = POLL_S
    StringJSONata._eval_body = evaluate_jsonata
    name_errors()
    name_executions()
    patch_json_path()
    Preprocessor.__init__ = use_own_scopes
    StepFunctionsParserBackend._validate_definition = staticmethod(validate_definition)
    motos_task_for = state_task_factory.state_task_service_for
    own_tasks: Mapping[str, type] = {"aws-sdk": AwsSdkTask, "bedrock": BedrockTask}

    def state_task_service_for(service_name: str) -> object:
        if service_name in own_tasks:
            return own_tasks[service_name]()
        return motos_task_for(service_name)

    state_task_factory.state_task_service_for = state_task_service_for
    # moto's default is a fake execution that calls nothing.
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
