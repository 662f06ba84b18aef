"""moto's state after a restart: replayed and compacted, in spite of damage and kills."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked_cli
import moto_client
import pytest
from botocore.exceptions import ClientError
from endpoint import BEDROCK_TRUST
from werkzeug.test import EnvironBuilder, create_environ

from cloudft.endpoint.moto import replay_log as module
from cloudft.endpoint.moto.moto_app import create_moto_app
from cloudft.endpoint.moto.replay_log import LOG_FILE, REJECTED_FILE, ReplayLog
from cloudft.errors import BadDocument, StoreError

App = Callable[..., Any]
KEYS = ("a", "b c", "b+c", "b%20c", "d//e", "é", "dir/", "<&>")
BUCKETS = ("one", "two")


@pytest.fixture(scope="module")
def moto() -> Any:
    return create_moto_app("000000000000")


OPEN_LOGS: list[ReplayLog] = []
TRUST = json.dumps(BEDROCK_TRUST)


@pytest.fixture(autouse=True)
def _empty(moto: App) -> Iterator[None]:
    reset_moto(moto)
    yield
    while OPEN_LOGS:
        OPEN_LOGS.pop().close()
    reset_moto(moto)


def open_log(moto: App, folder: Path, warnings: list[str] | None = None) -> ReplayLog:
    OPEN_LOGS.append(ReplayLog(moto, folder, (warnings if warnings is not None else []).append))
    return OPEN_LOGS[-1]


def reset_moto(moto: App) -> None:
    """Bring moto into the state of a new process."""
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/moto-api/reset", "CONTENT_LENGTH": "0"}
    environ |= {"RAW_URI": "/moto-api/reset", "REQUEST_URI": "/moto-api/reset"}
    assert module.call_wsgi_app(moto, create_environ() | environ).status == 200
    from moto.ec2.models import ec2_backends

    vars(moto)["app_instances"].pop("ec2", None)
    for account in ec2_backends.values():
        account.clear()
    ec2_backends.clear()  # moto's reset creates the default networks; a new process has none


def restart(moto: App, folder: Path, warnings: list[str] | None = None) -> ReplayLog:
    reset_moto(moto)
    return open_log(moto, folder, warnings)


def s3_contents(app: App) -> dict[str, Any]:
    """Return all objects, versions and uploads of S3, by bucket."""
    s3 = moto_client.create_client(app, "s3")
    buckets: dict[str, Any] = {}
    for bucket in (b["Name"] for b in s3.list_buckets()["Buckets"]):
        versions = s3.list_object_versions(Bucket=bucket)
        objects: dict[str, Any] = {}
        for item in s3.list_objects_v2(Bucket=bucket).get("Contents", ()):
            key = {"Bucket": bucket, "Key": item["Key"]}
            answer = s3.get_object(**key)
            tags = s3.get_object_tagging(**key)["TagSet"]
            objects[item["Key"]] = (answer["Body"].read(), answer["Metadata"], tags, item["ETag"])
        buckets[bucket] = (
            objects,
            [(v["Key"], v["VersionId"]) for v in versions.get("Versions", ())],
            [(m["Key"], m["VersionId"]) for m in versions.get("DeleteMarkers", ())],
            [u["UploadId"] for u in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", ())],
        )
    return buckets


class RandomS3Client:
    """A client that makes random changes in S3."""

    def __init__(self, app: App, seed: int) -> None:
        self.s3, self.chance = moto_client.create_client(app, "s3"), random.Random(seed)
        self.bodies = 0

    def act(self) -> None:
        """Make one change, by one request or a few; S3 may refuse it."""
        acts = [self.put] * 4 + [self.delete] * 3 + [self.copy, self.copy, self.upload, self.upload]
        acts += [self.delete_many, self.tag, self.bucket, self.bucket, self.unbucket, self.versions]
        try:
            self.chance.choice(acts)()
        except ClientError:
            return

    def name(self) -> dict[str, str]:
        return {"Bucket": self.chance.choice(BUCKETS), "Key": self.chance.choice(KEYS)}

    def body(self) -> bytes:
        self.bodies += 1
        return f"body {self.bodies}".encode()

    def bucket(self) -> None:
        self.s3.create_bucket(Bucket=self.chance.choice(BUCKETS))

    def unbucket(self) -> None:
        bucket = self.chance.choice(BUCKETS)
        for key in KEYS:
            self.s3.delete_object(Bucket=bucket, Key=key)
        self.s3.delete_bucket(Bucket=bucket)

    def versions(self) -> None:
        if self.chance.random() < 0.1:
            status = {"Status": "Enabled"}
            self.s3.put_bucket_versioning(Bucket="two", VersioningConfiguration=status)

    def put(self) -> None:
        if self.chance.random() < 0.2:
            self.s3.put_object(**self.name(), Body=self.body(), IfNoneMatch="*")
        self.s3.put_object(**self.name(), Body=self.body(), Metadata={"n": str(self.bodies)})

    def delete(self) -> None:
        self.s3.delete_object(**self.name())

    def delete_many(self) -> None:
        keys = [{"Key": key} for key in self.chance.sample(KEYS, 3)]
        self.s3.delete_objects(Bucket=self.name()["Bucket"], Delete={"Objects": keys})

    def copy(self) -> None:
        source, target = self.name(), self.name()
        more: dict[str, Any] = {}
        if source == target:
            more = {"MetadataDirective": "REPLACE", "Metadata": {"copied": "1"}}
        self.s3.copy_object(**target, CopySource=source, **more)
        if self.chance.random() < 0.5:
            self.s3.delete_object(**source)

    def tag(self) -> None:
        tags = [{"Key": "k", "Value": str(self.chance.random())}]
        self.s3.put_object_tagging(**self.name(), Tagging={"TagSet": tags})

    def upload(self) -> None:
        name = self.name()
        upload_id = self.s3.create_multipart_upload(**name)["UploadId"]
        part = self.s3.upload_part(**name, UploadId=upload_id, PartNumber=1, Body=self.body())
        ending = self.chance.random()
        if ending < 0.6:
            parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
            self.s3.complete_multipart_upload(**name, UploadId=upload_id, MultipartUpload=parts)
        elif ending < 0.8:
            self.s3.abort_multipart_upload(**name, UploadId=upload_id)


@pytest.mark.parametrize("seed", range(6))
def test_random_changes_of_s3_survive_a_restart(
    moto: App, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIN_DEAD_BYTES", 0 if seed % 2 else 1 << 30)
    app = open_log(moto, tmp_path)
    for _ in range(2):
        client = RandomS3Client(app, seed)
        for _ in range(80):
            client.act()
        before, warnings = s3_contents(app), list[str]()
        app = restart(moto, tmp_path, warnings)
        assert s3_contents(app) == before and warnings == []
    assert not (tmp_path / REJECTED_FILE).exists()
    assert [path.name for path in tmp_path.iterdir()] == [LOG_FILE]


def log_size(folder: Path) -> int:
    return (folder / LOG_FILE).stat().st_size


def test_requests_that_were_undone_are_compacted_away(
    moto: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_log(moto, tmp_path)
    s3 = moto_client.create_client(app, "s3")
    s3.create_bucket(Bucket="one")
    start = log_size(tmp_path)
    body = b"x" * 100_000
    for number in range(40):
        s3.put_object(Bucket="one", Key=str(number % 4), Body=body)
        s3.copy_object(Bucket="one", Key="copy", CopySource=f"one/{number % 4}")
        assert log_size(tmp_path) < 30 * len(body), "it is compacted while it serves"
    for name in ("copy", *map(str, range(4))):
        s3.delete_object(Bucket="one", Key=name)
    restart(moto, tmp_path)
    assert log_size(tmp_path) == start


def test_reads_and_rejected_requests_are_not_recorded(moto: App, tmp_path: Path) -> None:
    app = open_log(moto, tmp_path)
    empty = log_size(tmp_path)
    clients = [moto_client.create_client(app, name) for name in ("s3", "logs", "iam", "kms", "sts")]
    s3, logs, iam, kms, sts = clients
    logs.describe_log_groups()
    iam.list_users()
    kms.list_keys()
    sts.get_caller_identity()
    for bad in (
        lambda: s3.put_object(Bucket="none", Key="a"),
        lambda: iam.delete_user(UserName="none"),
        lambda: kms.describe_key(KeyId="none"),
        lambda: logs.associate_kms_key(kmsKeyId="x", logGroupName="none"),
    ):
        with pytest.raises((ClientError, NotImplementedError)):
            bad()
    assert log_size(tmp_path) == empty


def test_an_operation_that_moto_lacks_is_not_recorded(moto: App, tmp_path: Path) -> None:
    app = open_log(moto, tmp_path)
    with pytest.raises(NotImplementedError):
        moto_client.create_client(app, "logs").put_data_protection_policy(
            logGroupIdentifier="x", policyDocument="{}"
        )
    moto_client.create_client(app, "s3").create_bucket(Bucket="one")
    warnings = list[str]()
    assert list(s3_contents(restart(moto, tmp_path, warnings))) == ["one"] and warnings == []


def test_a_body_without_a_length_is_recorded(moto: App, tmp_path: Path) -> None:
    """The SDK for JavaScript sends a stream in chunks; the server has decoded them."""
    app = open_log(moto, tmp_path)
    moto_client.create_client(app, "s3").create_bucket(Bucket="one")
    authorization = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request"
    environ = EnvironBuilder(
        method="PUT",
        path="/one/a",
        headers={"Authorization": authorization, "Transfer-Encoding": "chunked"},
    ).get_environ()
    environ |= {"RAW_URI": "/one/a", "wsgi.input": io.BytesIO(b"streamed")}
    environ.pop("CONTENT_LENGTH", None)
    assert module.call_wsgi_app(app, environ | {"wsgi.input_terminated": True}).status == 200
    assert s3_contents(app)["one"][0]["a"][0] == b"streamed"
    assert s3_contents(restart(moto, tmp_path))["one"][0]["a"][0] == b"streamed"


def test_names_of_metadata_with_underscores_survive_a_restart(moto: App, tmp_path: Path) -> None:
    app = open_log(moto, tmp_path)
    moto_client.create_client(app, "s3").create_bucket(Bucket="one")
    authorization = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request"
    environ = EnvironBuilder("/one/a", method="PUT").get_environ()
    environ |= {"RAW_URI": "/one/a", "HTTP_AUTHORIZATION": authorization}
    environ |= {"HTTP_X_AMZ_META_MY_KEY": "1"}
    environ |= {module.HEADER_NAMES_VARIABLE: {"HTTP_X_AMZ_META_MY_KEY": "x-amz-meta-my_key"}}
    assert module.call_wsgi_app(app, environ).status == 200
    s3 = moto_client.create_client(restart(moto, tmp_path), "s3")
    assert s3.head_object(Bucket="one", Key="a")["Metadata"] == {"my_key": "1"}


def test_networks_have_the_same_ids_whatever_was_read(moto: App, tmp_path: Path) -> None:
    app = open_log(moto, tmp_path)
    ec2 = moto_client.create_client(app, "ec2")
    for _ in range(3):
        before = ec2.describe_subnets()["Subnets"]
    with pytest.raises(ClientError):  # the first request there, refused
        moto_client.create_client(app, "ec2", "eu-west-1").delete_vpc(VpcId="vpc-1")
    europe = moto_client.create_client(app, "ec2", "eu-west-1").describe_vpcs()["Vpcs"]
    created = ec2.create_vpc(CidrBlock="10.0.0.0/24")["Vpc"]["VpcId"]
    assert (tmp_path / LOG_FILE).read_bytes().count(b"\n") == 1 + 2 + 1
    warnings = list[str]()
    app = restart(moto, tmp_path, warnings)
    ec2 = moto_client.create_client(app, "ec2")
    assert ec2.describe_subnets()["Subnets"] == before and warnings == []
    assert created in {vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"]}
    assert moto_client.create_client(app, "ec2", "eu-west-1").describe_vpcs()["Vpcs"] == europe


def test_roles_have_the_same_ids_whatever_was_read(moto: App, tmp_path: Path) -> None:
    """AWS's managed policies are loaded at the first request to IAM, with ids of their own."""
    arn = "arn:aws:iam::aws:policy/AmazonBedrockFullAccess"
    iam = moto_client.create_client(open_log(moto, tmp_path), "iam")
    policy = iam.get_policy(PolicyArn=arn)["Policy"]["PolicyId"]
    iam.create_role(RoleName="one", AssumeRolePolicyDocument=TRUST)
    iam.attach_role_policy(RoleName="one", PolicyArn=arn)
    role = iam.get_role(RoleName="one")["Role"]["RoleId"]
    iam = moto_client.create_client(restart(moto, tmp_path), "iam")
    assert iam.get_role(RoleName="one")["Role"]["RoleId"] == role
    restored = iam.get_policy(PolicyArn=arn)["Policy"]
    assert (restored["PolicyId"], restored["AttachmentCount"]) == (policy, 1)


def test_ids_do_not_depend_on_concurrent_requests(moto: App, tmp_path: Path) -> None:
    app = open_log(moto, tmp_path)
    first = moto_client.create_client(app, "s3")
    first.create_bucket(Bucket="one")
    done = threading.Event()

    def read() -> None:
        other = moto_client.create_client(app, "s3")
        while not done.is_set():
            other.list_buckets()

    reader = threading.Thread(target=read)
    reader.start()
    ids = [first.create_multipart_upload(Bucket="one", Key="a")["UploadId"] for _ in range(60)]
    done.set()
    reader.join()
    app = restart(moto, tmp_path)
    uploads = moto_client.create_client(app, "s3").list_multipart_uploads(Bucket="one")["Uploads"]
    assert sorted(upload["UploadId"] for upload in uploads) == sorted(ids)


def with_unknown_method(line: bytes) -> bytes:
    value = json.loads(line)
    value["environ"]["REQUEST_METHOD"] = "PATCH"
    value["environ"]["HTTP_X_AMZ_CONTENT_SHA256"] = "x"
    return json.dumps(value).encode() + b"\n"


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        (lambda line: line[:50] + b"\n", "damaged"),
        (lambda line: b"\xff\x00\n", "damaged"),
        (lambda line: b'{"environ": [], "seed": 2}\n', "environ"),
        (lambda line: b'{"environ": {}, "body": "*", "seed": 2}\n', "body"),
        (
            lambda line: line.replace(b'"PATH_INFO":"/one/b"', b'"PATH_INFO":"/none/b"').replace(
                b'/one/b"', b'/none/b"'
            ),
            "moto rejected it",
        ),
        (with_unknown_method, "moto failed at it"),
    ],
)
def test_a_bad_line_is_reported_and_moved_out(
    moto: App, tmp_path: Path, damage: Callable[[bytes], bytes], where: str
) -> None:
    s3 = moto_client.create_client(open_log(moto, tmp_path), "s3")
    s3.create_bucket(Bucket="one")
    for key in "abc":
        s3.put_object(Bucket="one", Key=key, Body=b"x")
    lines = (tmp_path / LOG_FILE).read_bytes().splitlines(keepends=True)
    lines[3] = damage(lines[3])
    (tmp_path / LOG_FILE).write_bytes(b"".join(lines))
    warnings = list[str]()
    app = restart(moto, tmp_path, warnings)
    assert [*s3_contents(app)["one"][0]] == ["a", "c"]
    assert (
        f"{LOG_FILE}, line 4: " in warnings[0]
        and where in warnings[0]
        and REJECTED_FILE in warnings[1]
    )
    assert (tmp_path / REJECTED_FILE).read_bytes() == lines[3]
    moto_client.create_client(app, "s3").put_object(Bucket="one", Key="d", Body=b"x")
    warnings.clear()
    assert [*s3_contents(restart(moto, tmp_path, warnings))["one"][0]] == ["a", "c", "d"]
    assert warnings == [], "warned once"


def test_a_torn_line_is_dropped_and_a_newer_file_is_left_alone(moto: App, tmp_path: Path) -> None:
    moto_client.create_client(open_log(moto, tmp_path), "s3").create_bucket(Bucket="one")
    with (tmp_path / LOG_FILE).open("ab") as stream:
        stream.write(b'{"environ":')
    warnings = list[str]()
    assert list(s3_contents(restart(moto, tmp_path, warnings))) == ["one"] and warnings == []
    newer = (tmp_path / LOG_FILE).read_bytes().replace(b'{"version":2}', b'{"version":3}')
    (tmp_path / LOG_FILE).write_bytes(newer)
    with pytest.raises(BadDocument, match="version 3"):
        restart(moto, tmp_path)
    assert (tmp_path / LOG_FILE).read_bytes() == newer


def to_version_1(content: bytes) -> bytes:
    """Return a log as version 1 wrote it: with every request, also those that moto rejected."""
    refused = {"REQUEST_METHOD": "DELETE", "PATH_INFO": "/none", "RAW_URI": "/none"}
    lines = []
    for line in content.splitlines()[1:]:
        value = json.loads(line)
        for environ in (value["environ"], value["environ"] | refused):
            body = value.get("body", "") if environ is value["environ"] else ""
            lines.append(json.dumps({"environ": environ, "body": body}))
    lacking = {"HTTP_X_AMZ_TARGET": "Logs_20140328.PutDataProtectionPolicy"}
    environ = json.loads(lines[0])["environ"] | lacking | {"REQUEST_METHOD": "POST"}
    environ["HTTP_AUTHORIZATION"] = environ["HTTP_AUTHORIZATION"].replace("/s3/", "/logs/")
    environ |= {"PATH_INFO": "/", "RAW_URI": "/", "REQUEST_URI": "/"}
    body = base64.b64encode(b'{"logGroupIdentifier": "x", "policyDocument": "{}"}').decode()
    lines.append(json.dumps({"environ": environ, "body": body}))
    return "\n".join(lines).encode() + b"\n"


def test_a_journal_of_version_1_is_read_and_converted(moto: App, tmp_path: Path) -> None:
    app = open_log(moto, tmp_path)
    s3 = moto_client.create_client(app, "s3")
    s3.create_bucket(Bucket="one")
    for key in "abc":
        s3.put_object(Bucket="one", Key=key, Body=b"x")
    before = s3_contents(app)
    (tmp_path / LOG_FILE).write_bytes(to_version_1((tmp_path / LOG_FILE).read_bytes()))
    warnings = list[str]()
    assert s3_contents(restart(moto, tmp_path, warnings)) == before
    assert "line 9: moto failed at it" in warnings[0]
    assert s3_contents(restart(moto, tmp_path, warnings := [])) == before and warnings == []


def test_a_full_disk_fails_one_request_and_no_other(
    moto: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_log(moto, tmp_path)
    s3 = moto_client.create_client(app, "s3")
    s3.create_bucket(Bucket="one")

    def half(stream: Any, content: bytes) -> None:
        stream.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_all", half)
        with pytest.raises(StoreError, match="No space left"):
            s3.put_object(Bucket="one", Key="lost", Body=b"x")
    s3.put_object(Bucket="one", Key="kept", Body=b"x")
    warnings = list[str]()
    assert [*s3_contents(restart(moto, tmp_path, warnings))["one"][0]] == [
        "kept"
    ] and warnings == []


KILL_POINTS = (
    ("os.fsync", True),
    ("os.replace", True),
    ("os.replace", False),
    ("cloudft.endpoint.moto.replay_log.fsync_folder", True),
)


def overwrite_until_killed(folder: str, point: str, before: bool) -> None:
    """Overwrite objects until a compaction, and kill this process at a point of it."""
    module.MIN_DEAD_BYTES = 1 << 14
    app = ReplayLog(create_moto_app("000000000000"), Path(folder))
    s3 = moto_client.create_client(app, "s3")
    s3.create_bucket(Bucket="one")
    name, _, attribute = point.rpartition(".")
    owner = os if name == "os" else module
    real = getattr(owner, attribute)

    def killed(*arguments: Any, **named: Any) -> Any:
        if not before:
            real(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, attribute, killed)
    for number in range(100):
        s3.put_object(Bucket="one", Key=str(number % 3), Body=f"{number:5}".encode() * 400)
        with Path(folder, "acknowledged").open("a") as stream:
            stream.write(f"{number}\n")


@pytest.mark.parametrize(("point", "before"), KILL_POINTS)
def test_a_kill_during_a_compaction_loses_nothing(
    moto: App, tmp_path: Path, point: str, before: bool
) -> None:
    process = forked_cli.FORKSERVER.Process(
        target=overwrite_until_killed, args=(str(tmp_path), point, before)
    )
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    numbers = [int(line) for line in (tmp_path / "acknowledged").read_text().split()]
    warnings = list[str]()
    objects = s3_contents(restart(moto, tmp_path, warnings))["one"][0]
    for key in range(3):
        last = max(n for n in numbers if n % 3 == key)
        one_more = last + 3  # taken, and not answered any more
        assert objects[str(key)][0] in {f"{n:5}".encode() * 400 for n in (last, one_more)}
    assert warnings == [] and sorted(os.listdir(tmp_path)) == ["acknowledged", LOG_FILE]
