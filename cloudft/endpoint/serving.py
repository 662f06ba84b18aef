"""What serves a custom model: on-demand deployments and provisioned throughput; asking it; tags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from cloudft.endpoint.pages import page
from cloudft.endpoint.state import Model, Serving, State, found
from cloudft.endpoint.wire import WireError


class ServingOperations:
    """The operations of deployments, throughputs and tags."""

    def __init__(self, state: State) -> None:
        self.state = state

    def _create(
        self,
        kind: str,
        things: dict[str, Serving],
        given: Mapping[str, Any],
        make: Callable[[], Serving],
    ) -> str:
        """A new serving; the one that the same token made before, if it did."""
        with self.state.lock:
            token = given.get("clientRequestToken") or ""
            known = self.state.tokens.get((kind, token))
            if known:
                if dict(known[0]) != dict(given):
                    raise WireError(
                        "ValidationException", "The token was used with other parameters"
                    )
                return known[1]
            serving = make()
            if found(things, serving.name):
                raise WireError("ConflictException", f"The name {serving.name} is in use")
            things[serving.arn] = serving
            self.state.tag(serving.arn, given.get("tags", ()))
            if token:
                self.state.tokens[kind, token] = (given, serving.arn)
            return serving.arn

    def _model(self, identifier: str) -> Model:
        model = found(self.state.models, identifier)
        if model is None:
            raise WireError("ResourceNotFoundException", "Could not find the custom model")
        return model  # type: ignore[no-any-return]

    def _one(self, things: Mapping[str, Serving], identifier: str) -> Serving:
        serving = found(things, identifier)
        if serving is None:
            raise WireError("ResourceNotFoundException", f"Could not find {identifier}")
        return serving  # type: ignore[no-any-return]

    def create_custom_model_deployment(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Serve on demand."""

        def make() -> Serving:
            model = self._model(given["modelArn"])
            arn = self.state.arn("custom-model-deployment")
            name = given["modelDeploymentName"]
            return Serving(arn, name, model.arn, description=given.get("description"))

        arn = self._create("deployment", self.state.deployments, given, make)
        return {"customModelDeploymentArn": arn}

    def get_custom_model_deployment(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One deployment."""
        serving = self._one(self.state.deployments, given["customModelDeploymentIdentifier"])
        return {
            "customModelDeploymentArn": serving.arn,
            "modelDeploymentName": serving.name,
            "modelArn": serving.model_arn,
            "createdAt": serving.created,
            "lastUpdatedAt": serving.created,
            "status": "Active",
            "description": serving.description,
        }

    def list_custom_model_deployments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Summaries, a page at a time."""
        shown, more = page(self._wanted(self.state.deployments, given), given)
        summaries = [
            {
                "customModelDeploymentArn": serving.arn,
                "customModelDeploymentName": serving.name,
                "modelArn": serving.model_arn,
                "createdAt": serving.created,
                "status": "Active",
                "lastUpdatedAt": serving.created,
            }
            for serving in shown
        ]
        return {"modelDeploymentSummaries": summaries, **more}

    def _wanted(self, things: Mapping[str, Serving], given: Mapping[str, Any]) -> list[Serving]:
        with self.state.lock:
            return [
                thing
                for thing in things.values()
                if given.get("nameContains", "") in thing.name
                and given.get("modelArnEquals", thing.model_arn) == thing.model_arn
            ]

    def delete_custom_model_deployment(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Serve no more; the model stays."""
        with self.state.lock:
            identifier = given["customModelDeploymentIdentifier"]
            del self.state.deployments[self._one(self.state.deployments, identifier).arn]
        return {}

    def create_provisioned_model_throughput(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Serve by the hour."""

        def make() -> Serving:
            return Serving(
                self.state.arn("provisioned-model"),
                given["provisionedModelName"],
                self._model(given["modelId"]).arn,
                units=given["modelUnits"],
                commitment=given.get("commitmentDuration"),
            )

        arn = self._create("throughput", self.state.throughputs, given, make)
        return {"provisionedModelArn": arn}

    def _throughput(self, serving: Serving) -> dict[str, Any]:
        model = self._model(serving.model_arn)
        return {
            "provisionedModelName": serving.name,
            "provisionedModelArn": serving.arn,
            "modelArn": serving.model_arn,
            "desiredModelArn": serving.model_arn,
            "foundationModelArn": model.job.base_model_arn,
            "modelUnits": serving.units,
            "desiredModelUnits": serving.units,
            "status": "InService",
            "commitmentDuration": serving.commitment,
            "creationTime": serving.created,
            "lastModifiedTime": serving.created,
        }

    def get_provisioned_model_throughput(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One throughput."""
        return self._throughput(self._one(self.state.throughputs, given["provisionedModelId"]))

    def list_provisioned_model_throughputs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Summaries, a page at a time."""
        shown, more = page(self._wanted(self.state.throughputs, given), given)
        return {"provisionedModelSummaries": [self._throughput(s) for s in shown], **more}

    def delete_provisioned_model_throughput(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Serve no more. Raises ConflictException within a commitment."""
        with self.state.lock:
            serving = self._one(self.state.throughputs, given["provisionedModelId"])
            if serving.commitment:
                raise WireError("ConflictException", "The commitment term has not ended")
            del self.state.throughputs[serving.arn]
        return {}

    def list_imported_models(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """None: nothing is imported here yet."""
        return {"modelSummaries": []}

    def tag_resource(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Add tags."""
        with self.state.lock:
            self._require(given["resourceARN"])
            self.state.tag(given["resourceARN"], given["tags"])
        return {}

    def untag_resource(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Take tags away."""
        with self.state.lock:
            self._require(given["resourceARN"])
            for key in given["tagKeys"]:
                self.state.tags.get(given["resourceARN"], {}).pop(key, None)
        return {}

    def list_tags_for_resource(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The tags of one thing."""
        with self.state.lock:
            self._require(given["resourceARN"])
            tags = self.state.tags.get(given["resourceARN"], {})
            return {"tags": [{"key": key, "value": value} for key, value in tags.items()]}

    def _require(self, arn: str) -> None:
        state = self.state
        things = (state.jobs, state.models, state.deployments, state.throughputs)
        if not any(arn in group for group in things):
            raise WireError("ResourceNotFoundException", f"Could not find {arn}")


class Runtime:
    """bedrock-runtime: asking what is served."""

    def __init__(self, state: State) -> None:
        self.state = state

    def _served(self, identifier: str) -> tuple[Model, str]:
        """The model that is meant, and which of the two: `tuned`, or the `base` it was made from.

        A foundation model is asked through a job that customized it: the same stand-in.
        """
        with self.state.lock:
            things = (self.state.deployments, self.state.throughputs)
            serving = next((t[identifier] for t in things if identifier in t), None)
            if serving is not None:
                return self.state.models[serving.model_arn], "tuned"
            for model in self.state.models.values():
                base = model.job.base_model_arn.rpartition("/")[2]
                if base == identifier or base.startswith(f"{identifier}:"):
                    return model, "base"
        raise WireError("ResourceNotFoundException", "Could not find the model to invoke")

    def converse(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a conversation."""
        model, variant = self._served(given["modelId"])
        system = [{"role": "system", "content": b["text"]} for b in given.get("system", ())]
        turns = [
            {"role": m["role"], "content": "\n".join(b.get("text", "") for b in m["content"])}
            for m in given["messages"]
        ]
        answer = self._ask(model, variant, [*system, *turns], given.get("inferenceConfig", {}))
        stop = "max_tokens" if answer.finish_reason == "length" else "end_turn"
        said = sum(len(turn["content"]) for turn in turns) // 4
        return {
            "output": {"message": {"role": "assistant", "content": [{"text": answer.text}]}},
            "stopReason": stop,
            "usage": {
                "inputTokens": said,
                "outputTokens": answer.tokens,
                "totalTokens": said + answer.tokens,
            },
            "metrics": {"latencyMs": 0},
        }

    def _ask(
        self,
        model: Model,
        variant: str,
        messages: list[dict[str, str]],
        limits: Mapping[str, Any],
    ) -> Any:
        assert model.job.run is not None
        try:
            return model.job.run.generate(messages, limits, variant)
        except NotImplementedError:
            raise WireError("ModelErrorException", "An instant job has no model to ask") from None

    def invoke_model(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer in Titan Text's own body shape."""
        model, variant = self._served(given["modelId"])
        try:
            body = orjson.loads(given.get("body", b""))
            text, settings = body["inputText"], body.get("textGenerationConfig", {})
        except (ValueError, KeyError, TypeError):
            raise WireError("ValidationException", "Malformed input request") from None
        raw = model.job.request.get("customizationType") == "CONTINUED_PRE_TRAINING"
        limits = {
            "maxTokens": settings.get("maxTokenCount", 256),
            "temperature": settings.get("temperature", 0.0),
            "topP": settings.get("topP", 1.0),
        }
        role = "raw" if raw else "user"
        answer = self._ask(model, variant, [{"role": role, "content": text}], limits)
        reason = "LENGTH" if answer.finish_reason == "length" else "FINISH"
        result = {
            "tokenCount": answer.tokens,
            "outputText": answer.text,
            "completionReason": reason,
        }
        content = {"inputTextTokenCount": len(text) // 4, "results": [result]}
        return {"body": orjson.dumps(content), "contentType": "application/json"}
