"""Which id a base model is called by, what callers and roles need, and what checks say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from job_files import write_job_file

from cloudft import catalogue
from cloudft.aws.client import Aws, AwsLocation
from cloudft.aws.permissions import ArnContext, RequiredPermission, policy_statement
from cloudft.backends.base import with_placeholder_data
from cloudft.backends.bedrock import permission_checks, preflight, request, required_permissions
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.backends.bedrock.caller_policy import caller_policy
from cloudft.backends.bedrock.inference_profiles import (
    PROFILE_CONDITION,
    ProfileArnContext,
    choose_model_id,
    invoke_permissions,
    requested_profile,
)
from cloudft.backends.findings import FindingFactory
from cloudft.catalogue import cost
from cloudft.errors import PermissionDenied, ResourceNotFound, SpecError, UsageError
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home

NOVA, NOVA_2 = "amazon.nova-lite-v1:0", "amazon.nova-2-lite-v1:0"
LLAMA_33 = "meta.llama3-3-70b-instruct-v1:0"
ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/bedrock"
SECTION = {"region": "us-east-1", "role_arn": ROLE, "s3_uri": "s3://some-bucket/team"}
US_REGIONS = ("us-east-1", "us-east-2", "us-west-2")
REFUSED = PermissionDenied("can't list the inference profiles: AccessDenied", fix="ask")


def model_arns(model: str, *regions: str) -> list[str]:
    return [f"arn:aws:bedrock:{region}::foundation-model/{model}" for region in regions]


def summary(identifier: str, *, kind: str = "inference-profile", model: str = "") -> dict[str, Any]:
    profile = catalogue.parse_profile(identifier)
    name = model or (profile.model if profile else "")
    return {
        "inferenceProfileId": identifier,
        "inferenceProfileArn": f"arn:aws:bedrock:us-east-1:{ACCOUNT}:{kind}/{identifier}",
        "models": [{"modelArn": arn} for arn in model_arns(name, *US_REGIONS)],
        "status": "ACTIVE",
    }


class ProfilesAws(Aws):
    """AWS that lists these profiles in pages of one, or refuses; nothing else is called."""

    def __init__(
        self,
        *profiles: Mapping[str, Any],
        error: Exception | None = None,
        region: str = "us-east-1",
    ) -> None:
        super().__init__(AwsLocation(region=region, endpoint_url="http://127.0.0.1:9"))
        self.profiles, self.error = profiles, error
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def call(self, what: str, service: str, operation: str, **parameters: Any) -> Mapping[str, Any]:
        self.calls.append((operation, parameters))
        if self.error is not None:
            raise self.error
        if operation == "get_inference_profile":
            name = parameters["inferenceProfileIdentifier"]
            for profile in self.profiles:
                if name in (profile["inferenceProfileId"], profile["inferenceProfileArn"]):
                    return profile
            raise ResourceNotFound("ResourceNotFoundException", fix="")
        assert operation == "list_inference_profiles"
        is_application = parameters["typeEquals"] == "APPLICATION"
        listed = [
            profile
            for profile in self.profiles
            if (":application-" in profile["inferenceProfileArn"]) == is_application
        ]
        start = int(parameters.get("nextToken", "0"))
        page = {"inferenceProfileSummaries": listed[start : start + 1]}
        return {**page, "nextToken": str(start + 1)} if start + 1 < len(listed) else page

    def operations(self) -> list[str]:
        return [operation for operation, _ in self.calls]


GLOBAL, US, EU = (summary(f"{area}.{NOVA_2}") for area in ("global", "us", "eu"))
OTHER = summary(f"us.{NOVA}")


def test_a_model_that_answers_in_the_region_is_called_by_its_own_id_without_a_look() -> None:
    aws = ProfilesAws(OTHER)
    assert choose_model_id(aws, f"{NOVA}:300k", "us-east-1").id == NOVA
    assert aws.calls == []


def test_the_nearest_profile_of_the_accounts_list_is_called() -> None:
    aws = ProfilesAws(GLOBAL, OTHER, US)
    chosen = choose_model_id(aws, f"{NOVA_2}:256k", "us-east-1")
    assert (chosen.id, chosen.notes) == (f"us.{NOVA_2}", ())
    assert aws.operations() == ["list_inference_profiles"] * 3, "every page is read"
    arn = f"arn:aws:bedrock:us-east-1::foundation-model/{NOVA_2}:256k"
    assert choose_model_id(ProfilesAws(US), arn, "us-east-1").id == f"us.{NOVA_2}"


def test_only_active_profiles_are_called() -> None:
    gone = {**US, "status": "DELETING"}
    assert choose_model_id(ProfilesAws(gone, GLOBAL), NOVA_2, "us-east-1").id == f"global.{NOVA_2}"


def test_a_profile_of_a_new_area_is_nearer_than_the_global_one() -> None:
    new = summary(f"sea.{NOVA_2}", model=NOVA_2)
    chosen = choose_model_id(ProfilesAws(GLOBAL, new), NOVA_2, "ap-southeast-1")
    assert chosen.id == f"sea.{NOVA_2}"


def test_the_global_profile_is_said_where_it_is_the_only_one() -> None:
    chosen = choose_model_id(ProfilesAws(GLOBAL), NOVA_2, "ap-south-1")
    assert chosen.id == f"global.{NOVA_2}"
    [note] = chosen.notes
    assert "any commercial Region" in note


def test_the_catalogue_decides_where_the_list_is_refused_and_that_is_said() -> None:
    chosen = choose_model_id(ProfilesAws(error=REFUSED), NOVA_2, "us-east-1")
    assert chosen.id == f"us.{NOVA_2}"
    [note] = chosen.notes
    assert "can't list the inference profiles" in note and "as the catalogue says" in note


def test_where_no_profile_fits_those_that_exist_are_named() -> None:
    aws = ProfilesAws(OTHER, region="sa-east-1")
    with pytest.raises(UsageError, match="does not answer in sa-east-1") as caught:
        choose_model_id(aws, NOVA_2, "sa-east-1")
    for name in (f"us.{NOVA_2} in us-east-1", f"jp.{NOVA_2} in ap-northeast-1"):
        assert name in caught.value.message
    assert "bedrock.region" in str(caught.value.fix)
    with pytest.raises(UsageError, match="the catalogue's word"):
        choose_model_id(ProfilesAws(error=REFUSED), NOVA_2, "sa-east-1")


def test_an_application_profile_is_proposed_where_no_other_fits() -> None:
    own = summary("a1b2c3", kind="application-inference-profile", model=NOVA_2)
    with pytest.raises(UsageError) as caught:
        choose_model_id(ProfilesAws(own), NOVA_2, "us-east-1")
    assert own["inferenceProfileArn"] in str(caught.value.fix)


@pytest.mark.parametrize(
    ("requested", "called"),
    [
        ("global", f"global.{NOVA_2}"),
        ("eu", f"eu.{NOVA_2}"),
        ("in-region", NOVA_2),
        (f"us.{NOVA_2}", f"us.{NOVA_2}"),
        (GLOBAL["inferenceProfileArn"], GLOBAL["inferenceProfileArn"]),
        (f"arn:aws:bedrock:us-east-1:{ACCOUNT}:application-inference-profile/x", None),
    ],
)
def test_what_is_requested_is_called_without_a_look(requested: str, called: str | None) -> None:
    aws = ProfilesAws(US, GLOBAL)
    chosen = choose_model_id(aws, f"{NOVA_2}:256k", "us-east-1", requested)
    assert chosen.id == (called or requested)
    assert aws.calls == []


def test_a_requested_profile_of_another_model_is_refused() -> None:
    with pytest.raises(UsageError, match=f"is of {NOVA}, and the base model is {NOVA_2}"):
        choose_model_id(ProfilesAws(), NOVA_2, "us-east-1", f"us.{NOVA}")


@pytest.mark.parametrize(
    ("spec", "profile"),
    [
        ({"base_model": "nova-2-lite"}, None),
        ({"base_model": "nova-2-lite", "bedrock": {"inference_profile": "global"}}, "global"),
        ({"base_model": f"us.{NOVA_2}"}, f"us.{NOVA_2}"),
        ({"base_model": f"us.{NOVA_2}", "bedrock": {"inference_profile": "eu"}}, "eu"),
        ({"base_model": f"us.{NOVA_2}", "bedrock": None}, f"us.{NOVA_2}"),
        ({}, None),
    ],
)
def test_what_a_job_file_requests(spec: dict[str, Any], profile: str | None) -> None:
    assert requested_profile(spec) == profile


# --- permissions ---------------------------------------------------------------------------------

ARNS = ArnContext("aws", "us-east-1", ACCOUNT)
US_ARN = f"arn:aws:bedrock:us-east-1:{ACCOUNT}:inference-profile/us.{NOVA_2}"
GLOBAL_ARN = f"arn:aws:bedrock:us-east-1:{ACCOUNT}:inference-profile/global.{NOVA_2}"


def resources(permissions: Iterator[RequiredPermission]) -> list[str]:
    return [permission.resource for permission in permissions]


def test_a_model_alone_needs_its_own_permission() -> None:
    [permission] = invoke_permissions(NOVA, ARNS)
    assert permission == RequiredPermission(
        "bedrock:InvokeModel", f"arn:aws:bedrock:us-east-1::foundation-model/{NOVA}"
    )
    [by_arn] = invoke_permissions(permission.resource, ARNS)
    assert by_arn == permission


def test_a_profile_needs_itself_and_its_model_in_each_region() -> None:
    read = {f"us.{NOVA_2}": tuple(model_arns(NOVA_2, *US_REGIONS))}
    arns = ProfileArnContext("aws", "us-east-1", ACCOUNT, read)
    found = list(invoke_permissions(f"us.{NOVA_2}", arns, is_conditional=True))
    assert [one.resource for one in found] == [US_ARN, *model_arns(NOVA_2, *US_REGIONS)]
    assert found[0].context_keys == {}
    assert all(one.context_keys == {PROFILE_CONDITION: US_ARN} for one in found[1:])
    assert policy_statement(found[1]).get("Condition") == {
        "StringLike": {PROFILE_CONDITION: US_ARN}
    }


def test_the_model_is_allowed_in_any_region_where_the_profile_could_not_be_read() -> None:
    found = list(invoke_permissions(US_ARN, ARNS))
    assert [one.resource for one in found] == [US_ARN, *model_arns(NOVA_2, "us-east-1")]
    assert policy_statement(found[1])["Resource"] == f"arn:aws:bedrock:*::foundation-model/{NOVA_2}"


def test_the_global_profile_needs_the_model_without_a_region() -> None:
    without_region = f"arn:aws:bedrock:::foundation-model/{NOVA_2}"
    expected = [GLOBAL_ARN, *model_arns(NOVA_2, "us-east-1"), without_region]
    assert resources(invoke_permissions(f"global.{NOVA_2}", ARNS)) == expected
    read = {f"global.{NOVA_2}": (*model_arns(NOVA_2, "us-east-1"), without_region)}
    arns = ProfileArnContext("aws", "us-east-1", ACCOUNT, read)
    assert resources(invoke_permissions(f"global.{NOVA_2}", arns)) == expected


def test_an_application_profile_needs_the_model_that_its_name_lacks() -> None:
    arn = f"arn:aws:bedrock:us-east-1:{ACCOUNT}:application-inference-profile/a1b2c3"
    found = resources(invoke_permissions(arn, ARNS, model=NOVA))
    assert found == [arn, *model_arns(NOVA, "us-east-1")]


# --- job files ------------------------------------------------------------------------------------


def loaded(folder: Path, model: str = "nova-2-lite", **flags: Any) -> LoadedJob:
    path = write_job_file(folder, Path(model), bedrock=SECTION, hyperparameters={})
    text = path.read_text()
    for setting in ("batchSize: 4", "learningRate: 0.01", "learningRateWarmupSteps: 0"):
        text = text.replace(setting, "")
    path.write_text(text)
    return load_job(path, flags=flags)


def distilling(folder: Path, teacher: str, student: str = "nova-micro", **flags: Any) -> LoadedJob:
    more = {"customization_type": "DISTILLATION", "distillation.teacher": teacher}
    return loaded(folder, student, **more, **flags)


def codes(job: LoadedJob) -> list[tuple[str, str, str]]:
    return [(f.code, f.field or "", f.severity) for f in preflight.check_offline(job)]


@pytest.mark.parametrize("name", [f"us.{NOVA_2}", US_ARN, f"global.{NOVA_2}"])
def test_a_profile_as_base_model_is_customized_by_the_models_id(tmp_path: Path, name: str) -> None:
    job = loaded(tmp_path, name)
    assert job.model.alias == "nova-2-lite" and codes(job) == []
    parameters = request.create_request(with_placeholder_data(job))
    assert parameters["baseModelIdentifier"] == f"{NOVA_2}:256k"
    assert required_permissions.base_model_arn(job, required_permissions.arn_context(job)) == (
        f"arn:aws:bedrock:us-east-1::foundation-model/{NOVA_2}:256k"
    )


def test_the_profile_changes_no_job(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain = with_placeholder_data(loaded(tmp_path / "a"))
    other = with_placeholder_data(loaded(tmp_path / "b", **{"bedrock.inference_profile": "global"}))
    assert request.request_token(plain) == request.request_token(other)


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ({"bedrock.inference_profile": "us"}, []),
        ({"bedrock.inference_profile": "global"}, []),
        (
            {"bedrock.inference_profile": "jp"},
            [("ProfileUnknown", "bedrock.inference_profile", "warning")],
        ),
        (
            {"bedrock.inference_profile": "in-region"},
            [("ProfileNeeded", "bedrock.inference_profile", "warning")],
        ),
        (
            {"bedrock.inference_profile": f"us.{NOVA}"},
            [("ProfileOfOtherModel", "bedrock.inference_profile", "error")],
        ),
        (
            {"bedrock.inference_profile": US_ARN.replace("us-east-1", "us-west-2")},
            [("WrongRegion", "bedrock.inference_profile", "error")],
        ),
    ],
)
def test_a_requested_profile_is_checked(
    tmp_path: Path, flags: dict[str, Any], found: list[tuple[str, str, str]]
) -> None:
    assert codes(loaded(tmp_path, **flags)) == found


@pytest.mark.parametrize(
    "text", ["mars", "us.", "nova", "arn:aws:bedrock:us-east-1::foundation-model/x"]
)
def test_what_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpecError, match="is not in-region, an area"):
        loaded(tmp_path, **{"bedrock.inference_profile": text})


@pytest.mark.parametrize(
    ("student", "teacher", "region", "code", "fix"),
    [
        ("nova-micro", "us.amazon.nova-pro-v1:0", "us-east-1", None, ""),
        ("nova-micro", "nova-pro", "us-east-1", None, ""),
        (
            "nova-micro",
            f"arn:aws:bedrock:us-east-1:{ACCOUNT}:application-inference-profile/a1b2c3",
            "us-east-1",
            "TeacherUnsupported",
            "amazon.nova-pro-v1:0",
        ),
        ("nova-micro", "eu.amazon.nova-pro-v1:0", "us-east-1", "TeacherUnknown", "nova-pro"),
        ("nova-micro", "us.amazon.nova-premier-v1:0", "us-east-1", "ModelEndOfLife", "nova-pro"),
        ("llama-3.1-8b", LLAMA_33, "us-west-2", "TeacherUnsupported", f"us.{LLAMA_33}"),
        ("llama-3.1-8b", f"us.{LLAMA_33}", "us-west-2", None, ""),
        ("llama-3.1-8b", "llama-3.3-70b", "us-west-2", None, ""),
        (
            "llama-3.1-8b",
            f"arn:aws:bedrock:us-east-1:{ACCOUNT}:inference-profile/us.{LLAMA_33}",
            "us-west-2",
            "WrongRegion",
            "us-west-2",
        ),
    ],
)
def test_a_teacher_is_a_model_or_a_profile_that_bedrock_defines(
    tmp_path: Path, student: str, teacher: str, region: str, code: str | None, fix: str
) -> None:
    job = distilling(tmp_path, teacher, student, **{"bedrock.region": region})
    found = [f for f in preflight.check_offline(job) if f.field == "distillation.teacher"]
    assert [f.code for f in found] == ([code] if code else [])
    assert all(fix in f.fix for f in found)


def test_a_teacher_by_its_alias_is_sent_by_the_id_that_answers(tmp_path: Path) -> None:
    job = distilling(tmp_path, "llama-3.3-70b", "llama-3.1-8b", **{"bedrock.region": "us-west-2"})
    parameters = cast("dict[str, Any]", request.create_request(with_placeholder_data(job)))
    config = parameters["customizationConfig"]["distillationConfig"]["teacherModelConfig"]
    assert config["teacherModelIdentifier"] == f"us.{LLAMA_33}"


@pytest.mark.parametrize(
    ("student", "words"),
    [
        ("nova-pro", "its only teacher, Amazon Nova Premier, ended on 2026-09-14"),
        ("llama-3.1-70b", "its only teacher, Meta Llama 3.1 405B Instruct, ended on 2026-07-07"),
        ("llama-3.3-70b", "its only teacher, Meta Llama 3.1 405B Instruct, ended on 2026-07-07"),
    ],
)
def test_a_student_without_a_living_teacher_names_the_one_that_ended(
    tmp_path: Path, student: str, words: str
) -> None:
    with pytest.raises(SpecError) as caught:
        distilling(tmp_path, "amazon.nova-pro-v1:0", student)
    [finding] = [f for f in caught.value.findings if f.code == "UnsupportedCustomizationType"]
    assert words in finding.message
    assert "nova-micro or nova-lite" in finding.fix


def test_the_role_of_a_distillation_may_invoke_the_teacher_in_each_region(tmp_path: Path) -> None:
    teacher = "us.amazon.nova-pro-v1:0"
    job = distilling(tmp_path, teacher)
    models = {teacher: tuple(model_arns("amazon.nova-pro-v1:0", *US_REGIONS))}
    found = [
        permission.resource
        for permission in required_permissions.role_permissions(job, {}, models)
        if permission.action == "bedrock:InvokeModel"
    ]
    arn = f"arn:aws:bedrock:us-east-1:{ACCOUNT}:inference-profile/{teacher}"
    assert found == [arn, *models[teacher]]


def simulated(
    monkeypatch: pytest.MonkeyPatch, allowed: Callable[[RequiredPermission], bool]
) -> list[RequiredPermission]:
    """Replace the simulator; return what it is called with."""
    seen: list[RequiredPermission] = []

    def denied(
        _aws: Aws, _principal: str, permissions: Any
    ) -> Iterator[tuple[RequiredPermission, str]]:
        for permission in permissions:
            seen.append(permission)
            if not allowed(permission):
                yield permission, "implicitDeny"

    monkeypatch.setattr("cloudft.backends.aws_base.account_checks.denied_permissions", denied)
    return seen


def test_check_names_the_region_that_a_role_may_not_invoke_its_teacher_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = "us.amazon.nova-pro-v1:0"
    job, aws = distilling(tmp_path, teacher), ProfilesAws(summary(teacher))
    monkeypatch.setattr(permission_checks, "_bucket_keys", lambda job, aws: {})
    simulated(monkeypatch, lambda one: "us-west-2" not in one.resource)
    finding = FindingFactory(job)
    [found] = permission_checks.check_role_permissions(job, aws, finding)
    assert found.code == "RoleDenied" and found.severity == "error"
    assert model_arns("amazon.nova-pro-v1:0", "us-west-2")[0] in found.message
    assert list(permission_checks.check_profiles(job, aws, finding)) == []


def test_a_profile_that_is_not_there_or_not_readable_is_a_finding(tmp_path: Path) -> None:
    job = distilling(tmp_path, "us.amazon.nova-pro-v1:0")
    finding = FindingFactory(job)
    [gone] = permission_checks.check_profiles(job, ProfilesAws(), finding)
    assert (gone.code, gone.field, gone.severity) == (
        *("ProfileNotThere", "distillation.teacher"),
        "error",
    )
    [unread] = permission_checks.check_profiles(job, ProfilesAws(error=REFUSED), finding)
    assert (unread.code, unread.severity) == ("CouldNotCheck", "warning")
    assert "could not be checked" in unread.message


def test_callers_who_request_a_profile_are_checked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = loaded(tmp_path, **{"bedrock.inference_profile": "us"})
    aws = ProfilesAws(US)
    found = list(permission_checks._ask_permissions(job, aws))
    assert [one.resource for one in found] == [US_ARN, *model_arns(NOVA_2, *US_REGIONS)]
    assert {one.severity for one in found} == {"warning"}, "a submit asks nothing"
    assert list(permission_checks._ask_permissions(loaded(tmp_path), aws)) == []


def statements(job: LoadedJob, **options: Any) -> dict[str, Any]:
    policy = caller_policy(with_placeholder_data(job), **options)
    return {str(statement.get("Sid")): statement for statement in policy["Statement"]}


def test_the_policy_of_a_submit_invokes_no_model(tmp_path: Path) -> None:
    assert "InvokeModel" not in str(statements(loaded(tmp_path)))
    by_teacher = statements(distilling(tmp_path, "us.amazon.nova-pro-v1:0"))
    assert by_teacher["ReadInferenceProfiles"]["Resource"] == [
        f"arn:aws:bedrock:us-east-1:{ACCOUNT}:inference-profile/us.amazon.nova-pro-v1:0"
    ]


@pytest.mark.parametrize("is_read", [True, False])
def test_the_policy_of_inference_has_the_profile_and_its_model(
    tmp_path: Path, is_read: bool
) -> None:
    models = {f"us.{NOVA_2}": tuple(model_arns(NOVA_2, *US_REGIONS))} if is_read else {}
    found = statements(loaded(tmp_path), with_inference=True, profile_models=models)
    assert found["AskBaseModel"]["Resource"] == [US_ARN]
    through = found["AskBaseModelThroughProfile"]
    anywhere = [f"arn:aws:bedrock:*::foundation-model/{NOVA_2}"]
    assert through["Resource"] == (model_arns(NOVA_2, *US_REGIONS) if is_read else anywhere)
    assert through["Condition"] == {"StringEquals": {PROFILE_CONDITION: US_ARN}}
    assert "bedrock:ListInferenceProfiles" in found["FindModels"]["Action"]
    batches = found["AskInBatches"]
    assert US_ARN in batches["Resource"] and "Condition" not in batches


def test_the_policy_of_a_model_that_answers_itself_names_no_profile(tmp_path: Path) -> None:
    found = statements(loaded(tmp_path, "nova-micro"), with_inference=True)
    own = model_arns("amazon.nova-micro-v1:0", "us-east-1")
    assert found["AskBaseModel"]["Resource"] == own
    assert "AskBaseModelThroughProfile" not in found


# --- the backend ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "flags", "requested", "called"),
    [
        ("nova-2-lite", {}, None, f"us.{NOVA_2}"),
        ("nova-2-lite", {"bedrock.inference_profile": "global"}, None, f"global.{NOVA_2}"),
        ("nova-2-lite", {"bedrock.inference_profile": "global"}, "us", f"us.{NOVA_2}"),
        (f"global.{NOVA_2}", {}, None, f"global.{NOVA_2}"),
        ("nova-micro", {}, None, "amazon.nova-micro-v1:0"),
    ],
)
def test_the_base_model_of_a_job_file_is_opened_by_what_is_requested(
    tmp_path: Path, model: str, flags: dict[str, Any], requested: str | None, called: str
) -> None:
    job, aws = loaded(tmp_path, model, **flags), ProfilesAws(US, GLOBAL)
    aws.location = AwsLocation(region="us-east-1")
    backend = BedrockBackend(Home(tmp_path), aws)
    notes: list[str] = []
    backend.use_inference_profile(requested, notes.append)
    assert backend.open_base_session(job).model_identities() == {"base": called}
    assert notes == []


def test_what_could_not_be_looked_up_is_noted(tmp_path: Path) -> None:
    aws = ProfilesAws(error=REFUSED)
    aws.location = AwsLocation(region="us-east-1")
    backend, notes = BedrockBackend(Home(tmp_path), aws), list[str]()
    backend.use_inference_profile(None, notes.append)
    backend.open_base_session(loaded(tmp_path))
    [note] = notes
    assert "can't list the inference profiles" in note


def test_the_global_profile_has_its_own_price() -> None:
    prices = catalogue.find_model("nova-2-lite").prices_in("us-east-1")
    assert prices is not None
    tuned = 10 * 0.0003 + 2 * 0.0025
    for base_id in ("", NOVA_2, f"us.{NOVA_2}", US_ARN):
        usd = cost.inference_usd(prices, 10_000, 2_000, base_id=base_id)
        assert usd == pytest.approx(tuned + 10 * 0.00033 + 2 * 0.00275)
    for base_id in (f"global.{NOVA_2}", GLOBAL_ARN):
        usd = cost.inference_usd(prices, 10_000, 2_000, base_id=base_id)
        assert usd == pytest.approx(tuned + 10 * 0.0003 + 2 * 0.0025)
    micro = catalogue.find_model("nova-micro").prices_in("us-east-1")
    unknown = cost.inference_usd(micro, 10_000, 2_000, base_id="global.amazon.nova-micro-v1:0")
    assert unknown is None, "no source has it"
