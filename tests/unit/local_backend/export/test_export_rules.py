"""What is refused for a runtime, by name, and with a way out that works."""

from __future__ import annotations

from typing import Any

import pytest

from local_backend.errors import TrainerError
from local_backend.export import runtimes
from local_backend.export.features import ADAPTER_FINDERS, FINDERS, ModelFiles, find_features
from local_backend.export.options import FORMATS, RUNTIME_FORMATS, ExportOptions
from local_backend.export.rules import (
    check_export,
    find_differences,
    limit_context,
    read_otherwise,
    refused_families,
    right_families,
    run_command,
)
from local_backend.export.runtime_results import load_cells

MISTRAL = {
    "model_type": "mistral",
    "max_position_embeddings": 32768,
    "sliding_window": 4096,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
YARN = {
    "model_type": "llama",
    "max_position_embeddings": 32768,
    "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0},
}
PLAIN = {"r": 16, "target_modules": ["q_proj"], "bias": "none"}
ROPES = {"rope-linear", "rope-yarn", "rope-llama3", "rope-dynamic", "rope-longrope"}


def options(runtime: str, form: str | None = None) -> ExportOptions:
    """Return the options for a runtime."""
    return ExportOptions(format=form or RUNTIME_FORMATS[runtime][0], runtime=runtime)


def test_the_table_names_features_and_formats_that_there_are() -> None:
    assert runtimes.RUNTIMES.keys() == RUNTIME_FORMATS.keys()
    for name, runtime in runtimes.RUNTIMES.items():
        for reading in runtime.readings:
            assert reading.feature in ROPES | FINDERS.keys() | ADAPTER_FINDERS.keys()
            assert reading.effect in {"drops", "changes", "refuses", "default"}
            assert reading.formats <= set(RUNTIME_FORMATS[name]) <= set(FORMATS)
        recorded = {case for case, cells in load_cells().items() if runtime.engine in cells}
        right = {case for case in recorded if load_cells()[case][runtime.engine].result == "right"}
        assert not runtime.measured & right, "runtime_results.json says so already"
        assert runtime.version and runtime.source


def test_no_family_that_was_wrong_or_refused_is_called_right() -> None:
    for name in runtimes.RUNTIMES:
        assert not right_families(name) & refused_families(name)
    assert "llama" in right_families("mlx") and "arcee" in refused_families("mlx")
    with pytest.raises(TrainerError, match="does not run the family arcee"):
        check_export(ModelFiles({"model_type": "arcee"}), options("mlx"))
    with pytest.raises(TrainerError, match="does not run the family smollm3"):
        check_export(ModelFiles({"model_type": "smollm3"}), options("onnxruntime"))


def test_a_family_that_was_compared_and_differed_is_not_called_unknown() -> None:
    [note] = check_export(ModelFiles({"model_type": "starcoder2"}), options("llama.cpp"))
    assert "starcoder2 differed in llama.cpp" in note.text and "log-probability" in note.text
    [note] = check_export(ModelFiles({"model_type": "bloom"}), options("llama.cpp"))
    assert "no model of the family bloom was compared" in note.text


def test_a_dropped_window_is_refused_and_the_shorter_context_is_taken() -> None:
    files = ModelFiles(MISTRAL)
    with pytest.raises(TrainerError, match="silently drops a sliding window of 4096") as caught:
        check_export(files, options("mlx"))
    assert "--context 4096" in str(caught.value.fix) and "--for transformers" in caught.value.fix
    check_export(limit_context(files, 4096, "mlx"), options("mlx"))
    check_export(files, options("transformers"))


def test_a_context_that_the_rope_scaling_follows_from_is_not_changed() -> None:
    with pytest.raises(TrainerError, match=r"rope scaling \(yarn\)"):
        limit_context(ModelFiles(YARN), 4096, "merged")


def test_a_dropped_rope_scaling_is_refused_with_the_runtimes_that_read_it() -> None:
    with pytest.raises(TrainerError, match="silently drops rope scaling yarn by 4") as caught:
        check_export(ModelFiles(YARN), options("onnxruntime"))
    assert "--for transformers" in str(caught.value.fix) and "--context" not in caught.value.fix
    check_export(ModelFiles(YARN), options("mlx"))


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"lora_bias": True},
        {"bias": "lora_only"},
        {"modules_to_save": ["norm"]},
        {"modules_to_save": ["embed_tokens"]},
        {"r": 1024},
    ],
    ids=str,
)
def test_an_adapter_that_vllm_does_not_take_is_refused_and_merged_it_is_taken(
    changes: dict[str, Any],
) -> None:
    config = MISTRAL | {"sliding_window": None}
    files = ModelFiles(config, {}, PLAIN | changes)
    with pytest.raises(TrainerError, match="does not run") as caught:
        check_export(files, options("vllm", "adapter"))
    assert "use --format merged" in str(caught.value.fix)
    check_export(ModelFiles(config), options("vllm"))
    check_export(ModelFiles(config, {}, PLAIN), options("vllm", "adapter"))


def test_sampling_that_a_runtime_does_not_take_from_files_is_a_note() -> None:
    files = ModelFiles(MISTRAL, {"do_sample": True, "no_repeat_ngram_size": 3})
    [note, *_] = check_export(files, options("vllm"))
    assert "no_repeat_ngram_size" in note.text and note.fix == "set it in requests."
    assert check_export(files, ExportOptions()) == []


def test_every_reader_of_a_format_is_named_with_what_it_takes_otherwise() -> None:
    found = read_otherwise(ModelFiles(YARN), "merged")
    assert "rope scaling yarn" in found["onnxruntime"][0]
    assert find_differences(ModelFiles(YARN), "transformers", "merged") == []


@pytest.mark.parametrize("window", [{"use_sliding_window": False}, {"sliding_window": 32768}])
def test_a_window_that_no_context_reaches_is_none(window: dict[str, Any]) -> None:
    assert "sliding-window" not in find_features(ModelFiles(MISTRAL | window))


def test_vllm_gets_an_allowed_rank() -> None:
    files = ModelFiles(MISTRAL, {}, PLAIN | {"r": 20})
    command = run_command(ExportOptions("adapter", "vllm", base="a b"), files)
    assert command is not None and "--max-lora-rank 32" in command and "'a b'" in command
