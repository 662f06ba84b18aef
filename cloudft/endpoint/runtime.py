"""bedrock-runtime: asking what is served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from cloudft.endpoint import bodies
from cloudft.endpoint.answering import Answers, Question, Reply, Who
from cloudft.endpoint.customization import Customization
from cloudft.endpoint.foundation import Foundation
from cloudft.endpoint.state import Model, State
from cloudft.endpoint.wire import WireError


class Runtime:
    """Converse, InvokeModel, their streams, and CountTokens."""

    def __init__(
        self,
        state: State,
        foundation: Foundation,
        customization: Customization,
        answers: Answers,
    ) -> None:
        self.state = state
        self.foundation = foundation
        self.customization = customization
        self.answers = answers

    def served(self, identifier: str) -> tuple[Who, bodies.Family, bool]:
        """Who answers, the shape of its bodies, and whether it goes on with raw text.

        Raises ResourceNotFoundException.
        """
        with self.state.lock:
            things = (self.state.deployments, self.state.throughputs)
            serving = next((t[identifier] for t in things if identifier in t), None)
            model = serving and self.state.models.get(serving.model_arn)
            model = model or self.state.imported.get(identifier)
        if model is not None:
            return self.of(model)
        try:
            base = self.foundation.find(identifier)
        except WireError:
            what = f"Could not find the model to invoke: {identifier}"
            raise WireError("ResourceNotFoundException", what) from None
        who = Who(None, self.foundation.stand_in(base.identifier), "base")
        return who, bodies.family_of(base.identifier), False

    def of(self, model: Model) -> tuple[Who, bodies.Family, bool]:
        """As `served`, of a custom or imported model."""
        base = model.base_model_arn.rpartition("/")[2]
        if model.folder is not None:
            family = bodies.family_of(base, imported=True)
            return Who(None, model.folder, "base"), family, False
        job = self.state.jobs[str(model.job_arn)]
        raw = job.request.get("customizationType") == "CONTINUED_PRE_TRAINING"
        return self.customization.who(job), bodies.family_of(base), raw

    def converse(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a conversation."""
        reply = self._converse(given)
        message = {"role": "assistant", "content": [{"text": reply.text}]}
        return {
            "output": {"message": message},
            "stopReason": reply.stop,
            "usage": bodies.usage(reply),
            "metrics": {"latencyMs": 0},
        }

    def converse_stream(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a conversation, piece by piece."""
        return {"stream": bodies.events(self._converse(given))}

    def _converse(self, given: Mapping[str, Any]) -> Reply:
        who, _, _ = self.served(given["modelId"])
        return self.answers.reply(who, conversation(given))

    def invoke_model(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer in the family's own body shape."""
        reply, family = self._invoke(given)
        return {"body": orjson.dumps(family.tell(reply)), "contentType": "application/json"}

    def invoke_model_with_response_stream(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer in the family's own pieces."""
        reply, family = self._invoke(given)
        pieces = (("chunk", {"bytes": orjson.dumps(piece)}) for piece in family.pieces(reply))
        return {"body": pieces, "contentType": "application/json"}

    def _invoke(self, given: Mapping[str, Any]) -> tuple[Reply, bodies.Family]:
        who, family, raw = self.served(given["modelId"])
        body = bodies.parse(given.get("body", b""))
        question = bodies.read(family, body, raw=raw)
        return self.answers.reply(who, question), bodies.form(family, body)

    def count_tokens(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """How many tokens the stand-in reads."""
        who, family, raw = self.served(given["modelId"])
        asked = given["input"]
        if "invokeModel" in asked:
            body = bodies.parse(asked["invokeModel"]["body"])
            question = bodies.read(family, body, raw=raw)
        else:
            question = conversation(asked["converse"])
        return {"inputTokens": self.answers.count(who, question)}


def conversation(given: Mapping[str, Any]) -> Question:
    """Converse's request as a question. Raises ValidationException for one without text."""
    for message in given.get("messages", ()):
        if any("text" not in block for block in message["content"]):
            raise WireError("ValidationException", "This model takes text only.")
    try:
        turns = bodies.conversation(given.get("messages", ()), given.get("system"))
    except ValueError as error:
        raise WireError("ValidationException", f"messages: {error}") from None
    return Question(messages=turns, limits=given.get("inferenceConfig", {}))
