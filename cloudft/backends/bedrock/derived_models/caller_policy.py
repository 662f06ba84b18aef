"""Build the IAM policy of the identity that copies a model, or takes one from SageMaker.

Sources: Bedrock user guide, "Fulfill prerequisites to copy models" and "Encryption of custom
models", read 2026-10.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloudft.aws.arn import parse_arn
from cloudft.aws.permissions import Policy, Statement
from cloudft.backends.bedrock.derived_models.request import MODEL_PACKAGE_PART, DerivedJob
from cloudft.backends.bedrock.required_permissions import SERVICE_PRINCIPAL

KEY_ACTIONS = ["kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"]
LIST_ACTIONS = ["bedrock:ListModelCopyJobs", "sts:GetCallerIdentity"]


def copy_policy(derived: DerivedJob) -> Policy:
    """Return what a copy needs: of Bedrock in the target Region, of the keys of both Regions.

    The key of the source is not known here: its statement allows any key of that Region through
    Bedrock, and does nothing where the model has none.
    """
    region, source = str(derived.job.spec.bedrock.region), parse_arn(derived.source)
    # The account's own resources: a policy of an identity reaches no others by itself.
    target = f"arn:{source.partition}:bedrock:{region}:*:"
    jobs, models = f"{target}model-copy-job/*", f"{target}custom-model/*"
    statements: list[Statement] = [
        {
            "Sid": "CopyModel",
            "Effect": "Allow",
            "Action": ["bedrock:CreateModelCopyJob"],
            "Resource": [derived.source, jobs, models],
            "Condition": {"StringEquals": {"aws:RequestedRegion": region}},
        },
        {
            "Sid": "FollowCopy",
            "Effect": "Allow",
            "Action": [
                *("bedrock:GetCustomModel", "bedrock:GetModelCopyJob"),
                *("bedrock:ListTagsForResource", "bedrock:TagResource"),
            ],
            "Resource": [jobs, models],
        },
        {"Sid": "List", "Effect": "Allow", "Action": LIST_ACTIONS, "Resource": "*"},
        {
            "Sid": "ReadEncryptedSource",
            "Effect": "Allow",
            "Action": ["kms:Decrypt"],
            "Resource": f"arn:{source.partition}:kms:{source.region}:{source.account}:key/*",
            "Condition": {"StringLike": {"kms:ViaService": "bedrock.*.amazonaws.com"}},
        },
        *_key_statements(derived, region),
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def create_policy(derived: DerivedJob) -> Policy:
    """Return what CreateCustomModel needs of its caller; the role reads the artifacts."""
    spec = derived.job.spec.bedrock
    models = f"arn:aws:bedrock:{spec.region}:*:custom-model/*"
    statements: list[Statement] = [
        {
            "Sid": "CreateModel",
            "Effect": "Allow",
            "Action": [
                *("bedrock:CreateCustomModel", "bedrock:GetCustomModel"),
                *("bedrock:ListTagsForResource", "bedrock:TagResource"),
            ],
            "Resource": models,
        },
        *_key_statements(derived, str(spec.region)),
    ]
    role = spec.import_role_arn or spec.role_arn
    if MODEL_PACKAGE_PART not in derived.source and role is not None:
        statements.append(
            {
                "Sid": "PassRole",
                "Effect": "Allow",
                "Action": ["iam:PassRole"],
                "Resource": role,
                "Condition": {"StringEquals": {"iam:PassedToService": SERVICE_PRINCIPAL}},
            }
        )
    return {"Version": "2012-10-17", "Statement": statements}


def _key_statements(derived: DerivedJob, region: str) -> Iterator[Statement]:
    key = derived.job.spec.bedrock.kms_key_id
    # A policy names a key by its ARN alone: an alias or an id is allowed in the key's own policy.
    if key is not None and ":key/" in key:
        yield {
            "Sid": "ModelKey",
            "Effect": "Allow",
            "Action": KEY_ACTIONS,
            "Resource": key,
            "Condition": {"StringEquals": {"kms:ViaService": f"bedrock.{region}.amazonaws.com"}},
        }
