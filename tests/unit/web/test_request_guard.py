"""Local servers answer programs and their own pages, and no page of another origin."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from endpoint import BUCKET, REGION, TOKEN, Endpoint, running_endpoint
from model_results import make_model_result

from cloudft.evaluate.human_review.review import Review, Reviewer
from cloudft.evaluate.human_review.review_server import ReviewServer
from cloudft.web.request_guard import RequestGuard, harden_headers

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"}
SIGNED = "AWS4-HMAC-SHA256 Credential=any/20260101/{}/{}/aws4_request, SignedHeaders=host, "
PAGE = "http://page.example"
SECRET = b"<script>document.title = 'ran'</script>the training data"
NAVIGATES = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("127.0.0.1:5000", True),
        ("localhost", True),
        ("LOCALHOST.:5000", True),
        ("bucket.localhost:5000", True),
        ("[::1]:5000", True),
        ("192.168.1.5:9000", True),
        ("endpoint:5000", True),
        ("bucket.endpoint:5000", True),
        ("page.example:5000", False),
        ("127.0.0.1.page.example:5000", False),
        ("localhost.page.example", False),
        ("notlocalhost:5000", False),
        ("endpoint.page.example", False),
    ],
)
def test_a_name_that_points_here_is_no_name_of_ours(host: str, good: bool) -> None:
    why = RequestGuard(frozenset({"endpoint"})).refusal_reason("GET", {"host": host})
    assert (why is None) == good, why


@pytest.mark.parametrize(
    ("headers", "good"),
    [
        ({}, True),
        ({"sec-fetch-mode": "cors"}, True),  # fetch() of Node.js 24 sends this header alone
        ({"origin": "http://127.0.0.1:5000"}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none", "user-agent": "Mozilla/5.0"}, True),
        ({"user-agent": "Mozilla/5.0", "authorization": "AWS4-HMAC-SHA256 ..."}, True),
        ({"origin": "http://127.0.0.1:5001"}, False),
        ({"origin": "https://127.0.0.1:5000"}, False),
        ({"origin": "null"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, False),
        ({"user-agent": "Mozilla/5.0"}, False),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_programs_and_our_own_page_pass(method: str, headers: dict[str, str], good: bool) -> None:
    why = RequestGuard().refusal_reason(method, {"host": "127.0.0.1:5000", **headers})
    assert (why is None) == good, why


def test_another_page_may_link_here_and_nothing_more() -> None:
    site = {"host": "localhost:1", "sec-fetch-site": "cross-site"}
    window = site | {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    frame = window | {"sec-fetch-dest": "iframe"}
    guard = RequestGuard()
    assert guard.refusal_reason("GET", window, allow_navigation=True) is None
    assert guard.refusal_reason("GET", window)
    assert guard.refusal_reason("POST", window, allow_navigation=True)
    assert guard.refusal_reason("GET", frame, allow_navigation=True)


def test_stored_content_loses_its_cors_headers_and_its_power() -> None:
    given = [
        ("access-control-allow-origin", "*"),
        ("Content-Security-Policy", "default-src *"),
        ("content-disposition", "inline; filename=a.html"),
        ("ETag", "1"),
    ]
    headers = dict(harden_headers(given, download=True))
    assert headers["Content-Disposition"] == "attachment; filename=a.html"
    assert "sandbox" in headers["Content-Security-Policy"] and headers["ETag"] == "1"
    assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--allow-host", "from-a-container") as made:
        s3 = made.client("s3")
        s3.put_object(Bucket=BUCKET, Key="a.html", Body=SECRET, ContentType="text/html")
        yield made


def send(url: str, method: str, path: str, body: bytes = b"", **headers: str) -> Any:
    """(status, headers, body) of a request as it is given; `_` in a name stands for `-`."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def signed(service: str) -> str:
    return SIGNED.format(REGION, service) + "Signature=" + "0" * 64


FOREIGN: list[dict[str, str]] = [
    {"Origin": PAGE},
    {"Origin": "null"},
    {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"},
    {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "script"},
    {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
    {"Host": "page.example:5000"},
    {"Origin": PAGE, "Authorization": "any"},
    BROWSER,
]
ORDER = json.dumps([{"operation": "*", "do": "throttle", "times": 1}]).encode()
USES = [
    ("GET", f"/{BUCKET}/a.html", b""),
    ("GET", f"/{BUCKET}/a.html?X-Amz-Signature=0", b""),
    ("PUT", f"/{BUCKET}/planted.html", b"<script></script>"),
    ("DELETE", f"/{BUCKET}/a.html", b""),
    ("POST", f"/{BUCKET}", b"--x\r\n\r\n--x--"),
    ("GET", f"/iam_{REGION}/?Action=CreateUser&UserName=planted", b""),
    ("POST", "/", b"Action=CreateUser&UserName=planted"),
    ("GET", "/custom-models", b""),
    ("GET", "/", b""),
    ("GET", "/_cloudft/calls", b""),
    ("POST", "/_cloudft/faults", ORDER),
    ("POST", "/moto-api/reset", b""),
    ("POST", "/%6doto-api/reset", b""),
    ("OPTIONS", f"/{BUCKET}/a.html", b""),
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_origin_gets_nothing(endpoint: Endpoint, headers: dict[str, str]) -> None:
    if "Origin" in headers:
        headers = headers | {"Access_Control_Request_Method": "PUT"}
    for method, path, body in USES:
        given = headers
        if headers is BROWSER and "Signature" in path:
            continue  # a link: saved, and shown to no page (Cross-Origin-Resource-Policy)
        status, found, content = send(endpoint.url, method, path, body, **given)
        assert status in (401, 403), (method, path, status)
        assert not [name for name in found if name.lower().startswith("access-control")]
        assert b"training" not in content and b"CreateUser" not in content
    assert endpoint.object_keys() == ["a.html"]
    assert endpoint.client("bedrock").list_custom_models()["modelSummaries"] == []
    assert endpoint.client("iam").list_users()["Users"] == []


def test_what_programs_do_goes_on(endpoint: Endpoint) -> None:
    s3 = endpoint.client("s3")
    answer = s3.get_object(Bucket=BUCKET, Key="a.html")
    assert answer["Body"].read() == SECRET and "ContentDisposition" not in answer
    for version in ("s3", "s3v4"):
        client = boto3.client(
            "s3",
            endpoint_url=endpoint.url,
            region_name=REGION,
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=Config(signature_version=version),
        )
        address = client.generate_presigned_url(
            "get_object", {"Bucket": BUCKET, "Key": "a.html"}, 60
        )
        path = address.removeprefix(endpoint.url)
        for headers in ({}, BROWSER | {"Sec-Fetch-Site": "none"}, BROWSER | NAVIGATES):
            if "Sec-Fetch-Dest" in headers:
                headers = headers | {"Sec-Fetch-Site": "cross-site"}  # a link in another page
            status, found, content = send(endpoint.url, "GET", path, **headers)
            assert (status, content) == (200, SECRET)
            assert found["Content-Disposition"] == "attachment"
            assert "sandbox" in found["Content-Security-Policy"]
            assert found["Cross-Origin-Resource-Policy"] == "same-origin"
        put = client.generate_presigned_url("put_object", {"Bucket": BUCKET, "Key": "put"}, 60)
        assert send(endpoint.url, "PUT", put.removeprefix(endpoint.url), b"x")[0] == 200
        s3.delete_object(Bucket=BUCKET, Key="put")
    host = {"Host": "from-a-container:80", "Authorization": signed("s3")}
    assert send(endpoint.url, "GET", "/", **host)[0] == 200
    refused = send(endpoint.url, "GET", "/", **host | {"Host": "other"})
    assert refused[0] == 403 and b"<Error>" in refused[2] and b"--allow-host" in refused[2]


@pytest.mark.parametrize(
    "path", ["/", "/_cloudft/calls", "/_cloudft/faults", "/moto-api/data.json"]
)
def test_the_page_and_administration_want_the_token(endpoint: Endpoint, path: str) -> None:
    assert send(endpoint.url, "GET", path)[0] == 401
    assert send(endpoint.url, "GET", f"{path}?token=wrong")[0] == 401
    assert send(endpoint.url, "GET", path, Authorization="Bearer wrong")[0] == 401
    assert send(endpoint.url, "GET", path, Authorization=f"Bearer {TOKEN}")[0] != 401
    assert send(endpoint.url, "GET", f"{path}?token={TOKEN}")[0] != 401


def test_the_page_can_be_opened_from_elsewhere_and_runs_nothing(endpoint: Endpoint) -> None:
    headers = BROWSER | NAVIGATES | {"Sec-Fetch-Site": "cross-site"}
    status, found, page = send(endpoint.url, "GET", f"/?token={TOKEN}", **headers)
    assert status == 200 and b"This is not AWS" in page and TOKEN.encode() not in page
    assert found["Referrer-Policy"] == "no-referrer" and found["X-Frame-Options"] == "DENY"
    assert "default-src 'none'" in found["Content-Security-Policy"]


def test_faults_of_another_shape_are_refused(endpoint: Endpoint) -> None:
    for body in (b"{", b"{}", b"[1]", b'[{"do": "throttle"}]'):
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        status, _, content = send(endpoint.url, "POST", "/_cloudft/faults", body, **bearer)
        assert status == 400 and json.loads(content)["message"], body


def test_an_api_key_is_an_identity(endpoint: Endpoint) -> None:
    bearer = {"Authorization": "Bearer bedrock-api-key-any"}
    status, _, content = send(endpoint.url, "GET", "/foundation-models", **bearer)
    assert status == 200 and json.loads(content)["modelSummaries"]
    status, headers, content = send(endpoint.url, "GET", "/no/such/path", **bearer)
    assert headers["x-amzn-errortype"] == "UnknownOperationException" and json.loads(content)


@pytest.mark.parametrize(
    ("service", "operation", "code"),
    [
        ("bedrock", "list_foundation_models", "MissingAuthenticationTokenException"),
        ("sagemaker", "list_training_jobs", "MissingAuthenticationTokenException"),
        ("kms", "list_keys", "MissingAuthenticationTokenException"),
        ("sts", "get_caller_identity", "MissingAuthenticationTokenException"),
    ],
)
def test_an_unsigned_request_is_refused_in_the_services_words(
    endpoint: Endpoint, service: str, operation: str, code: str
) -> None:
    config = Config(signature_version=botocore.UNSIGNED)
    client = boto3.client(service, endpoint_url=endpoint.url, region_name=REGION, config=config)
    with pytest.raises(ClientError) as caught:
        getattr(client, operation)()
    assert caught.value.response["Error"]["Code"] == code


def test_what_moto_lacks_is_said_in_the_services_form(endpoint: Endpoint) -> None:
    with pytest.raises(ClientError) as caught:
        endpoint.client("logs").put_data_protection_policy(
            logGroupIdentifier="any", policyDocument="{}"
        )
    error = caught.value.response["Error"]
    assert error["Code"] == "UnknownOperationException" and "not been impl" in error["Message"]


@pytest.mark.parametrize("service", ["translate", "qbusiness"])  # JSON 1.1 and REST JSON
def test_a_service_that_moto_lacks_is_named(endpoint: Endpoint, service: str) -> None:
    operation = {"translate": "list_languages", "qbusiness": "list_applications"}[service]
    with pytest.raises(ClientError) as caught:
        getattr(endpoint.client(service), operation)()
    assert caught.value.response["Error"] == {
        "Code": "UnknownOperationException",
        "Message": f"The service {service} is not offered by this endpoint",
    }


@pytest.fixture
def review(tmp_path: Path) -> Iterator[ReviewServer]:
    found = Review(
        tmp_path, make_model_result("first", "a", 4, "Q"), make_model_result("second", "b", 4, "Q")
    )
    found.save()
    with ReviewServer(Reviewer(found, "ada")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_review_is_for_its_own_page_alone(review: ReviewServer) -> None:
    root, path = review.url.rpartition("/")[0], urlsplit(review.url).path
    judgment = json.dumps({"position": 0, "choice": "tie"}).encode()
    for headers in FOREIGN[:-1]:
        for method, what, body in (("GET", "record", b""), ("POST", "judge", judgment)):
            status, _, content = send(root, method, path + what, body, **headers)
            assert status == 404 and content == b"", headers
    assert review.reviewer.judgments == {}
    own = {"Origin": f"http://{urlsplit(root).netloc}", "Sec-Fetch-Site": "same-origin"}
    assert send(root, "POST", f"{path}judge", judgment, **own)[0] == 200
    with urllib.request.urlopen(review.url) as answer:
        assert answer.headers["X-Frame-Options"] == "DENY"
