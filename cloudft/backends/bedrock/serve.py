"""Serving a tuned model, and asking it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

from cloudft import catalogue, cost
from cloudft.aws.client import Aws
from cloudft.aws.tags import EXPIRES
from cloudft.backends.base import Answer, Asks, Decoding, Prompt, ServingPlan, Thing
from cloudft.backends.bedrock import inventory, request
from cloudft.backends.bedrock.converse import answer_of, conversation
from cloudft.errors import AwsConflict, JobStateConflict, UnknownModel, UsageError

UNDER_WAY = {"Creating", "Updating"}
READY_S = 1800.0
"""How long the making is followed; provisioned throughput takes its time."""
AT_ONCE = 4
"""Questions on their way at a time: what default quotas of requests a minute bear."""


def model_of(job: Mapping[str, Any]) -> catalogue.Model | None:
    """The catalogue's model that a job customized."""
    try:
        return catalogue.find(str(job["baseModelArn"]))
    except UnknownModel:
        return None


def base_id(job: Mapping[str, Any]) -> str:
    """The base model's id for inference: without the context suffix of customization."""
    identifier = str(job["baseModelArn"]).rpartition("/")[2]
    head, _, suffix = identifier.rpartition(":")
    return head if suffix.endswith("k") else identifier


def plan(
    job: Mapping[str, Any], *, provisioned: bool, units: int, hours: float | None
) -> ServingPlan:
    """The call that serves a job's model. Raises UsageError where the model has no such way."""
    model = model_of(job)
    ways = model.serving if model else ()
    kind = "provisioned" if provisioned or "on-demand" not in ways else "on-demand"
    if ways and kind not in ways:
        raise UsageError(
            f"Bedrock serves a tuned {model.alias if model else 'model'} by {' or '.join(ways)}",
            fix="leave --provisioned out.",
        )
    name = request.model_name(f"{job['jobName']}{'-pt' if kind == 'provisioned' else ''}")[:63]
    tags = [{"key": request.TAG_JOB, "value": job["jobName"]}]
    arn = job["outputModelArn"]
    token = hashlib.sha256(orjson.dumps([arn, kind, units])).hexdigest()[:32]
    if hours is not None:
        tags.append({"key": EXPIRES, "value": _after(hours)})
    if kind == "on-demand":
        operation = "create_custom_model_deployment"
        parameters: dict[str, Any] = {"modelDeploymentName": name, "modelArn": arn}
    else:
        operation = "create_provisioned_model_throughput"
        parameters = {"provisionedModelName": name, "modelId": arn, "modelUnits": units}
    parameters |= {"tags": tags, "clientRequestToken": token}
    call = {"service": "bedrock", "operation": operation, "parameters": parameters}
    return ServingPlan(kind, name, call, _usd(model, kind, units))


def _after(hours: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(hours=hours)).isoformat(timespec="seconds")


def _usd(model: catalogue.Model | None, kind: str, units: int) -> dict[str, float | None]:
    prices = model.prices if model else None
    unit = prices.provisioned_unit_hour if prices else None
    if kind == "on-demand":
        hour: float | None = 0.0
    else:
        hour = None if unit is None else unit * units
    month = None if hour is None else hour * cost.HOURS_PER_MONTH
    return {"perHour": hour, "perMonth": month}


def deploy(aws: Aws, wanted: ServingPlan) -> Thing:
    """Make what serves the model, and wait until it does. Raises JobStateConflict."""
    thing = _made(aws, wanted)
    waits = Retrying(
        retry=retry_if_result(lambda thing: thing.status in UNDER_WAY),
        stop=stop_after_delay(READY_S),
        wait=wait_exponential(multiplier=0.5, max=30),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else thing,
    )
    if thing.status in UNDER_WAY:
        thing = waits(_named, aws, wanted.name)
    if thing.status == "Failed":
        raise JobStateConflict(
            f"{thing.kind} {thing.name} could not be made: its status is Failed",
            fix=f"`cloudft undeploy {thing.job or 'JOB'}` removes it; then try again.",
        )
    return thing


def _named(aws: Aws, name: str) -> Thing:
    for thing in inventory.servings(aws):
        if thing.name == name:
            return thing
    raise JobStateConflict(f"{name} was removed while it was made", fix="deploy it again.")


def _made(aws: Aws, wanted: ServingPlan) -> Thing:
    """What an earlier try made is found by its name."""
    parameters = wanted.call["parameters"]
    model = parameters.get("modelArn") or parameters["modelId"]
    there = [thing for thing in inventory.servings(aws) if thing.model == model]
    same = [thing for thing in there if thing.name == wanted.name]
    if same:
        return same[0]
    if there:
        raise JobStateConflict(
            f"{there[0].kind} {there[0].name} serves this model already",
            fix=f"`cloudft undeploy {there[0].job or 'JOB'}` removes it.",
        )
    try:
        aws.call(f"{wanted.name} can't be made", "bedrock", wanted.call["operation"], **parameters)
    except AwsConflict as error:  # a try whose answer was lost, or another process beside this
        if not any(thing.name == wanted.name for thing in inventory.servings(aws)):
            raise error
    return _named(aws, wanted.name)


class Served(Asks):
    """A job's base and what serves its tuned model. Questions go out a few at a time."""

    def __init__(self, aws: Aws, ids: Mapping[str, str]) -> None:
        self.aws, self.ids = aws, ids

    def identities(self) -> Mapping[str, str]:
        """The ids that answer."""
        return self.ids

    def ask(
        self, prompts: Sequence[Prompt], variants: Sequence[str], decoding: Decoding
    ) -> Iterator[Answer]:
        """Answers in the order of the prompts."""

        def one(asked: tuple[int, Prompt]) -> list[Answer]:
            index, prompt = asked
            return [self.answer(index, variant, prompt, decoding) for variant in variants]

        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            for found in pool.map(one, enumerate(prompts)):
                yield from found
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def answer(self, index: int, variant: str, prompt: Prompt, decoding: Decoding) -> Answer:
        """One answer."""
        ask = _go_on if prompt.text is not None else converse
        return ask(self.aws, self.ids[variant], index, variant, prompt, decoding)

    def close(self) -> None:
        """Nothing is held."""


def converse(
    aws: Aws, model: str, index: int, variant: str, prompt: Prompt, decoding: Decoding
) -> Answer:
    """Converse's answer to a conversation."""
    asked, what = conversation(prompt, decoding), "the model can't be asked"
    answer = aws.call(what, "bedrock-runtime", "converse", modelId=model, **asked)
    return answer_of(answer, index, variant)


def _go_on(
    aws: Aws, model: str, index: int, variant: str, prompt: Prompt, decoding: Decoding
) -> Answer:
    """Raw text gone on with, in the body of Titan Text, the one family that was pre-trained so."""
    settings = {
        "maxTokenCount": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "topP": decoding.top_p,
    }
    body = {"inputText": prompt.text, "textGenerationConfig": settings}
    what = "the model can't be asked"
    answer = aws.call(
        what, "bedrock-runtime", "invoke_model", modelId=model, body=orjson.dumps(body)
    )
    with aws.errors(what):
        [result] = orjson.loads(answer["body"].read())["results"]
    stop = "length" if result["completionReason"] == "LENGTH" else "stop"
    return Answer(index, variant, result["outputText"], result["tokenCount"], stop)
