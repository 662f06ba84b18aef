from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ParamValidationError
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from endpoint import ACCOUNT, BUCKET, REGION, ROLE, running_endpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import wait_until

from cloudft.aws.request_validation import _compile_pattern, load_service_model, validate_request
from cloudft.endpoint.operations import snake_case
from cloudft.endpoint.supported_operations import SERVICES

SIGNED = f"AWS4-HMAC-SHA256 Credential=AKIAX/20260101/{REGION}/bedrock/aws4_request, Signature=0"
OPERATIONS = [
    (service, name)
    for service in ("bedrock", "bedrock-runtime")
    for name in load_service_model(service).operation_names
    if not load_service_model(service).operation_model(name).has_event_stream_input
]
OPERATIONS.sort(key=lambda one: one[1].startswith(("Delete", "Stop", "Update")))
INVOKED = ("ConversationalModelId", "InvokeModelIdentifier", "FoundationModelVersionIdentifier")
BEDROCK = f"arn:aws:bedrock:{REGION}"
NOVA, TITAN = "amazon.nova-micro-v1:0", "amazon.titan-text-express-v1:0:8k"
EXAMPLES = [
    "known",
    "other",
    "a-b.c",
    "1",
    "-5",
    ROLE,
    NOVA,
    TITAN,
    f"s3://{BUCKET}/train.jsonl",
    f"s3://{BUCKET}/out/",
    f"{BEDROCK}::foundation-model/{TITAN}",
    f"{BEDROCK}:{ACCOUNT}:model-import-job/abcdefghij12",
    f"{BEDROCK}:{ACCOUNT}:imported-model/abcdefghij12",
    f"arn:aws:kms:{REGION}:{ACCOUNT}:key/12345678-1234-1234-1234-123456789012",
    ACCOUNT,
]
TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["\0", "a", "2026-01-01", "AAAA", "=", "\ud7ff\uffff"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=4,
)
DEEP = json.loads("[" * 400 + "]" * 400)
LIMITS = st.sampled_from([1, 3, 0, -1, 0.5, "x", None, [], True, 1e300])
MESSAGES = st.sampled_from(
    [
        [{"role": "user", "content": [{"text": "Hi"}]}],
        [{"role": "user", "content": "Hi"}],
        [{"role": "user", "content": [{"image": {}}]}],
        [{"role": DEEP, "content": "Hi"}],
        [{"content": "Hi"}],
        {"role": "user"},
        ["text"],
        [],
    ]
)
LIMIT_NAMES = ("max_new_tokens", "max_tokens", "max_gen_len", "maxTokenCount", "maxTokens")
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "messages": MESSAGES,
        "system": st.sampled_from(["Be brief.", [{"text": "x"}], [{}], 5]),
        "prompt": st.sampled_from(["Hi", "", 5, ["Hi"]]),
        "inputText": st.sampled_from(["Hi", "", None]),
        "temperature": LIMITS,
        "top_p": LIMITS,
        "stop_sequences": st.sampled_from([["a"], [""], "a", [5], 5]),
    },
).flatmap(
    lambda body: LIMITS.map(
        lambda limit: {
            **body,
            **dict.fromkeys(LIMIT_NAMES, 3 if limit is None else limit),
            "inferenceConfig": {"maxTokens": 3, "temperature": limit},
            "textGenerationConfig": {"maxTokenCount": 3, "topP": limit},
        }
    )
)
GOOD: list[dict[str, Any]] = [
    {
        "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
        "inferenceConfig": {"maxTokens": 3},
    },
    {"inputText": "Hi", "textGenerationConfig": {"maxTokenCount": 3}},
]
"""Bodies of Nova and of Titan: each takes its own keys alone."""
RAW = (
    st.sampled_from(GOOD).map(lambda body: json.dumps(body).encode())
    | BODIES.map(lambda body: json.dumps(body).encode())
    | st.binary(max_size=20)
)
FEW_EXAMPLES = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=30)
Draw = Callable[[Any], Any]
RARELY = st.integers(0, 24).map(lambda number: number == 24)


TIMEOUT_S = 90
"""The first request to a model loads it, and another test may train on the same cores."""


class RawClient:
    """An HTTP client that sends requests as they are, and only once."""

    def __init__(self, url: str, names: list[str]) -> None:
        self.host = urlsplit(url).netloc
        self.names = names
        self.connection = http.client.HTTPConnection(self.host, timeout=TIMEOUT_S)

    def request(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """Return the status, the headers and the body of the response."""
        try:
            self.connection.request(method, path, body, {"Authorization": SIGNED, **headers})
            answer = self.connection.getresponse()
            response_headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, response_headers, answer.read()
        except Exception:
            self.connection.close()
            raise

    def request_operation(self, service: str, name: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return the response as botocore parses it; errors must have a code and a message."""
        query = urlencode(request["query_string"], doseq=True)
        path = request["url_path"] + (f"?{query}" if query else "")
        headers = {k: str(v) for k, v in request["headers"].items()}
        status, response_headers, content = self.request(
            request["method"], path, request["body"], headers
        )
        assert status < 500, content
        model = load_service_model(service)
        operation = model.operation_model(name)
        if status < 300 and operation.has_event_stream_output:
            buffer = EventStreamBuffer()
            buffer.add_data(content)
            kinds = [event.headers[":event-type"] for event in buffer]
            assert kinds
            return {"ResponseMetadata": {"HTTPStatusCode": status}}
        answer: dict[str, Any] = create_parser("rest-json").parse(
            {"status_code": status, "headers": response_headers, "body": content},
            operation.output_shape,
        )
        if status >= 300:
            assert answer["Error"]["Code"].isidentifier() and answer["Error"]["Message"], answer
        return answer


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[RawClient]:
    with running_endpoint(
        "--clock", "fast", "--jobs", "10000", "--stand-in", tiny_model
    ) as endpoint:
        body = b'{"prompt": "a", "completion": "b"}\n' * 3
        endpoint.client("s3").put_object(Bucket=BUCKET, Key="train.jsonl", Body=body)
        bedrock = endpoint.client("bedrock")
        job = bedrock.create_model_customization_job(
            jobName="known",
            customModelName="known",
            roleArn=ROLE,
            baseModelIdentifier=TITAN,
            trainingDataConfig={"s3Uri": f"s3://{BUCKET}/train.jsonl"},
            outputDataConfig={"s3Uri": f"s3://{BUCKET}/out"},
        )["jobArn"]

        def model() -> Any:
            return bedrock.get_model_customization_job(jobIdentifier=job).get("outputModelArn")

        model_arn = wait_until(model, "the job has ended")
        deployment = bedrock.create_custom_model_deployment(
            modelDeploymentName="known", modelArn=model_arn
        )["customModelDeploymentArn"]
        target = RawClient(endpoint.url, [*EXAMPLES, job, model_arn, deployment])
        yield target
        target.connection.close()


def draw_value(draw: Draw, shape: Any, names: list[str], depth: int = 0) -> Any:
    """Return a value of a shape, mostly a valid one."""
    kind = shape.type_name
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if getattr(shape, "is_document_type", False):
        return draw(JSON)
    if kind == "structure":
        return draw_structure(draw, shape, names, depth)
    if kind == "list":
        count = draw(st.integers(least or 0, max(least or 0, 0 if depth > 3 else 2)))
        count = count or int(shape.member.name == "ContentBlock")
        return [draw_value(draw, shape.member, names, depth + 1) for _ in range(count)]
    if kind == "map":
        keys = [draw_value(draw, shape.key, names) for _ in range(draw(st.integers(least or 0, 2)))]
        return {key: draw_value(draw, shape.value, names, depth + 1) for key in keys}
    if kind == "string":
        return draw_string(draw, shape, names)
    if kind == "blob":
        return draw(RAW)
    if kind == "boolean":
        return draw(st.booleans())
    if kind == "timestamp":
        return draw(st.datetimes(timezones=st.just(timezone.utc), min_value=datetime(1900, 1, 1)))
    low, high = least if least is not None else -1, most if most is not None else 2**31 - 1
    if kind in ("float", "double"):
        wild = st.floats(allow_nan=False, allow_infinity=False)
        return draw(wild if draw(RARELY) else st.floats(low, high))
    if draw(RARELY):
        return draw(st.sampled_from([low - 1, high + 1, -(2**31), 2**31 - 1]))
    return draw(st.integers(low, high))


def draw_structure(draw: Draw, shape: Any, names: list[str], depth: int) -> dict[str, Any]:
    members = dict(shape.members)
    if getattr(shape, "is_tagged_union", False):
        plain = "text" in members and not draw(RARELY)
        chosen = ["text" if plain else draw(st.sampled_from(sorted(members)))]
    else:
        optional = draw(st.integers(0, (1 << len(members)) - 1)) if depth < 3 else 0
        missing = depth < 2 and draw(RARELY)
        chosen = [
            name
            for bit, name in enumerate(members)
            if (name in shape.required_members and not missing) or optional >> bit & 1
        ]
    structure = {name: draw_value(draw, members[name], names, depth + 1) for name in chosen}
    if shape.name == "TrainingDataConfig" and not draw(RARELY):
        structure = {"s3Uri": f"s3://{BUCKET}/train.jsonl"}
    if shape.name in ("ConverseRequest", "ConverseStreamRequest"):
        short = 0 if draw(RARELY) else draw(st.integers(1, 4))
        structure["inferenceConfig"] = {**structure.get("inferenceConfig", {}), "maxTokens": short}
        if not draw(RARELY):
            structure["messages"] = [draw_value(draw, members["messages"].member, names, depth + 1)]
    return structure


def draw_string(draw: Draw, shape: Any, names: list[str]) -> str:
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max")
    if draw(RARELY):
        long = most is not None and most < 3000 and draw(st.booleans())
        return "a-" * (most // 2 + 1) if long else str(draw(TEXTS))
    if shape.enum:
        return str(draw(st.sampled_from(shape.enum)))
    pattern = shape.metadata.get("pattern")
    fitting = [name for name in names if not pattern or matches_pattern(pattern, name)]
    fitting = [name for name in fitting if least <= len(name) <= (most or len(name))]
    if shape.name in INVOKED and not draw(RARELY):
        return str(draw(st.sampled_from([NOVA, TITAN, names[-1]])))
    if shape.name.endswith("Name") and draw(st.booleans()):
        fitting = [f"new{draw(st.integers(0, 10**6))}"]
    return str(draw(st.sampled_from(fitting))) if fitting else "a" * max(least, 1)


def matches_pattern(pattern: str, text: str) -> bool:
    compiled = _compile_pattern(pattern)
    return compiled is None or compiled.fullmatch(text) is not None


def serialize_request(service: str, name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    operation = load_service_model(service).operation_model(name)
    request: dict[str, Any] = create_serializer("rest-json", False).serialize_to_request(
        parameters, operation
    )
    body = request["body"]
    request["body"] = body.encode() if isinstance(body, str) else body or b""
    return request


def _is_header_text(text: str) -> bool:
    return text.isascii() and text.isprintable() and text == text.strip()


def is_sendable(shape: Any, parameters: dict[str, Any]) -> bool:
    """Return whether HTTP can carry it: no empty path segment, no control character in a header."""
    if shape is None:
        return True
    for name, member in shape.members.items():
        where = member.serialization.get("location")
        text = parameters.get(name)
        if where == "uri" and not text:
            return False
        if where == "header" and text is not None and not _is_header_text(text):
            return False
    return True


def is_offered(name: str) -> bool:
    return any(hasattr(room, snake_case(name)) for room in SERVICES)


@pytest.mark.parametrize(("service", "name"), OPERATIONS, ids=lambda part: str(part))
def test_any_request_is_answered_and_a_broken_one_refused(
    target: RawClient, service: str, name: str
) -> None:
    shape = load_service_model(service).operation_model(name).input_shape

    @FEW_EXAMPLES
    @given(st.data())
    def check(data: st.DataObject) -> None:
        parameters = draw_value(data.draw, shape, target.names) if shape else {}
        if not is_sendable(shape, parameters):
            return
        try:
            request = serialize_request(service, name, parameters)
        except (KeyError, ParamValidationError):  # no path without its parts
            return
        problems = validate_request(service, name, parameters) if shape else []
        answer = target.request_operation(service, name, request)
        if not is_offered(name):
            assert answer["ResponseMetadata"]["HTTPStatusCode"] in (400, 403)
        elif problems:
            assert answer["Error"]["Code"] == "ValidationException", (problems, answer)
            assert answer["ResponseMetadata"]["HTTPStatusCode"] == 400

    check()


def draw_broken(draw: Draw, content: Any) -> Any:
    """Return another JSON value: one part replaced, or a member added."""
    if isinstance(content, dict) and content and draw(st.integers(0, 3)):
        name = draw(st.sampled_from(sorted(content)))
        return {**content, name: draw_broken(draw, content[name])}
    if isinstance(content, list) and content and draw(st.booleans()):
        return [draw_broken(draw, content[0]), *content[1:]]
    if isinstance(content, dict) and draw(st.booleans()):
        return {**content, "noSuchMember": draw(JSON)}
    return draw(JSON | st.just(DEEP) | TEXTS)


@settings(FEW_EXAMPLES, max_examples=400)
@given(st.data())
def test_a_body_of_another_form_is_answered(target: RawClient, data: st.DataObject) -> None:
    service, name = data.draw(st.sampled_from([o for o in OPERATIONS if is_offered(o[1])]))
    shape = load_service_model(service).operation_model(name).input_shape
    parameters = draw_value(data.draw, shape, target.names)
    try:
        request = serialize_request(service, name, parameters)
    except (KeyError, ParamValidationError):
        return
    if not is_sendable(shape, parameters):
        return
    try:
        content = json.loads(request["body"] or b"{}")
    except ValueError:
        content = {}
    request["body"] = data.draw(
        st.binary(max_size=30)
        | st.just(b"[" * 2000)
        | st.just(b'{"a": "\\ud800"}')
        | st.just(None).map(lambda _: json.dumps(draw_broken(data.draw, content)).encode())
    )
    target.request_operation(service, name, request)


PARTS = st.sampled_from(
    [
        *("model", "invoke", "converse", "model-customization-jobs", "custom-models", NOVA, "%2F"),
        *("%", "%ff", "%00", "..", "", "known", "listTagsForResource", "a" * 3000, "?", "#", ";"),
        *("nextToken=%ff", "maxResults=9" + "9" * 5000, "nextToken=-3", "isOwned=maybe", "&"),
        *("creationTimeAfter=x", "creationTimeAfter=0001-01-01T00:00:00%2B14:00"),
        "creationTimeBefore=9e99",
    ]
)
PATHS = st.lists(PARTS, max_size=5).map(lambda parts: "/" + "/".join(parts)) | st.text(
    st.characters(min_codepoint=33, max_codepoint=126), max_size=30
).map(lambda text: "/" + text.lstrip("/"))
LISTS = st.sampled_from(
    [
        *("/model-customization-jobs?", "/custom-models?", "/model-copy-jobs?"),
        *("/foundation-models?", "/model-customization/custom-model-deployments?"),
        "/provisioned-model-throughputs?",
    ]
)
QUERIES = st.builds(lambda path, parts: path + "&".join(parts), LISTS, st.lists(PARTS, max_size=3))
METHODS = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW"])
HEADERS = st.sampled_from([{}, {}, {}, {"Content-Type": "\xff"}, {"Content-Length": "x"}])


@settings(FEW_EXAMPLES, max_examples=400)
@given(METHODS, PATHS | QUERIES, st.binary(max_size=30), HEADERS)
def test_any_bytes_over_http_are_answered(
    target: RawClient, method: str, path: str, body: bytes, headers: dict[str, str]
) -> None:
    status, _, _ = target.request(method, path, body, {**headers})
    if headers:
        target.connection.close()
    assert status < 500
