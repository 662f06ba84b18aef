"""Decode by transformers' own `generate`, for models that the packed path lacks.

Each sequence has a thread in which `generate` runs, as it runs for one prompt: with the model's own
kind of cache, and with the settings of its generation_config.json. It stops at each token until
that was chosen. One thread runs at a time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from local_backend.inference.completion import make_generation_config
from local_backend.models.load_model import LoadedModel
from local_backend.serving.adapter_set import AdapterSet
from local_backend.serving.sequences import Decoded, NewTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NEUTRAL: tuple[Any, ...] = (None, False, 0, 1, [], {})
"""Values of a generation setting that changes no token."""
TOKEN_SETTINGS = (
    *("repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size"),
    *("encoder_no_repeat_ngram_size", "bad_words_ids", "min_length", "min_new_tokens"),
    *("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty"),
    *("suppress_tokens", "begin_suppress_tokens", "sequence_bias", "guidance_scale"),
    *("watermarking_config", "remove_invalid_values", "num_beams", "prompt_lookup_num_tokens"),
)
"""Settings of generation_config.json by which `generate` may choose unlikely tokens."""


def changes_tokens(model: PreTrainedModel) -> bool:
    """Return whether a model's generation_config.json has `generate` choose other tokens."""
    config: Any = model.generation_config
    return any(getattr(config, name, None) not in NEUTRAL for name in TOKEN_SETTINGS)


class _Removed(Exception):
    """Ends the thread of a sequence that was removed."""


class PlainDecoder:
    """Decodes with the model's own `generate`."""

    splits_prompts = False

    def __init__(self, loaded: LoadedModel, adapters: AdapterSet) -> None:
        self.loaded, self.adapters = loaded, adapters
        head = loaded.model.get_output_embeddings()
        weight: Any = getattr(head, "base_layer", head).weight
        self.vocabulary = int(weight.shape[0])
        self._places: set[_Generation] = set()

    @property
    def cached_tokens(self) -> int:
        """Return how many tokens have gone through the model."""
        return sum(place.length for place in self._places)

    def add(self, adapter: int, prompt: Sequence[int], *, reuse: bool = True) -> Decoded:
        """Return a sequence of which no token has gone through the model yet."""
        place = _Generation(self.loaded)
        self._places.add(place)
        return Decoded(adapter, len(prompt), place)

    def known_prefix(self, adapter: int, prompt: Sequence[int]) -> int:
        """Return 0: every prompt goes through the model as a whole."""
        return 0

    def remove(self, sequence: Decoded) -> None:
        """End the thread of a sequence."""
        sequence.place.end()
        self._places.discard(sequence.place)

    def must_restart(self, sequence: Decoded) -> bool:
        """Return False: `generate` sees to that itself."""
        return False

    def restart(self, sequence: Decoded, tokens: int) -> None:
        """Do nothing, because nothing must restart."""

    def step(self, work: Sequence[NewTokens]) -> tuple[list[NewTokens], torch.Tensor]:
        """Return all of `work`, and the logits after it, float32 [work, vocabulary]."""
        logits = []
        for one in work:
            self.adapters.use(one.sequence.adapter)
            if one.on_logits is not None:
                ids = torch.tensor([list(one.ids)], device=self.loaded.model.device)
                with torch.inference_mode():
                    one.on_logits(self.loaded.model(input_ids=ids, use_cache=False).logits[0])
            logits.append(one.sequence.place.go_on(list(one.ids)))
        return list(work), torch.stack(logits)


class _Generation:
    """A run of `generate`, which takes a token for the logits that it gives."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.length = 0
        self._loaded = loaded
        self._given: queue.SimpleQueue[torch.Tensor | BaseException] = queue.SimpleQueue()
        self._taken: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def go_on(self, ids: list[int]) -> torch.Tensor:
        """Return the logits [vocabulary] after these further tokens; the first are the prompt."""
        self.length += len(ids)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(ids,), daemon=True)
            self._thread.start()
        else:
            [token] = ids
            self._taken.put(token)
        given = self._given.get()
        if isinstance(given, BaseException):
            raise given
        return given

    def end(self) -> None:
        """End the run."""
        if self._thread is not None:
            self._taken.put(None)
            self._thread.join()

    def _run(self, prompt: list[int]) -> None:
        from transformers import LogitsProcessorList

        loaded = self._loaded
        limit = loaded.context_length
        config = make_generation_config(loaded, {"maxNewTokens": limit}, len(prompt))
        row = torch.tensor([prompt], device=loaded.model.device)
        try:
            with torch.inference_mode():
                loaded.model.generate(  # type: ignore[operator]  # of a mixin that mypy misses
                    input_ids=row,
                    attention_mask=torch.ones_like(row),
                    generation_config=config,
                    logits_processor=LogitsProcessorList([self._choose]),
                )
            # Whoever goes on would wait for logits that do not come.
            raise RuntimeError("generate() ended the answer by itself")
        except _Removed:
            pass
        except BaseException as error:
            self._given.put(error)

    def _choose(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores that only the chosen token has."""
        self._given.put(scores[0].float())
        token = self._taken.get()
        if token is None:
            raise _Removed
        chosen = torch.full_like(scores, -torch.inf)
        chosen[0, token] = 0.0
        return chosen
