"""Tuned models of one base share one engine, and answer as their jobs do."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import talking_jobs

from cloudft.backends.local.backend import LocalBackend
from cloudft.endpoint.bedrock.inference_request import InferenceRequest, ModelRef
from cloudft.endpoint.bedrock.local_inference import LocalInference
from cloudft.endpoint.local_models import LocalModels
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.inference import GenerationConfig
from cloudft.storage.home import Home

REQUEST = InferenceRequest(
    messages=({"role": "user", "content": "Where is the parcel?"},),
    inference_config={"maxTokens": 8},
)


def test_jobs_of_one_base_share_an_engine_with_it(tmp_path: Path) -> None:
    home = talking_jobs.make_home(tmp_path, "one", "two", context=256)
    backend = LocalBackend(Home(home))
    jobs = sorted(path.name for path in (home / "jobs").iterdir() if (path / "job.json").exists())
    inference = LocalInference(LocalModels(backend))
    with contextlib.closing(inference):
        base = ModelRef(None, str(tmp_path / "model"), "base")
        answers = {job: inference.generate(ModelRef(job), REQUEST) for job in jobs}
        answers["base"] = inference.generate(base, REQUEST)
        [engine] = inference.engines.kept
        assert {(one.job_id, one.variant) for one in engine.models if one.job_id in jobs} == {
            (job, "tuned") for job in jobs
        }
        assert [one.variant for one in engine.models].count("base") == 1
        again = [inference.generate(ModelRef(job), REQUEST).text for job in jobs]
        assert inference.engines.kept == [engine]
        assert again == [answers[job].text for job in jobs]
        decoding = GenerationConfig(max_new_tokens=8)
        [expected] = backend.generate(jobs[0], [REQUEST.prompt], ["tuned"], decoding)
        assert expected.text == answers[jobs[0]].text
        with pytest.raises(ServiceError, match="no-such-job"):
            inference.generate(ModelRef("no-such-job"), REQUEST)
