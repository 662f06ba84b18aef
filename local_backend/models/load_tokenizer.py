"""Load a model's tokenizer, without its weights and without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from local_backend.data.chat_template import ensure_chat_template
from local_backend.data.template_date import fix_date, writes_date

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(source: str) -> tuple[PreTrainedTokenizerBase, bool]:
    """Return the tokenizer with a chat template, and True if that is the plain template.

    A pad token that equals the end token is replaced. Trainers that mask padding would mask the end
    token too, and the tuned model would never learn to stop.
    """
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        candidates = ["<|endoftext|>", "<pad>", "<|finetune_right_pad_id|>", tokenizer.unk_token]
        vocabulary = tokenizer.get_vocab()
        tokenizer.pad_token = next(
            (t for t in candidates if t in vocabulary and t != tokenizer.eos_token),
            tokenizer.eos_token,
        )
    return tokenizer, ensure_chat_template(tokenizer)


def fix_template_date(tokenizer: PreTrainedTokenizerBase, day: str) -> bool:
    """Make the chat template write `day`, in ISO 8601, as today. Return False if it writes none."""
    template: Any = tokenizer.chat_template
    named = template if isinstance(template, dict) else {"default": template or ""}
    if not any(map(writes_date, named.values())):
        return False
    fixed = {name: fix_date(text, day) for name, text in named.items()}
    tokenizer.chat_template = fixed if isinstance(template, dict) else fixed["default"]
    return True
