#!/usr/bin/env bash
# trl learns the end of the prompt, and never its tokens of generation, where a template's prompt ends in a blank line.
#
# Packages: trl 1.16.0, transformers 5.23.0, tokenizers 0.23.3, torch 2.13.0, datasets 5.2.0.
# Guess: in prompt-completion data the loss begins after the prompt, whatever tokenizer and chat template meet.
# Behavior: GPT-2's pattern (SmolLM2 and many others) makes one token of "\n\n" at the end of a text, and two of it before
# a word. A template of the form of Llama 3 ends its prompt in "\n\n". So the tokens of the prompt are no beginning of
# those of the whole, trl counts one too few, and the last two tokens of the prompt carry loss; the token with which the
# prompt ends at generation is in no training example. trl warns of a mismatch, and trains.
# Why it matters: the tuned model is asked after a token that training never had there.
# Way out: tokenize the prompt and the rest by themselves where a token of the whole does not end at the border.
# Seen:
#   prompt at generation ends with: ['t', '\n\n']
#   learned: ['\n', '\n', 'Y', 'e', 's', '<eos>']
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/pip" install --quiet trl==1.16.0 transformers==5.23.0 tokenizers==0.23.3 datasets==5.2.0
cat > "$folder/try.py" <<'PY'
import sys

from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

inner = Tokenizer(models.BPE())
inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
inner.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(
    vocab_size=300,
    special_tokens=["<eos>", "<pad>", "<turn>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
)
inner.train_from_iterator(["A line.\n\n\n\nAnother\n\n line.\n\n\n"] * 5, trainer)
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>"
)
tokenizer.chat_template = (
    "{% for m in messages %}<turn>{{ m['role'] }}\n\n{{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n\n{% endif %}"
)
question = [{"role": "user", "content": "Hi"}]
data = [{"prompt": question, "completion": [{"role": "assistant", "content": "Yes"}]}]
size = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
sft = SFTTrainer(
    LlamaForCausalLM(LlamaConfig(vocab_size=300, num_key_value_heads=2, **size)),
    train_dataset=Dataset.from_list(data),
    processing_class=tokenizer,
    args=SFTConfig(output_dir=sys.argv[1], report_to=[], use_cpu=True, bf16=False),
)
prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
ending = [tokenizer.decode([token]) for token in prompt[-2:]]
learned = [tokenizer.decode([token]) for token in sft.train_dataset[0]["labels"] if token >= 0]
print("prompt at generation ends with:", ending)
print("learned:", learned)
expected = (["t", "\n\n"], ["\n", "\n", "Y", "e", "s", "<eos>"])
print("as described" if (ending, learned) == expected else "changed")
sys.exit((ending, learned) != expected)
PY
"$folder/venv/bin/python" "$folder/try.py" "$folder/out" 2>/dev/null
