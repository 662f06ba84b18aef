"""Keys, buckets and log groups."""

from __future__ import annotations

from typing import Any

import orjson

from cloudft.endpoint.cloudformation.records import StackResource
from cloudft.endpoint.cloudformation.resource_types import (
    RESOURCE_TYPES,
    ClientFactory,
    ResourceRequest,
    ResourceType,
    names_of,
    tags_of,
)
from cloudft.infra.intrinsics import CreatedResource

DENY_WITHOUT_TLS_CONDITION = {"Bool": {"aws:SecureTransport": "false"}}


def _to_json(document: Any) -> str:
    return orjson.dumps(document).decode()


def _create_key(asked: ResourceRequest) -> CreatedResource:
    kms = asked.client("kms")
    tags = [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in tags_of(asked.properties)]
    policy = _to_json(asked.properties["KeyPolicy"])
    described = asked.properties.get("Description", "")
    made = kms.create_key(Policy=policy, Description=described, Tags=tags)["KeyMetadata"]
    if asked.properties.get("EnableKeyRotation"):
        kms.enable_key_rotation(KeyId=made["KeyId"])
    return CreatedResource(made["KeyId"], {"Arn": made["Arn"], "KeyId": made["KeyId"]})


def _schedule_key_deletion(services: ClientFactory, piece: StackResource) -> None:
    days = piece.properties.get("PendingWindowInDays", 30)
    services("kms").schedule_key_deletion(KeyId=piece.physical, PendingWindowInDays=days)


def _update_key(asked: ResourceRequest, piece: StackResource) -> None:
    policy = _to_json(asked.properties["KeyPolicy"])
    kms = asked.client("kms")
    kms.put_key_policy(KeyId=piece.physical, PolicyName="default", Policy=policy)


RESOURCE_TYPES["AWS::KMS::Key"] = ResourceType(
    names_of("Description", "EnableKeyRotation", "KeyPolicy", "PendingWindowInDays", "Tags"),
    _create_key,
    _schedule_key_deletion,
    _update_key,
)


def _create_bucket(asked: ResourceRequest) -> CreatedResource:
    s3 = asked.client("s3")
    place = {"LocationConstraint": asked.region}
    there = {} if asked.region == "us-east-1" else {"CreateBucketConfiguration": place}
    s3.create_bucket(Bucket=asked.name, **there)
    _configure_bucket(s3, asked.name, asked)
    return CreatedResource(asked.name, {"Arn": f"arn:aws:s3:::{asked.name}"})


def _configure_bucket(s3: Any, bucket: str, asked: ResourceRequest) -> None:
    """Every setting of a bucket, each by the call that is for it."""
    given = asked.properties
    if "BucketEncryption" in given:
        rules = given["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        s3.put_bucket_encryption(
            Bucket=bucket,
            ServerSideEncryptionConfiguration={"Rules": [_encryption(r) for r in rules]},
        )
    if "OwnershipControls" in given:
        s3.put_bucket_ownership_controls(
            Bucket=bucket, OwnershipControls=given["OwnershipControls"]
        )
    if "PublicAccessBlockConfiguration" in given:
        closed = given["PublicAccessBlockConfiguration"]
        s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=closed)
    if "VersioningConfiguration" in given:
        versions = given["VersioningConfiguration"]
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=versions)
    if "LoggingConfiguration" in given:
        _put_logging(s3, bucket, given["LoggingConfiguration"])
    if "LifecycleConfiguration" in given:
        rules = [_lifecycle_rule(rule) for rule in given["LifecycleConfiguration"]["Rules"]]
        s3.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": rules}
        )
    if "NotificationConfiguration" in given:
        s3.put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
    if tags := tags_of(given):
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})


def _encryption(rule: Any) -> dict[str, Any]:
    default = rule["ServerSideEncryptionByDefault"]
    said = {"SSEAlgorithm": default["SSEAlgorithm"]}
    if "KMSMasterKeyID" in default:
        said["KMSMasterKeyID"] = default["KMSMasterKeyID"]
    keyed = rule.get("BucketKeyEnabled", False)
    return {"ApplyServerSideEncryptionByDefault": said, "BucketKeyEnabled": keyed}


def _put_logging(s3: Any, bucket: str, given: Any) -> None:
    target = given["DestinationBucketName"]
    logging = {"TargetBucket": target, "TargetPrefix": given.get("LogFilePrefix", "")}
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={"LoggingEnabled": logging})


def _lifecycle_rule(rule: Any) -> dict[str, Any]:
    """A rule in S3's own words."""
    said: dict[str, Any] = {"ID": rule["Id"], "Status": rule["Status"]}
    said["Filter"] = {"Prefix": rule.get("Prefix", "")}
    if "ExpirationInDays" in rule:
        said["Expiration"] = {"Days": int(rule["ExpirationInDays"])}
    elif rule.get("ExpiredObjectDeleteMarker"):
        said["Expiration"] = {"ExpiredObjectDeleteMarker": True}
    if "Transitions" in rule:
        said["Transitions"] = [
            {"StorageClass": one["StorageClass"], "Days": int(one["TransitionInDays"])}
            for one in rule["Transitions"]
        ]
    for name in ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"):
        if name in rule:
            said[name] = {key: int(value) for key, value in rule[name].items()}
    return said


def _delete_bucket(services: ClientFactory, piece: StackResource) -> None:
    """Raises BucketNotEmpty where something, or a version of it, is in it."""
    s3, bucket = services("s3"), piece.physical
    inside = s3.list_object_versions(Bucket=bucket, MaxKeys=1)
    if inside.get("Versions") or inside.get("DeleteMarkers"):
        raise ValueError(
            "The bucket you tried to delete is not empty. You must delete all versions"
        )
    s3.delete_bucket(Bucket=bucket)


def _bucket_drift(services: ClientFactory, piece: StackResource) -> list[str]:
    s3, bucket, found = services("s3"), piece.physical, []
    closed = piece.properties.get("PublicAccessBlockConfiguration")
    if closed and _public_access_block(s3, bucket) != closed:
        found.append("PublicAccessBlockConfiguration")
    status = s3.get_bucket_versioning(Bucket=bucket).get("Status")
    if status != piece.properties.get("VersioningConfiguration", {}).get("Status"):
        found.append("VersioningConfiguration")
    return found


def _public_access_block(s3: Any, bucket: str) -> Any:
    try:
        return s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    except s3.exceptions.ClientError:
        return None


RESOURCE_TYPES["AWS::S3::Bucket"] = ResourceType(
    names_of(
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
    lambda asked, piece: _configure_bucket(asked.client("s3"), piece.physical, asked),
    _bucket_drift,
)


def _put_bucket_policy(asked: ResourceRequest) -> CreatedResource:
    """The policy, but for "TLS only": this endpoint is asked without TLS."""
    bucket, document = asked.properties["Bucket"], asked.properties["PolicyDocument"]
    kept = [s for s in document["Statement"] if s.get("Condition") != DENY_WITHOUT_TLS_CONDITION]
    if kept:
        policy = _to_json({**document, "Statement": kept})
        asked.client("s3").put_bucket_policy(Bucket=bucket, Policy=policy)
    return CreatedResource(bucket)


def _update_bucket_policy(asked: ResourceRequest, piece: StackResource) -> None:
    _put_bucket_policy(asked)


RESOURCE_TYPES["AWS::S3::BucketPolicy"] = ResourceType(
    names_of("Bucket", "PolicyDocument"),
    _put_bucket_policy,
    lambda services, piece: services("s3").delete_bucket_policy(Bucket=piece.physical),
    _update_bucket_policy,
)


def _create_log_group(asked: ResourceRequest) -> CreatedResource:
    logs, name = asked.client("logs"), asked.properties["LogGroupName"]
    key = {"kmsKeyId": asked.properties["KmsKeyId"]} if "KmsKeyId" in asked.properties else {}
    logs.create_log_group(logGroupName=name, **key)
    _put_retention(asked, StackResource("", "", {}, name))
    return CreatedResource(
        name, {"Arn": f"arn:aws:logs:{asked.region}:{asked.account}:log-group:{name}:*"}
    )


def _put_retention(asked: ResourceRequest, piece: StackResource) -> None:
    if days := asked.properties.get("RetentionInDays"):
        logs = asked.client("logs")
        logs.put_retention_policy(logGroupName=piece.physical, retentionInDays=int(days))


RESOURCE_TYPES["AWS::Logs::LogGroup"] = ResourceType(
    names_of("KmsKeyId", "LogGroupName", "RetentionInDays"),
    _create_log_group,
    lambda services, piece: services("logs").delete_log_group(logGroupName=piece.physical),
    _put_retention,
)


def _put_log_policy(asked: ResourceRequest) -> CreatedResource:
    name = asked.properties["PolicyName"]
    document = asked.properties["PolicyDocument"]
    asked.client("logs").put_resource_policy(policyName=name, policyDocument=document)
    return CreatedResource(name)


RESOURCE_TYPES["AWS::Logs::ResourcePolicy"] = ResourceType(
    names_of("PolicyDocument", "PolicyName"),
    _put_log_policy,
    lambda services, piece: services("logs").delete_resource_policy(policyName=piece.physical),
)
