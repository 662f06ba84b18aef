"""Keys, buckets and log groups."""

from __future__ import annotations

from typing import Any

import orjson

from cloudft.endpoint.stacks.records import Piece
from cloudft.endpoint.stacks.types import TYPES, Asked, Services, Type, known, tags_of
from cloudft.infrastructure.evaluate import Made

WITHOUT_TLS = {"Bool": {"aws:SecureTransport": "false"}}


def _text(document: Any) -> str:
    return orjson.dumps(document).decode()


def _make_key(asked: Asked) -> Made:
    kms = asked.services("kms")
    tags = [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in tags_of(asked.properties)]
    policy = _text(asked.properties["KeyPolicy"])
    described = asked.properties.get("Description", "")
    made = kms.create_key(Policy=policy, Description=described, Tags=tags)["KeyMetadata"]
    if asked.properties.get("EnableKeyRotation"):
        kms.enable_key_rotation(KeyId=made["KeyId"])
    return Made(made["KeyId"], {"Arn": made["Arn"], "KeyId": made["KeyId"]})


def _remove_key(services: Services, piece: Piece) -> None:
    days = piece.properties.get("PendingWindowInDays", 30)
    services("kms").schedule_key_deletion(KeyId=piece.physical, PendingWindowInDays=days)


def _update_key(asked: Asked, piece: Piece) -> None:
    policy = _text(asked.properties["KeyPolicy"])
    kms = asked.services("kms")
    kms.put_key_policy(KeyId=piece.physical, PolicyName="default", Policy=policy)


TYPES["AWS::KMS::Key"] = Type(
    known("Description", "EnableKeyRotation", "KeyPolicy", "PendingWindowInDays", "Tags"),
    _make_key,
    _remove_key,
    _update_key,
)


def _make_bucket(asked: Asked) -> Made:
    s3 = asked.services("s3")
    place = {"LocationConstraint": asked.region}
    there = {} if asked.region == "us-east-1" else {"CreateBucketConfiguration": place}
    s3.create_bucket(Bucket=asked.name, **there)
    _settle(s3, asked.name, asked)
    return Made(asked.name, {"Arn": f"arn:aws:s3:::{asked.name}"})


def _settle(s3: Any, bucket: str, asked: Asked) -> None:
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
        _log(s3, bucket, given["LoggingConfiguration"])
    if "LifecycleConfiguration" in given:
        rules = [_lifecycle(rule) for rule in given["LifecycleConfiguration"]["Rules"]]
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


def _log(s3: Any, bucket: str, given: Any) -> None:
    target = given["DestinationBucketName"]
    logging = {"TargetBucket": target, "TargetPrefix": given.get("LogFilePrefix", "")}
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={"LoggingEnabled": logging})


def _lifecycle(rule: Any) -> dict[str, Any]:
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


def _remove_bucket(services: Services, piece: Piece) -> None:
    """Raises BucketNotEmpty where something, or a version of it, is in it."""
    s3, bucket = services("s3"), piece.physical
    inside = s3.list_object_versions(Bucket=bucket, MaxKeys=1)
    if inside.get("Versions") or inside.get("DeleteMarkers"):
        raise ValueError(
            "The bucket you tried to delete is not empty. You must delete all versions"
        )
    s3.delete_bucket(Bucket=bucket)


def _bucket_drift(services: Services, piece: Piece) -> list[str]:
    s3, bucket, found = services("s3"), piece.physical, []
    closed = piece.properties.get("PublicAccessBlockConfiguration")
    if closed and _closed(s3, bucket) != closed:
        found.append("PublicAccessBlockConfiguration")
    status = s3.get_bucket_versioning(Bucket=bucket).get("Status")
    if status != piece.properties.get("VersioningConfiguration", {}).get("Status"):
        found.append("VersioningConfiguration")
    return found


def _closed(s3: Any, bucket: str) -> Any:
    try:
        return s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    except s3.exceptions.ClientError:
        return None


TYPES["AWS::S3::Bucket"] = Type(
    known(
        "BucketEncryption",
        "LifecycleConfiguration",
        "LoggingConfiguration",
        "NotificationConfiguration",
        "OwnershipControls",
        "PublicAccessBlockConfiguration",
        "Tags",
        "VersioningConfiguration",
    ),
    _make_bucket,
    _remove_bucket,
    lambda asked, piece: _settle(asked.services("s3"), piece.physical, asked),
    _bucket_drift,
)


def _put_bucket_policy(asked: Asked) -> Made:
    """The policy, but for "TLS only": this endpoint is asked without TLS."""
    bucket, document = asked.properties["Bucket"], asked.properties["PolicyDocument"]
    kept = [s for s in document["Statement"] if s.get("Condition") != WITHOUT_TLS]
    if kept:
        policy = _text({**document, "Statement": kept})
        asked.services("s3").put_bucket_policy(Bucket=bucket, Policy=policy)
    return Made(bucket)


def _change_bucket_policy(asked: Asked, piece: Piece) -> None:
    _put_bucket_policy(asked)


TYPES["AWS::S3::BucketPolicy"] = Type(
    known("Bucket", "PolicyDocument"),
    _put_bucket_policy,
    lambda services, piece: services("s3").delete_bucket_policy(Bucket=piece.physical),
    _change_bucket_policy,
)


def _make_log_group(asked: Asked) -> Made:
    logs, name = asked.services("logs"), asked.properties["LogGroupName"]
    key = {"kmsKeyId": asked.properties["KmsKeyId"]} if "KmsKeyId" in asked.properties else {}
    logs.create_log_group(logGroupName=name, **key)
    _keep_logs(asked, Piece("", "", {}, name))
    return Made(name, {"Arn": f"arn:aws:logs:{asked.region}:{asked.account}:log-group:{name}:*"})


def _keep_logs(asked: Asked, piece: Piece) -> None:
    if days := asked.properties.get("RetentionInDays"):
        logs = asked.services("logs")
        logs.put_retention_policy(logGroupName=piece.physical, retentionInDays=int(days))


TYPES["AWS::Logs::LogGroup"] = Type(
    known("KmsKeyId", "LogGroupName", "RetentionInDays"),
    _make_log_group,
    lambda services, piece: services("logs").delete_log_group(logGroupName=piece.physical),
    _keep_logs,
)


def _put_log_policy(asked: Asked) -> Made:
    name = asked.properties["PolicyName"]
    document = asked.properties["PolicyDocument"]
    asked.services("logs").put_resource_policy(policyName=name, policyDocument=document)
    return Made(name)


TYPES["AWS::Logs::ResourcePolicy"] = Type(
    known("PolicyDocument", "PolicyName"),
    _put_log_policy,
    lambda services, piece: services("logs").delete_resource_policy(policyName=piece.physical),
)
