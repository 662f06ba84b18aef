"""Airflow's Amazon provider: its operators, sensors and triggers, as a worker runs them."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from airflow.providers.amazon.aws.operators import bedrock, cloud_formation, step_function
from airflow.providers.amazon.aws.sensors import bedrock as bedrock_sensors
from airflow.providers.amazon.aws.sensors import cloud_formation as stack_sensors
from airflow.providers.amazon.aws.sensors import step_function as execution_sensors
from airflow.providers.amazon.aws.triggers.bedrock import BedrockCustomizeModelCompletedTrigger
from botocore.exceptions import ClientError
from conftest import ROLE

BASE = "amazon.titan-text-express-v1"
NAME = "airflow"
HYPERPARAMETERS = {
    "epochCount": "10",
    "batchSize": "1",
    "learningRate": "0.03",
    "learningRateWarmupSteps": "0",
}
PROMPT = "Where is parcel 3?"


class TaskInstance:
    """The part of a task instance that the operators use."""

    def xcom_push(self, *args: Any, **keys: Any) -> None:
        pass


CONTEXT = {"ti": TaskInstance(), "task_instance": TaskInstance()}


def customize(model: str, **more: Any) -> Any:
    """Return the operator of a job named NAME, which waits for the job's end."""
    operator: Any = bedrock.BedrockCustomizeModelOperator(
        task_id=model,
        job_name=NAME,
        custom_model_name=model,
        role_arn=ROLE,
        base_model_id=f"{BASE}:0:8k",
        training_data_uri="s3://airflow/train.jsonl",
        output_data_uri="s3://airflow/out",
        hyperparameters=HYPERPARAMETERS,
        waiter_delay=1,
        waiter_max_attempts=300,
        **more,
    )
    return operator


@pytest.fixture(scope="module")
def model(boto: Any) -> str:
    """Tune a model by the operator, and return its ARN."""
    s3 = boto("s3")
    s3.create_bucket(Bucket="airflow")
    records = [{"prompt": f"Where is parcel {n}?", "completion": "Lyon"} for n in range(8)]
    s3.put_object(Bucket="airflow", Key="train.jsonl", Body="\n".join(map(json.dumps, records)))
    arn = customize("first").execute(CONTEXT)
    job = boto("bedrock").get_model_customization_job(jobIdentifier=arn)
    assert (job["jobName"], job["status"]) == (NAME, "Completed"), job
    return str(job["outputModelArn"])


def test_the_sensor_and_the_trigger_see_that_the_job_has_completed(model: str) -> None:
    sensor = bedrock_sensors.BedrockCustomizeModelCompletedSensor(task_id="see", job_name=NAME)
    assert sensor.poke(CONTEXT)
    trigger = BedrockCustomizeModelCompletedTrigger(
        job_name=NAME, waiter_delay=1, waiter_max_attempts=30, aws_conn_id="aws_default"
    )

    async def first_event() -> Any:
        async for event in trigger.run():
            return event

    assert asyncio.run(first_event()).payload == {"status": "success", "job_name": NAME}


def test_a_name_that_is_taken_gets_a_time_as_in_a_retry(model: str, boto: Any) -> None:
    # The operator finds out by the words "The provided job name is currently in use".
    arn = customize("second").execute(CONTEXT)
    job = boto("bedrock").get_model_customization_job(jobIdentifier=arn)
    assert job["jobName"].startswith(f"{NAME}-") and job["status"] == "Completed", job


def test_a_name_that_is_taken_is_refused_where_it_must_not_change(model: str) -> None:
    with pytest.raises(ClientError, match="The provided job name is currently in use"):
        customize("third", ensure_unique_job_name=False).execute(CONTEXT)


def test_the_tuned_model_answers_on_provisioned_throughput(model: str) -> None:
    create = bedrock.BedrockCreateProvisionedModelThroughputOperator(
        task_id="provision",
        model_units=1,
        provisioned_model_name=NAME,
        model_id=model,
        waiter_delay=1,
    )
    throughput = create.execute(CONTEXT)
    sensor = bedrock_sensors.BedrockProvisionModelThroughputCompletedSensor(
        task_id="in-service", model_id=throughput
    )
    assert sensor.poke(CONTEXT)
    body = {"inputText": PROMPT, "textGenerationConfig": {"maxTokenCount": 5}}

    def invoke(identifier: str) -> Any:
        operator = bedrock.BedrockInvokeModelOperator(
            task_id="invoke", model_id=identifier, input_data=body
        )
        return operator.execute(CONTEXT)["results"][0]

    tuned, base = invoke(throughput), invoke(BASE)
    assert base["tokenCount"] == 5
    assert "Lyon" in tuned["outputText"] and "Lyon" not in base["outputText"]


def test_a_batch_is_answered(model: str, boto: Any) -> None:
    records = [
        {"recordId": f"{n}", "modelInput": {"inputText": f"Where is parcel {n}?"}}
        for n in range(100)
    ]
    for record in records:
        record["modelInput"]["textGenerationConfig"] = {"maxTokenCount": 3}
    boto("s3").put_object(
        Bucket="airflow", Key="batch/in.jsonl", Body="\n".join(map(json.dumps, records))
    )
    operator = bedrock.BedrockBatchInferenceOperator(
        task_id="batch",
        job_name=NAME,
        role_arn=ROLE,
        model_id=BASE,
        input_uri="s3://airflow/batch/in.jsonl",
        output_uri="s3://airflow/answers/",
        waiter_delay=1,
    )
    arn = operator.execute(CONTEXT)
    job = boto("bedrock").get_model_invocation_job(jobIdentifier=arn)
    assert job["status"] == "Completed", job
    key = f"answers/{arn.rpartition('/')[2]}/in.jsonl.out"
    lines = boto("s3").get_object(Bucket="airflow", Key=key)["Body"].read().splitlines()
    assert len(lines) == 100 and all("modelOutput" in json.loads(line) for line in lines)


def test_a_stack_is_created_and_deleted(boto: Any) -> None:
    template = {"TemplateBody": "Resources: {Box: {Type: AWS::S3::Bucket}}"}
    cloud_formation.CloudFormationCreateStackOperator(
        task_id="create", stack_name=NAME, cloudformation_parameters=template
    ).execute(CONTEXT)
    wait_for(stack_sensors.CloudFormationCreateStackSensor(task_id="created", stack_name=NAME))
    cloud_formation.CloudFormationDeleteStackOperator(task_id="delete", stack_name=NAME).execute(
        CONTEXT
    )
    wait_for(stack_sensors.CloudFormationDeleteStackSensor(task_id="deleted", stack_name=NAME))


def test_a_state_machine_that_calls_the_model_is_run(boto: Any) -> None:
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::bedrock:invokeModel",
        "Parameters": {"ModelId": BASE, "Body": {"inputText.$": "$.prompt"}},
        "ResultSelector": {"tokens.$": "$.Body.inputTextTokenCount"},
        "End": True,
    }
    machine = boto("stepfunctions").create_state_machine(
        name=NAME,
        roleArn=ROLE,
        definition=json.dumps({"StartAt": "Ask", "States": {"Ask": task}}),
    )["stateMachineArn"]
    start = step_function.StepFunctionStartExecutionOperator(
        task_id="start", state_machine_arn=machine, state_machine_input={"prompt": PROMPT}
    )
    execution = start.execute(CONTEXT)
    wait_for(execution_sensors.StepFunctionExecutionSensor(task_id="end", execution_arn=execution))
    output = step_function.StepFunctionGetExecutionOutputOperator(
        task_id="output", execution_arn=execution
    )
    assert output.execute(CONTEXT)["tokens"] > 1


def wait_for(sensor: Any) -> None:
    """Poke a sensor until it is satisfied."""
    until = time.monotonic() + 120
    while not sensor.poke(CONTEXT):
        assert time.monotonic() < until, f"{sensor.task_id} waits in vain"
        time.sleep(0.2)
