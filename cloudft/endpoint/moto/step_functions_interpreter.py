"""Patch moto's interpreter of state machines, so that it runs what AWS runs.

It lacks three features: JSONata (its own needs a JVM), the PascalCase names of AWS's integrations
in parameters and results, and Bedrock's `.sync`. They are added to moto's private classes:
`moto==5.2.*` is pinned for it. This module is slow to import: only an endpoint that gets a request
to Step Functions imports it.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import ClientError, HTTPClientError
from jsonata import Jsonata
from moto.core.config import default_user_config
from moto.stepfunctions.parser.api import (
    EvaluationFailedEventDetails,
    HistoryEventType,
    TaskFailedEventDetails,
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
    state_task_service,
    state_task_service_aws_sdk,
    state_task_service_callback,
    state_task_service_sns,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.resource import (
    ResourceCondition,
)
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails

from cloudft.endpoint.clients import ClientFactory
from cloudft.endpoint.protocols.service_models import Shape

if TYPE_CHECKING:
    from botocore.client import BaseClient

FINAL_STATUSES = {"Completed", "Failed", "Stopped"}
POLL_S = 0.05
"""How often a `.sync` task checks its job."""
PARSE_FUNCTION = "$parse := function($text) { $eval($text) };"
"""Step Functions has a function of JSON texts that the language lacks (developer guide, "JSONata
functions provided by Step Functions")."""


class ExecutionEnvironment(Protocol):
    """moto's `Environment` of an execution: the attributes that are used here."""

    stack: list[Any]
    variable_store: Any
    states: Any


class RuntimePart(Protocol):
    """moto's `ResourceRuntimePart` of a task: the attribute that is used here."""

    region: str


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


def to_json_value(value: object) -> Any:
    """Return a value of botocore as JSON data; times become text, as AWS writes them."""

    def format_time(other: object) -> str:
        assert isinstance(other, datetime.datetime), type(other)
        return other.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")

    return json.loads(json.dumps(value, default=format_time))


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


def boto_client(service: str, region: str) -> BaseClient:
    """Return the client that all integrations share."""
    client: BaseClient = state_task_service_aws_sdk.boto_client_for(service, region)
    return client


class PascalCaseMixin(state_task_service.StateTaskService):
    """Mixin of integrations whose parameters and results have PascalCase names, as on AWS."""

    def _operation_shape(self, which: str) -> Shape | None:
        """Return the `input_shape` or the `output_shape` of the task's operation."""
        client = boto_client(self._get_boto_service_name(), "us-east-1")
        names = client.meta.method_to_api_mapping
        operation = client.meta.service_model.operation_model(
            names[self._get_boto_service_action()]
        )
        shape: Shape | None = getattr(operation, which)
        return shape

    def _normalise_parameters(self, parameters: dict[str, Any], *_: object) -> None:
        for name in parameters:
            assert name[0].isupper(), f"AWS expects {name} in PascalCase"
        self._to_boto_request(parameters, self._operation_shape("input_shape"))

    def _normalise_response(self, response: Any, *_: object) -> None:
        shape = self._operation_shape("output_shape")
        if shape is not None:
            self._from_boto_response(response, shape)
            response.update(to_json_value(response))

    def _task_failed(
        self, env: ExecutionEnvironment, error: str, cause: str
    ) -> FailureEventException:
        details = TaskFailedEventDetails(
            resource=self._get_sfn_resource(),
            resourceType=self._get_sfn_resource_type(),
            error=error,
            cause=cause,
        )
        return FailureEventException(
            FailureEvent(
                env=env,
                error_name=CustomErrorName(error),
                event_type=HistoryEventType.TaskFailed,
                event_details=EventDetails(taskFailedEventDetails=details),
            )
        )

    def _from_error(self, env: ExecutionEnvironment, ex: Exception) -> FailureEvent:
        service = {"cloudwatch": "CloudWatch"}.get(
            self.resource.api_name, self.resource.api_name.capitalize()
        )
        if isinstance(ex, ClientError):
            # boto3 has a class of each modeled error; AWS names any other error after the service.
            kind = type(ex).__name__
            name = (service if kind == "ClientError" else kind).removesuffix("Exception")
            cause = ex.response["Error"]["Message"]
            return self._task_failed(env, f"{service}.{name}Exception", cause).failure_event
        if isinstance(ex, HTTPClientError):
            return self._task_failed(env, f"{service}.SdkClientException", str(ex)).failure_event
        return super()._from_error(env=env, ex=ex)


class AwsSdkTask(PascalCaseMixin, state_task_service_aws_sdk.StateTaskServiceAwsSdk):
    """A task `arn:aws:states:::aws-sdk:SERVICE:OPERATION`."""


class BedrockTask(PascalCaseMixin, state_task_service_callback.StateTaskServiceCallback):
    """A task `arn:aws:states:::bedrock:createModelCustomizationJob.sync`."""

    def __init__(self) -> None:
        # moto checks a task's suffix against these: `.sync`, `.waitForTaskToken`.
        super().__init__({ResourceCondition.WaitForTaskToken, ResourceCondition.Sync})

    def _validate_service_integration_is_supported(self) -> None:
        assert self.resource.api_action == "createModelCustomizationJob"

    def _eval_service_task(
        self,
        env: ExecutionEnvironment,
        resource_runtime_part: RuntimePart,
        normalised_parameters: dict[str, Any],
        **_: object,
    ) -> None:
        bedrock = boto_client("bedrock", resource_runtime_part.region)
        response = bedrock.create_model_customization_job(**normalised_parameters)
        env.stack.append({"jobArn": response["jobArn"]})

    def _build_sync_resolver(
        self, env: ExecutionEnvironment, resource_runtime_part: RuntimePart, **_: object
    ) -> Callable[[], Any]:
        # In PascalCase by now: moto normalizes the result between the two steps.
        arn = env.stack.pop()["JobArn"]
        bedrock = boto_client("bedrock", resource_runtime_part.region)

        def poll() -> Any:
            """Return the ended job; None while it runs. Raises the failure of a failed job."""
            job = to_json_value(bedrock.get_model_customization_job(jobIdentifier=arn))
            if job["status"] not in FINAL_STATUSES:
                return None
            if job["status"] != "Completed":
                raise self._task_failed(env, "States.TaskFailed", json.dumps(job))
            return job

        return poll


def patch_moto(client: ClientFactory) -> None:
    """Patch moto in this process. `client` returns the client, without retries, of a service."""

    def boto_client_for(service: str, region: str, state_credentials: object = None) -> BaseClient:
        return client(service)

    for module in (state_task_service_aws_sdk, state_task_service_sns):
        module.boto_client_for = boto_client_for
    state_task_service_callback._DELAY_SECONDS_SYNC_CONDITION_CHECK = POLL_S
    StringJSONata._eval_body = evaluate_jsonata
    motos_task_for = state_task_factory.state_task_service_for
    own_tasks: Mapping[str, type] = {"aws-sdk": AwsSdkTask, "bedrock": BedrockTask}

    def state_task_service_for(service_name: str) -> object:
        if service_name in own_tasks:
            return own_tasks[service_name]()
        return motos_task_for(service_name)

    state_task_factory.state_task_service_for = state_task_service_for
    # moto's default is a fake execution that calls nothing.
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
