"""moto's interpreter of state machines, mended to run what AWS runs.

It lacks three things: JSONata (it wants a JVM), AWS's spelling in the integrations (large first
letters, both ways), and Bedrock's `.sync`. They are mended in moto's private classes: `moto==5.2.*`
is pinned for it. Heavy to import: only an endpoint that gets a request for Step Functions does.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from typing import Any

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

FINAL_STATUSES = {"Completed", "Failed", "Stopped"}
POLL_S = 0.05
PARSE_FUNCTION = "$parse := function($text) { $eval($text) };"


def evaluate_jsonata(self: StringJSONata, env: Any) -> None:
    """An expression by a JSONata of Python's; nothing (undefined) is an error, as on AWS."""
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


def to_json_value(value: Any) -> Any:
    """As JSON has it: AWS's times are text."""

    def text(other: Any) -> str:
        assert isinstance(other, datetime.datetime), type(other)
        return other.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")

    return json.loads(json.dumps(value, default=text))


def query_evaluation_error(env: Any, cause: str) -> FailureEventException:
    """The failure of an expression."""
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


def boto_client(service: str, region: str) -> Any:
    """The client that all integrations share."""
    return state_task_service_aws_sdk.boto_client_for(service, region)


class PascalCaseMixin(state_task_service.StateTaskService):
    """Requests and answers in the spelling of AWS's integrations: large first letters."""

    def _operation_shape(self, which: str) -> Any:
        client = boto_client(self._get_boto_service_name(), "us-east-1")
        names = client.meta.method_to_api_mapping
        operation = client.meta.service_model.operation_model(
            names[self._get_boto_service_action()]
        )
        return getattr(operation, which)

    def _normalise_parameters(self, parameters: dict[str, Any], *_: Any) -> None:
        for name in parameters:
            assert name[0].isupper(), f"AWS would not know {name}"
        self._to_boto_request(parameters, self._operation_shape("input_shape"))

    def _normalise_response(self, response: Any, *_: Any) -> None:
        shape = self._operation_shape("output_shape")
        if shape is not None:
            self._from_boto_response(response, shape)
            response.update(to_json_value(response))

    def _task_failed(self, env: Any, error: str, cause: str) -> FailureEventException:
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

    def _from_error(self, env: Any, ex: Exception) -> FailureEvent:
        service = {"cloudwatch": "CloudWatch"}.get(
            self.resource.api_name, self.resource.api_name.capitalize()
        )
        if isinstance(ex, ClientError):
            kind = type(ex).__name__  # an error without a class has the service's name
            name = (service if kind == "ClientError" else kind).removesuffix("Exception")
            cause = ex.response["Error"]["Message"]
            return self._task_failed(env, f"{service}.{name}Exception", cause).failure_event
        if isinstance(ex, HTTPClientError):
            return self._task_failed(env, f"{service}.SdkClientException", str(ex)).failure_event
        return super()._from_error(env=env, ex=ex)


class AwsSdkTask(PascalCaseMixin, state_task_service_aws_sdk.StateTaskServiceAwsSdk):
    """`arn:aws:states:::aws-sdk:SERVICE:OPERATION`."""


class BedrockTask(PascalCaseMixin, state_task_service_callback.StateTaskServiceCallback):
    """`arn:aws:states:::bedrock:createModelCustomizationJob.sync`."""

    def __init__(self) -> None:
        super().__init__({ResourceCondition.WaitForTaskToken, ResourceCondition.Sync})

    def _validate_service_integration_is_supported(self) -> None:
        assert self.resource.api_action == "createModelCustomizationJob"

    def _eval_service_task(
        self, env: Any, resource_runtime_part: Any, normalised_parameters: dict[str, Any], **_: Any
    ) -> None:
        bedrock = boto_client("bedrock", resource_runtime_part.region)
        answer = bedrock.create_model_customization_job(**normalised_parameters)
        env.stack.append({"jobArn": answer["jobArn"]})

    def _build_sync_resolver(
        self, env: Any, resource_runtime_part: Any, **_: Any
    ) -> Callable[[], Any]:
        arn = env.stack.pop()["JobArn"]
        bedrock = boto_client("bedrock", resource_runtime_part.region)

        def look() -> Any:
            job = to_json_value(bedrock.get_model_customization_job(jobIdentifier=arn))
            if job["status"] not in FINAL_STATUSES:
                return None
            if job["status"] != "Completed":
                raise self._task_failed(env, "States.TaskFailed", json.dumps(job))
            return job

        return look


def patch_moto(create_client: Callable[[str], Any]) -> None:
    """Mend moto in this process. `services` gives the client, without retries, of a service."""

    def client(service: str, region: str, state_credentials: Any = None) -> Any:
        return create_client(service)

    for module in (state_task_service_aws_sdk, state_task_service_sns):
        module.boto_client_for = client
    state_task_service_callback._DELAY_SECONDS_SYNC_CONDITION_CHECK = POLL_S
    StringJSONata._eval_body = evaluate_jsonata
    others = state_task_factory.state_task_service_for
    ours: Mapping[str, type] = {"aws-sdk": AwsSdkTask, "bedrock": BedrockTask}

    def task_of(service_name: str) -> Any:
        return ours[service_name]() if service_name in ours else others(service_name)

    state_task_factory.state_task_service_for = task_of
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
