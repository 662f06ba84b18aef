"""Tasks of state machines that call AWS's services: `aws-sdk:SERVICE:OPERATION`, and `bedrock:...`.

They replace moto's, which lacks PascalCase names and Bedrock. A task that calls an operation that
does not exist is refused when the state machine is created, as on AWS. This module is slow to
import (see `step_functions_interpreter`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from botocore import xform_name
from botocore.exceptions import ClientError, HTTPClientError
from moto.stepfunctions.parser.api import HistoryEventType, TaskFailedEventDetails
from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import (
    CustomErrorName,
)
from moto.stepfunctions.parser.asl.component.common.error_name.error_name import ErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import (
    FailureEvent,
    FailureEventException,
)
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import (
    StatesErrorName,
)
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import (
    StatesErrorNameType,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service,
    state_task_service_aws_sdk,
    state_task_service_callback,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.resource import (
    ResourceCondition,
)
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails

from cloudft.aws.s3 import split_s3_uri
from cloudft.endpoint.moto.step_functions_shapes import (
    exception_prefix,
    find_operation_model,
    find_service,
    from_boto,
    to_boto,
    to_json_value,
)
from cloudft.endpoint.protocols.service_models import OperationModel

if TYPE_CHECKING:
    from botocore.client import BaseClient

FINAL_STATUSES = {"Completed", "Failed", "Stopped"}
BEDROCK_OPERATIONS = {
    ("createModelCustomizationJob", None): "bedrock",
    ("createModelCustomizationJob", ResourceCondition.Sync): "bedrock",
    ("invokeModel", None): "bedrock-runtime",
}
"""Operation and pattern of Bedrock's own integrations -> boto3's service (Step Functions developer
guide, "Invoke and customize Amazon Bedrock models with Step Functions")."""


class ExecutionEnvironment(Protocol):
    """moto's `Environment` of an execution: the attributes that are used here."""

    stack: list[Any]
    variable_store: Any
    states: Any


class RuntimePart(Protocol):
    """moto's `ResourceRuntimePart` of a task: the attribute that is used here."""

    region: str


def boto_client(service: str, region: str) -> BaseClient:
    """Return the client that all integrations share."""
    client: BaseClient = state_task_service_aws_sdk.boto_client_for(service, region)
    return client


class PascalCaseMixin(state_task_service.StateTaskService):
    """Mixin of integrations whose parameters and results have PascalCase names, as on AWS."""

    def _find_service(self) -> str | None:
        """Return boto3's name of the service that the task calls; None if there is none."""
        raise NotImplementedError

    def _validate_service_integration_is_supported(self) -> None:
        service = self._find_service()
        if service is None or find_operation_model(service, self.resource.api_action) is None:
            raise ValueError(
                f"The resource provided {self.resource.resource_arn} is not recognized. The value"
                " is not a valid resource ARN, or the resource is not available in this region."
            )

    def _operation(self) -> OperationModel:
        operation = find_operation_model(self._get_boto_service_name(), self.resource.api_action)
        assert operation is not None, "validated when the state machine was created"
        return operation

    def _get_boto_service_name(self, boto_service_name: str | None = None) -> str:
        service = self._find_service()
        assert service is not None, "validated when the state machine was created"
        return service

    def _get_boto_service_action(self, service_action_name: str | None = None) -> str:
        return str(xform_name(self._operation().name))

    def _normalise_parameters(self, parameters: dict[str, Any], *_: object) -> None:
        shape = self._operation().input_shape
        converted = to_boto(parameters, shape) if shape is not None else {}
        parameters.clear()
        parameters.update(converted)

    def _normalise_response(self, response: Any, *_: object) -> None:
        converted = to_json_value(from_boto(response, self._operation().output_shape))
        response.clear()
        response.update(converted)

    def _task_failed(
        self, env: ExecutionEnvironment, error: ErrorName, cause: str
    ) -> FailureEventException:
        details = TaskFailedEventDetails(
            resource=self._get_sfn_resource(),
            resourceType=self._get_sfn_resource_type(),
            error=error.error_name,
            cause=cause,
        )
        return FailureEventException(
            FailureEvent(
                env=env,
                error_name=error,
                event_type=HistoryEventType.TaskFailed,
                event_details=EventDetails(taskFailedEventDetails=details),
            )
        )

    def _error_prefix(self) -> str:
        return exception_prefix(self._get_boto_service_name())

    def _from_error(self, env: ExecutionEnvironment, ex: Exception) -> FailureEvent:
        service = self._error_prefix()
        if isinstance(ex, ClientError):
            # boto3 has a class of each modeled error; AWS names any other error after the service.
            kind = type(ex).__name__
            name = (service if kind == "ClientError" else kind).removesuffix("Exception")
            cause = ex.response["Error"]["Message"]
            error = CustomErrorName(f"{service}.{name}Exception")
            return self._task_failed(env, error, cause).failure_event
        if isinstance(ex, HTTPClientError):
            error = CustomErrorName(f"{service}.SdkClientException")
            return self._task_failed(env, error, str(ex)).failure_event
        if isinstance(ex, ValueError):  # parameters that the API lacks
            runtime = StatesErrorName(StatesErrorNameType.StatesRuntime)
            return self._task_failed(env, runtime, str(ex)).failure_event
        return super()._from_error(env=env, ex=ex)


class AwsSdkTask(PascalCaseMixin, state_task_service_aws_sdk.StateTaskServiceAwsSdk):
    """A task `arn:aws:states:::aws-sdk:SERVICE:OPERATION`."""

    def _find_service(self) -> str | None:
        return find_service(self.resource.api_name)


class BedrockTask(PascalCaseMixin, state_task_service_callback.StateTaskServiceCallback):
    """A task `arn:aws:states:::bedrock:invokeModel` or `...:createModelCustomizationJob.sync`."""

    def __init__(self) -> None:
        # moto checks a task's suffix against these: `.sync`, `.waitForTaskToken`.
        super().__init__({ResourceCondition.WaitForTaskToken, ResourceCondition.Sync})

    def _find_service(self) -> str | None:
        return BEDROCK_OPERATIONS.get((self.resource.api_action, self.resource.condition))

    def _error_prefix(self) -> str:
        return "Bedrock"

    def _normalise_parameters(self, parameters: dict[str, Any], *_: object) -> None:
        if self.resource.api_action != "invokeModel":
            super()._normalise_parameters(parameters)
            return
        if "Output" in parameters:
            raise ValueError("This endpoint does not offer Output: the result has the body")
        if ("Body" in parameters) == ("Input" in parameters):
            raise ValueError("Either Body or Input is required, and not both")
        source = parameters.pop("Input", None)
        super()._normalise_parameters(parameters)
        if source is not None:
            bucket, key = split_s3_uri(source["S3Uri"])
            response = boto_client("s3", "").get_object(Bucket=bucket, Key=key)
            parameters["body"] = response["Body"].read()

    def _normalise_response(self, response: Any, *_: object) -> None:
        super()._normalise_response(response)
        # Unlike the SDK's integration, this one parses the body.
        if self.resource.api_action == "invokeModel":
            response["Body"] = json.loads(response["Body"])

    def _eval_service_task(
        self,
        env: ExecutionEnvironment,
        resource_runtime_part: RuntimePart,
        normalised_parameters: dict[str, Any],
        **_: object,
    ) -> None:
        client = boto_client(self._get_boto_service_name(), resource_runtime_part.region)
        response = getattr(client, self._get_boto_service_action())(**normalised_parameters)
        response.pop("ResponseMetadata", None)
        env.stack.append(response)

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
                failed = StatesErrorName(StatesErrorNameType.StatesTaskFailed)
                raise self._task_failed(env, failed, json.dumps(job))
            return job

        return poll
