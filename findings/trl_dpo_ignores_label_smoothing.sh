#!/usr/bin/env bash
# trl's DPOTrainer ignores label_smoothing with its default loss: no error, no warning, the loss of hard labels.
#
# Packages: trl 1.16.0, transformers 5.23.0, tokenizers 0.23.3, torch 2.13.0, datasets 5.2.0.
# Guess: DPOConfig(label_smoothing=0.2) smooths the loss, as it did in trl 0.x (conservative DPO), and as it does in
# trl's CPOTrainer with the losses sigmoid and simpo.
# Behavior: only the losses `robust` and `exo_pair` read it. With the default, `sigmoid`, the trainer accepts the value
# and trains as if it were 0. `robust` has no lower bound: a wrong pair is subtracted.
# Why it matters: who moves an old configuration with noisy pairs trains on hard labels, and sees nothing of it.
# Way out: cloudft's `preference: {method: dpo, label_smoothing: 0.2}` is conservative DPO; in trl set loss_type.
# Seen:
#   loss with label_smoothing 0.0 and 0.4: equal
#   the same with the loss robust: differs
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/pip" install --quiet trl==1.16.0 transformers==5.23.0 tokenizers==0.23.3 datasets==5.2.0
cat > "$folder/try.py" <<'PY'
import sys

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

inner = Tokenizer(models.BPE())
inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
special = ["<eos>", "<pad>"]
alphabet = pre_tokenizers.ByteLevel.alphabet()
inner.train_from_iterator(
    ["a line"],
    trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    ),
)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>")
data = Dataset.from_list([{"prompt": "Where?", "chosen": " Here.", "rejected": " Somewhere else."}])
size = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)


def loss(smoothing, loss_type="sigmoid"):
    torch.manual_seed(0)
    trainer = DPOTrainer(
        LlamaForCausalLM(LlamaConfig(vocab_size=300, num_key_value_heads=2, **size)),
        train_dataset=data,
        processing_class=tokenizer,
        args=DPOConfig(
            output_dir=sys.argv[1],
            report_to=[],
            use_cpu=True,
            bf16=False,
            label_smoothing=smoothing,
            loss_type=[loss_type],
            precompute_ref_log_probs=True,
        ),
    )
    inputs = trainer.data_collator([trainer.train_dataset[0]])
    inputs["ref_chosen_logps"] -= 9.0  # so that the chosen answer has a reward
    return trainer.compute_loss(trainer.model, inputs).item()


same = loss(0.0) == loss(0.4)
robust = loss(0.0, "robust") != loss(0.4, "robust")
print("loss with label_smoothing 0.0 and 0.4:", "equal" if same else "differs")
print("the same with the loss robust:", "differs" if robust else "equal")
print("as described" if same and robust else "changed")
sys.exit(not (same and robust))
PY
"$folder/venv/bin/python" "$folder/try.py" "$folder/out" 2>/dev/null
