"""An endpoint whose account has the models of completed jobs: nothing is trained first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from endpoint import BUCKET, REGION, ROLE, Endpoint

from cloudft.endpoint.state import Job, Model, State, now

NOVA_LITE, NOVA_MICRO = "amazon.nova-lite-v1:0:300k", "amazon.nova-micro-v1:0:128k"


def write_completed_jobs(folder: Path, bases: dict[str, str]) -> Path:
    """Write the state of an endpoint with a completed job of each name; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    state = State(REGION, folder)
    for name, base in bases.items():
        base_arn = f"arn:aws:bedrock:{REGION}::foundation-model/{base}"
        request = {
            "jobName": name,
            "customModelName": name,
            "roleArn": ROLE,
            "baseModelIdentifier": base,
            "trainingDataConfig": {"s3Uri": f"s3://{BUCKET}/train.jsonl"},
            "outputDataConfig": {"s3Uri": f"s3://{BUCKET}/out"},
        }
        job = Job(state.arn("model-customization-job", base), request, base_arn)
        model = Model(state.arn("custom-model", base), name, base_arn, job.arn)
        job.status, job.ended, job.model_arn = "Completed", now(), model.arn
        state.jobs[job.arn], state.models[model.arn] = job, model
        state.tag(model.arn, [{"key": "cloudft:job", "value": name}])
    state.save()
    return folder


def model_of(endpoint: Endpoint, job: str) -> str:
    """Return the ARN of a job's model."""
    got = endpoint.client("bedrock").get_model_customization_job(jobIdentifier=job)
    return str(got["outputModelArn"])


def read_serving(endpoint: Endpoint, arn: str) -> dict[str, Any]:
    """Return a deployment or throughput as the API does."""
    bedrock = endpoint.client("bedrock")
    if ":provisioned-model/" in arn:
        got: dict[str, Any] = bedrock.get_provisioned_model_throughput(provisionedModelId=arn)
    else:
        got = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=arn)
    return got


def tags_of(endpoint: Endpoint, arn: str) -> dict[str, str]:
    """Return the tags of a resource."""
    tags = endpoint.client("bedrock").list_tags_for_resource(resourceARN=arn)["tags"]
    return {tag["key"]: tag["value"] for tag in tags}


UPDATES = ("UpdateCustomModelDeployment", "UpdateProvisionedModelThroughput")


def count_updates(endpoint: Endpoint, arn: str) -> int:
    """Return how many updates of a deployment reached the endpoint."""
    calls = [call for operation in UPDATES for call in endpoint.calls(operation)]
    return sum(arn in call.values() for call in calls)
