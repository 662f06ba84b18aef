"""Resource types for storage: KMS keys, S3 buckets and their policies, log groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from cloudft.endpoint.clients import ClientFactory
from cloudft.endpoint.cloudformation.records import StackResource
from cloudft.endpoint.cloudformation.resource_types import (
    RESOURCE_TYPES,
    Arguments,
    Properties,
    ResourceRequest,
    ResourceType,
    property_names,
    tags_of,
)
from cloudft.infra.intrinsics import CreatedResource

if TYPE_CHECKING:
    from botocore.client import BaseClient

DENY_WITHOUT_TLS_CONDITION = {"Bool": {"aws:SecureTransport": "false"}}
"""Condition of the statement "TLS only" of a bucket policy."""


def _to_json(document: object) -> str:
    return orjson.dumps(document).decode()


def _create_key(request: ResourceRequest) -> CreatedResource:
    kms, tags = request.client("kms"), _key_tags(request.properties)
    policy = _to_json(request.properties["KeyPolicy"])
    described = request.properties.get("Description", "")
    created = kms.create_key(Policy=policy, Description=described, Tags=tags)["KeyMetadata"]
    if request.properties.get("EnableKeyRotation"):
        kms.enable_key_rotation(KeyId=created["KeyId"])
    return CreatedResource(created["KeyId"], {"Arn": created["Arn"], "KeyId": created["KeyId"]})


def _schedule_key_deletion(client: ClientFactory, resource: StackResource) -> None:
    days = resource.properties.get("PendingWindowInDays", 30)
    client("kms").schedule_key_deletion(KeyId=resource.physical, PendingWindowInDays=days)


def _update_key(request: ResourceRequest, resource: StackResource) -> None:
    properties, key = request.properties, {"KeyId": resource.physical}
    kms = request.client("kms")
    kms.put_key_policy(**key, PolicyName="default", Policy=_to_json(properties["KeyPolicy"]))
    kms.update_key_description(**key, Description=properties.get("Description", ""))
    rotate = properties.get("EnableKeyRotation")
    (kms.enable_key_rotation if rotate else kms.disable_key_rotation)(**key)
    kms.untag_resource(**key, TagKeys=[tag["TagKey"] for tag in _key_tags(resource.properties)])
    kms.tag_resource(**key, Tags=_key_tags(properties))


def _key_tags(properties: Properties) -> list[dict[str, str]]:
    return [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in tags_of(properties)]


RESOURCE_TYPES["AWS::KMS::Key"] = ResourceType(
    property_names("Description", "EnableKeyRotation", "KeyPolicy", "PendingWindowInDays", "Tags"),
    _create_key,
    _schedule_key_deletion,
    _update_key,
)


def _create_bucket(request: ResourceRequest) -> CreatedResource:
    s3 = request.client("s3")
    # S3 refuses us-east-1, its default, as a LocationConstraint.
    location = {"LocationConstraint": request.region}
    where = {} if request.region == "us-east-1" else {"CreateBucketConfiguration": location}
    s3.create_bucket(Bucket=request.name, **where)
    _configure_bucket(s3, request.name, request)
    return CreatedResource(request.name, {"Arn": f"arn:aws:s3:::{request.name}"})


def _configure_bucket(s3: BaseClient, bucket: str, request: ResourceRequest) -> None:
    """Apply every setting of a bucket. Each setting has an API call of its own."""
    properties = request.properties
    if "BucketEncryption" in properties:
        rules = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        s3.put_bucket_encryption(
            Bucket=bucket,
            ServerSideEncryptionConfiguration={"Rules": [_encryption(r) for r in rules]},
        )
    if "OwnershipControls" in properties:
        s3.put_bucket_ownership_controls(
            Bucket=bucket, OwnershipControls=properties["OwnershipControls"]
        )
    if "PublicAccessBlockConfiguration" in properties:
        closed = properties["PublicAccessBlockConfiguration"]
        s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=closed)
    if "VersioningConfiguration" in properties:
        versions = properties["VersioningConfiguration"]
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=versions)
    if "LoggingConfiguration" in properties:
        _put_logging(s3, bucket, properties["LoggingConfiguration"])
    if "LifecycleConfiguration" in properties:
        rules = [_lifecycle_rule(rule) for rule in properties["LifecycleConfiguration"]["Rules"]]
        s3.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": rules}
        )
    if "NotificationConfiguration" in properties:
        s3.put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
    if tags := tags_of(properties):
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})


def _encryption(rule: Properties) -> Arguments:
    """Return an encryption rule by the names of S3's API."""
    default = rule["ServerSideEncryptionByDefault"]
    algorithm = {"SSEAlgorithm": default["SSEAlgorithm"]}
    if "KMSMasterKeyID" in default:
        algorithm["KMSMasterKeyID"] = default["KMSMasterKeyID"]
    bucket_key = rule.get("BucketKeyEnabled", False)
    return {"ApplyServerSideEncryptionByDefault": algorithm, "BucketKeyEnabled": bucket_key}


def _put_logging(s3: BaseClient, bucket: str, properties: Properties) -> None:
    target = properties["DestinationBucketName"]
    logging = {"TargetBucket": target, "TargetPrefix": properties.get("LogFilePrefix", "")}
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={"LoggingEnabled": logging})


def _lifecycle_rule(rule: Properties) -> Arguments:
    """Return a lifecycle rule by the names of S3's API, which differ from CloudFormation's."""
    converted: Arguments = {"ID": rule["Id"], "Status": rule["Status"]}
    converted["Filter"] = {"Prefix": rule.get("Prefix", "")}
    if "ExpirationInDays" in rule:
        converted["Expiration"] = {"Days": int(rule["ExpirationInDays"])}
    elif rule.get("ExpiredObjectDeleteMarker"):
        converted["Expiration"] = {"ExpiredObjectDeleteMarker": True}
    if "Transitions" in rule:
        converted["Transitions"] = [
            {"StorageClass": one["StorageClass"], "Days": int(one["TransitionInDays"])}
            for one in rule["Transitions"]
        ]
    for name in ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"):
        if name in rule:
            converted[name] = {key: int(value) for key, value in rule[name].items()}
    return converted


def _delete_bucket(client: ClientFactory, resource: StackResource) -> None:
    """Delete a bucket. Raises ValueError, in S3's words, while it has an object or a version."""
    s3, bucket = client("s3"), resource.physical
    # moto deletes a bucket whose objects have versions left; S3 does not.
    content = s3.list_object_versions(Bucket=bucket, MaxKeys=1)
    if content.get("Versions") or content.get("DeleteMarkers"):
        raise ValueError(
            "The bucket you tried to delete is not empty. You must delete all versions"
        )
    s3.delete_bucket(Bucket=bucket)


def _bucket_drift(client: ClientFactory, resource: StackResource) -> list[str]:
    """Return the properties that were changed by other means: two that matter for safety."""
    s3, bucket, drifted = client("s3"), resource.physical, []
    closed = resource.properties.get("PublicAccessBlockConfiguration")
    if closed and _public_access_block(s3, bucket) != closed:
        drifted.append("PublicAccessBlockConfiguration")
    status = s3.get_bucket_versioning(Bucket=bucket).get("Status")
    if status != resource.properties.get("VersioningConfiguration", {}).get("Status"):
        drifted.append("VersioningConfiguration")
    return drifted


def _public_access_block(s3: BaseClient, bucket: str) -> object:
    """Return the bucket's public access block; None if it has none."""
    try:
        return s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    except s3.exceptions.ClientError:
        return None


RESOURCE_TYPES["AWS::S3::Bucket"] = ResourceType(
    property_names(
        "BucketEncryption",
        "LifecycleConfiguration",
        "LoggingConfiguration",
        "NotificationConfiguration",
        "OwnershipControls",
        "PublicAccessBlockConfiguration",
        "Tags",
        "VersioningConfiguration",
    ),
    _create_bucket,
    _delete_bucket,
    lambda request, resource: _configure_bucket(request.client("s3"), resource.physical, request),
    _bucket_drift,
)


def _put_bucket_policy(request: ResourceRequest) -> CreatedResource:
    """Put the policy without its statement "TLS only": this endpoint is called without TLS."""
    bucket, document = request.properties["Bucket"], request.properties["PolicyDocument"]
    kept = [s for s in document["Statement"] if s.get("Condition") != DENY_WITHOUT_TLS_CONDITION]
    if kept:
        policy = _to_json({**document, "Statement": kept})
        request.client("s3").put_bucket_policy(Bucket=bucket, Policy=policy)
    return CreatedResource(bucket)


def _update_bucket_policy(request: ResourceRequest, resource: StackResource) -> None:
    _put_bucket_policy(request)


RESOURCE_TYPES["AWS::S3::BucketPolicy"] = ResourceType(
    property_names("Bucket", "PolicyDocument"),
    _put_bucket_policy,
    lambda client, resource: client("s3").delete_bucket_policy(Bucket=resource.physical),
    _update_bucket_policy,
)


def _create_log_group(request: ResourceRequest) -> CreatedResource:
    logs, name = request.client("logs"), request.properties["LogGroupName"]
    key = {"kmsKeyId": request.properties["KmsKeyId"]} if "KmsKeyId" in request.properties else {}
    logs.create_log_group(logGroupName=name, **key)
    _put_retention(request, StackResource("", "", {}, name))
    return CreatedResource(
        name, {"Arn": f"arn:aws:logs:{request.region}:{request.account}:log-group:{name}:*"}
    )


def _put_retention(request: ResourceRequest, resource: StackResource) -> None:
    if days := request.properties.get("RetentionInDays"):
        logs = request.client("logs")
        logs.put_retention_policy(logGroupName=resource.physical, retentionInDays=int(days))


RESOURCE_TYPES["AWS::Logs::LogGroup"] = ResourceType(
    property_names("KmsKeyId", "LogGroupName", "RetentionInDays"),
    _create_log_group,
    lambda client, resource: client("logs").delete_log_group(logGroupName=resource.physical),
    _put_retention,
)


def _put_log_policy(request: ResourceRequest) -> CreatedResource:
    name = request.properties["PolicyName"]
    document = request.properties["PolicyDocument"]
    request.client("logs").put_resource_policy(policyName=name, policyDocument=document)
    return CreatedResource(name)


RESOURCE_TYPES["AWS::Logs::ResourcePolicy"] = ResourceType(
    property_names("PolicyDocument", "PolicyName"),
    _put_log_policy,
    lambda client, resource: client("logs").delete_resource_policy(policyName=resource.physical),
)
