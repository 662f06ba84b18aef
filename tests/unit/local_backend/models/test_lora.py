"""Our adapters against PEFT's: the same layers, the same numbers, one format on the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from local_backend.errors import TrainerError
from local_backend.models import lora
from local_backend.models.target_modules import find_target_layers
from local_backend.settings import LoraSettings
from local_backend.training.checkpoint import gather_trained_weights

IDS = torch.tensor([[5, 9, 2, 7, 11, 3]])


def plain(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=64, n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=None
    )
    return GPT2LMHeadModel(config)


@pytest.mark.parametrize(
    "targets", ["all-linear", r".*\.mlp\..*_proj", ("q_proj", "v_proj"), ("self_attn.o_proj",)]
)
def test_the_layers_are_those_that_peft_means(tiny_model: Path, targets: Any) -> None:
    from peft import LoraConfig, get_peft_model

    target_modules = targets if isinstance(targets, str) else list(targets)
    config = LoraConfig(r=2, target_modules=target_modules, task_type="CAUSAL_LM")
    theirs = {
        name.removesuffix(".lora_A.default.weight").removeprefix("base_model.model.")
        for name, _ in get_peft_model(plain(tiny_model), config).named_parameters()
        if ".lora_A." in name
    }
    assert set(find_target_layers(plain(tiny_model), LoraSettings(2, 4, 0.0, targets))) == theirs


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_peft_reads_what_is_kept_and_merging_is_the_same_model(
    tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    from peft import PeftModel

    def fresh() -> Any:
        return plain(tiny_model).eval() if kind == "llama" else gpt2().eval()

    model = fresh()
    base = model(IDS).logits
    lora.attach_adapters(model, LoraSettings(4, 8, 0.0, "all-linear"), 1)
    torch.testing.assert_close(model(IDS).logits, base)
    for _, layer in lora.lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.2)
    expected = model(IDS).logits
    assert not torch.allclose(expected, base, atol=1e-2)
    trained = gather_trained_weights(model)
    lora.save_adapter(
        model, LoraSettings(4, 8, 0.0, "all-linear"), tmp_path / "adapter", "the base", trained
    )
    theirs = PeftModel.from_pretrained(fresh(), str(tmp_path / "adapter"))
    torch.testing.assert_close(theirs(IDS).logits, expected, atol=1e-4, rtol=1e-4)
    again = fresh()
    lora.load_adapter(again, tmp_path / "adapter")
    torch.testing.assert_close(again(IDS).logits, expected)
    with lora.disable_adapters(again):
        torch.testing.assert_close(again(IDS).logits, base)
    lora.merge_adapters(again)
    assert not list(lora.lora_layers(again))
    torch.testing.assert_close(again(IDS).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_on_the_output_layer_leaves_the_embedding_alone(
    tmp_path: Path, tiny_model: Path, tied: bool
) -> None:
    """peft#2777: merged into a tied output layer, the update changes the embedding too."""
    from peft import PeftModel

    base = plain(tiny_model)
    base.config.tie_word_embeddings = tied
    base.tie_weights()
    base.save_pretrained(tmp_path / "base")
    settings = LoraSettings(4, 8, 0.0, ("q_proj", "lm_head"))
    model = plain(tmp_path / "base").eval()
    embedding = model.get_input_embeddings().weight.clone()
    lora.attach_adapters(model, settings, 1)
    for _, layer in lora.lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.2)
    expected = model(IDS).logits
    trained = gather_trained_weights(model)
    lora.save_adapter(model, settings, tmp_path / "adapter", "the base", trained)
    theirs = PeftModel.from_pretrained(plain(tmp_path / "base"), str(tmp_path / "adapter"))
    torch.testing.assert_close(theirs(IDS).logits, expected, atol=1e-4, rtol=1e-4)
    again = plain(tmp_path / "base")
    lora.load_adapter(again, tmp_path / "adapter")
    lora.merge_adapters(again)
    again.save_pretrained(tmp_path / "merged")
    merged = plain(tmp_path / "merged").eval()
    torch.testing.assert_close(merged(IDS).logits, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(merged.get_input_embeddings().weight, embedding)
    assert not merged.config.tie_word_embeddings


@pytest.mark.parametrize(
    ("targets", "faults"),
    [
        (("q_proj", "v_prj"), ["v_prj (did you mean v_proj"]),
        (("embed_tokens", "nothing", "q_proj"), ["embed_tokens is Embedding; nothing"]),
        (("self_attn",), ["self_attn is LlamaAttention"]),
    ],
)
def test_each_name_that_is_no_linear_layer_is_an_error(
    tiny_model: Path, targets: tuple[str, ...], faults: list[str]
) -> None:
    with pytest.raises(TrainerError, match="names what is no linear layer") as caught:
        lora.attach_adapters(plain(tiny_model), LoraSettings(2, 4, 0.0, targets), 1)
    assert all(fault in caught.value.message for fault in faults)
    assert "down_proj, gate_proj, k_proj, lm_head" in caught.value.fix


def test_an_adapter_that_claims_more_than_it_has_still_loads(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Earlier versions wrote names that match nothing."""
    model = plain(tiny_model)
    settings = LoraSettings(2, 4, 0.0, ("q_proj",))
    lora.attach_adapters(model, settings, 1)
    lora.save_adapter(model, settings, tmp_path, "the base", gather_trained_weights(model))
    path = tmp_path / lora.ADAPTER_CONFIG
    claims = {**json.loads(path.read_text()), "target_modules": ["q_proj", "v_prj", "embed_tokens"]}
    path.write_text(json.dumps(claims))
    lora.load_adapter(plain(tiny_model), tmp_path)


def test_the_draw_follows_from_the_seed(tiny_model: Path) -> None:
    drawn = []
    for seed in (1, 1, 2):
        model = plain(tiny_model)
        lora.attach_adapters(model, LoraSettings(4, 8, 0.0, "all-linear"), seed)
        drawn.append(next(iter(lora.lora_layers(model)))[1].lora_A)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_an_adapter_of_another_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    model = plain(tiny_model)
    lora.attach_adapters(model, LoraSettings(2, 4, 0.0, "all-linear"), 1)
    trained = gather_trained_weights(model)
    lora.save_adapter(model, LoraSettings(2, 4, 0.0, "all-linear"), tmp_path, "the base", trained)
    assert json.loads((tmp_path / lora.ADAPTER_CONFIG).read_text())["r"] == 2
    with pytest.raises(TrainerError, match="another model's"):
        lora.load_adapter(gpt2(), tmp_path)
    with pytest.raises(TrainerError, match="target_modules"):
        lora.attach_adapters(plain(tiny_model), LoraSettings(2, 4, 0.0, ("nothing",)), 1)
