"""Build the least-privilege IAM policy for a job of the OpenAI-compatible API.

The API acts as its caller: who creates a job must be allowed to invoke the grader. Sources: service
authorization reference, list_bedrock-mantle; Bedrock user guide, rft-open-weight-access-security;
the managed policy AmazonBedrockMantleFullAccess, for the resource.
"""

from __future__ import annotations

from cloudft.aws.permissions import Policy, Statement
from cloudft.spec.load import LoadedJob

ACTIONS = (
    "bedrock-mantle:CancelFineTuningJob",
    "bedrock-mantle:CreateFile",
    "bedrock-mantle:CreateFineTuningJob",
    "bedrock-mantle:DeleteFile",
    "bedrock-mantle:GetFile",
    "bedrock-mantle:GetFineTuningJob",
    "bedrock-mantle:GetModel",
    "bedrock-mantle:ListFiles",
    "bedrock-mantle:ListFineTuningJobs",
    "bedrock-mantle:ListModels",
)
INFERENCE_ACTION = "bedrock-mantle:CreateInference"


def caller_policy(job: LoadedJob, *, with_inference: bool = False) -> Policy:
    """Return the policy document of who checks, submits and follows the job.

    With `with_inference` it also allows to ask the job's models.
    """
    section, region = job.spec.reinforcement, job.spec.bedrock.region
    assert section is not None
    actions = [*ACTIONS, *([INFERENCE_ACTION] if with_inference else [])]
    statements: list[Statement] = [
        {
            "Sid": "FineTune",
            "Effect": "Allow",
            "Action": sorted(actions),
            "Resource": f"arn:aws:bedrock-mantle:{region}:*:project/*",
        },
        {
            "Sid": "Grader",
            "Effect": "Allow",
            "Action": ["lambda:GetFunction", "lambda:InvokeFunction"],
            "Resource": str(section.lambda_arn),
        },
    ]
    return {"Version": "2012-10-17", "Statement": statements}
