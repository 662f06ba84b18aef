"""The endpoint's stand-in is loaded at the start, from the model cache that all of cloudft uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudft.endpoint.bedrock.inference_request import InferenceRequest, ModelRef
from cloudft.endpoint.build import build_endpoint
from cloudft.endpoint.options import EndpointOptions
from cloudft.endpoint.training.trainers import LocalTrainer

REQUEST = InferenceRequest(
    messages=({"role": "user", "content": "Hi"},), inference_config={"maxTokens": 2}
)


def test_the_stand_in_is_loaded_before_the_first_request(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDFT_MODEL_CACHE", str(tmp_path / "cache"))
    options = EndpointOptions(stand_in=str(tiny_model))
    notes: list[str] = []
    endpoint = build_endpoint(options, "http://127.0.0.1:9", tmp_path / "endpoint", print)
    try:
        endpoint.warm_up(notes.append)
        [engine] = endpoint.inference.engines.kept
        answer = endpoint.inference.generate(ModelRef(None, str(tiny_model), "base"), REQUEST)
        assert answer.output_tokens and answer.latency_ms
        assert endpoint.inference.engines.kept == [engine]
        trainer = endpoint.customization.trainer
        assert isinstance(trainer, LocalTrainer)
        assert trainer.backend.home.models == tmp_path / "cache"
    finally:
        endpoint.close()
    assert notes[0].startswith(f"loading {tiny_model}") and " answers after " in notes[1]


def test_a_stand_in_that_is_not_here_is_not_loaded(tmp_path: Path) -> None:
    options = EndpointOptions(stand_in="nobody/no-such-model", fast=True)
    notes: list[str] = []
    endpoint = build_endpoint(options, "http://127.0.0.1:9", tmp_path / "endpoint", print)
    endpoint.warm_up(notes.append)
    endpoint.close()
    assert notes == [] and not endpoint.inference.engines.kept
