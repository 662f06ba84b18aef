"""The requests that wait and those that are answered in one batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import torch

from local_backend.errors import ModelFailed, TrainerError
from local_backend.inference.answer_preview import INCOMPLETE
from local_backend.serving.answer_text import AnswerText
from local_backend.serving.choose import (
    RowSampling,
    ScoredToken,
    draw_token,
    mask_logits,
    score_token,
)
from local_backend.serving.kept_prefixes import common_prefix
from local_backend.serving.models import ServedModel
from local_backend.serving.requests import Submission, Values, error_reply
from local_backend.serving.sequences import Decoded, Decoder, NewTokens

Reply = Callable[[Values], None]
"""Takes a reply to a request, without its id."""
PROMPT_TOKENS = 256
"""Tokens of prompts that go through the model in one step, beside the answers under way."""
WORTH_WAITING = 32
"""Tokens that a prompt under way must spare another one for that to wait for it."""
CANCELED, LENGTH, STOP, STOP_SEQUENCE = "canceled", "length", "stop", "stop_sequence"


class RunningAnswer:
    """A request with its answer in the making. Raise TrainerError where there can be none."""

    def __init__(
        self, model: ServedModel, request: Submission, reply: Reply, received: float
    ) -> None:
        self.model, self.reply = model, reply
        prompt = request["prompt"]
        self.prompt_ids = model.encode(prompt)
        room = model.loaded.context_length - len(self.prompt_ids)
        self.limit = max(1, min(request.get("maxNewTokens", 256), room))
        self.sampling = RowSampling(
            request.get("temperature", 0.0),
            request.get("topP", 1.0),
            request.get("topK", 0),
            request.get("seed", 0),
        )
        self.top = request.get("logprobs")
        schema = request.get("jsonSchema")
        self.constraint = None if schema is None else model.schemas.start(schema)
        self.text = AnswerText(model.loaded, prompt, request.get("stop", ()))
        self.sequence: Decoded | None = None
        self.pending = list(self.prompt_ids)
        """Tokens that have not gone through the model yet."""
        self.is_canceled = False
        self.shared_tokens = 0
        self.first_token_s = 0.0
        self._received = received
        self._scored: list[ScoredToken] = []

    def start(self) -> None:
        """Begin with what is known of the prompt already."""
        self.sequence = self.model.decoder.add(self.model.adapter, self.prompt_ids)
        self.shared_tokens = self.sequence.length
        self.pending = self.prompt_ids[self.shared_tokens :]

    @property
    def is_prompt(self) -> bool:
        """Return whether tokens of the prompt have not gone through the model yet."""
        return len(self.pending) > 1 or not self.text.ids

    def take_part(self, budget: int, *, splits: bool) -> list[int]:
        """Return the tokens that go through the model next, at most `budget` of a prompt."""
        count = min(len(self.pending), budget) if splits else len(self.pending)
        part, self.pending = self.pending[:count], self.pending[count:]
        return part

    def choose_token(self, logits: torch.Tensor, best: int) -> int:
        """Return the next token; `best` is that of the largest of the `logits` [vocabulary]."""
        if self.constraint is not None:
            logits = mask_logits(logits, self.constraint.allowed().to(logits.device))
            best = int(logits.argmax())
        return draw_token(logits, self.sampling) if self.sampling.temperature else best

    def take_token(self, token: int, logits: torch.Tensor) -> str | None:
        """Take the next token, report what is settled; return the finish reason at the end.

        `logits` [vocabulary] are those that it was chosen by, before any constraint.
        """
        if not self.text.ids:
            self.first_token_s = time.monotonic() - self._received
        if token in self.model.loaded.stop_ids:
            self.text.ids.append(token)
            return STOP
        if self.top is not None:
            self._scored.append(score_token(logits, token, self.top))
        is_whole = self.constraint.take(token) if self.constraint is not None else False
        new = self.text.add(token)
        if self.text.stop_sequence is not None:
            return STOP_SEQUENCE
        self._report(new)
        if is_whole:
            return STOP
        self.pending = [token]
        return LENGTH if len(self.text.ids) >= self.limit else None

    def finish(self, reason: str) -> None:
        """Report the whole answer."""
        completion, new = self.text.finish()
        if any(new) or self._scored:
            self._report(new, also_empty=True)
        self.reply(
            {
                "end": {
                    **completion,
                    "finishReason": reason,
                    "promptTokens": len(self.prompt_ids),
                    "ids": self.text.ids[: completion["tokens"]],
                    "stopSequence": self.text.stop_sequence,
                    "firstTokenS": self.first_token_s,
                }
            }
        )

    def fail(self, error: TrainerError) -> None:
        """Report why there is no answer."""
        self.reply(error_reply(error))

    def _report(self, new: tuple[str, str], *, also_empty: bool = False) -> None:
        text, reasoning = new
        if not (text or reasoning or also_empty):
            return
        scored, self._scored = self._scored, []
        self.reply(
            {
                "delta": text,
                "reasoning": reasoning,
                "tokens": len(self.text.ids),
                "logprobs": [self._describe(one) for one in scored],
            }
        )

    def _describe(self, scored: ScoredToken) -> Values:
        top = [self._token(token, logprob) for token, logprob in scored.top]
        return {**self._token(scored.token, scored.logprob), "top": top}

    def _token(self, token: int, logprob: float) -> Values:
        data = self.model.token_bytes(token)
        text = data.decode("utf-8", "replace")
        if INCOMPLETE in text:
            text = str(self.model.loaded.tokenizer.decode([token]))
        return {"token": token, "text": text, "bytes": list(data), "logprob": logprob}


class Batch:
    """Answers in the making, at most `rows` at once, and requests that wait for a place."""

    def __init__(self, models: Sequence[ServedModel], rows: int) -> None:
        self.models = {model.reply["name"]: model for model in models}
        self.rows = rows
        self.waiting: deque[RunningAnswer] = deque()
        self.running: list[RunningAnswer] = []
        self.totals = {"promptTokens": 0, "sharedTokens": 0, "generatedTokens": 0, "steps": 0}
        self._decoders = list({id(m.decoder): m.decoder for m in models}.values())

    def find_model(self, name: str) -> ServedModel:
        """Return a model by its name. Raise TrainerError."""
        model = self.models.get(name)
        if model is None:
            raise TrainerError(
                f"There is no model {name} here.", fix=f"use one of {', '.join(self.models)}."
            )
        return model

    def submit(self, request: Submission, reply: Reply, received: float) -> RunningAnswer:
        """Take a request; its answer starts with the next step. Raise TrainerError."""
        answer = RunningAnswer(self.find_model(request["model"]), request, reply, received)
        self.waiting.append(answer)
        return answer

    @property
    def is_idle(self) -> bool:
        """Return whether there is nothing to do."""
        return not self.running and not self.waiting

    def stats(self) -> Values:
        """Return what is done now, and has been done."""
        return {
            "running": len(self.running),
            "waiting": len(self.waiting),
            **self.totals,
            "cachedTokens": sum(decoder.cached_tokens for decoder in self._decoders),
        }

    def step(self) -> None:
        """Compute the next token of every answer under way, and parts of prompts that wait."""
        self._drop_canceled()
        self._admit()
        for decoder in self._decoders:
            answers = [answer for answer in self.running if answer.model.decoder is decoder]
            if answers:
                self._step_decoder(decoder, answers)

    def _admit(self) -> None:
        """Start the answers that wait, while there is a place."""
        postponed = []
        while self.waiting and len(self.running) < self.rows:
            answer = self.waiting.popleft()
            if self._will_be_known(answer):
                postponed.append(answer)
                continue
            answer.start()
            self.running.append(answer)
            self.totals["promptTokens"] += len(answer.prompt_ids)
            self.totals["sharedTokens"] += answer.shared_tokens
        self.waiting.extendleft(reversed(postponed))

    def _will_be_known(self, answer: RunningAnswer) -> bool:
        """Return whether a prompt under way computes what this one begins with, and nothing has."""
        model = answer.model
        if not model.decoder.splits_prompts:
            return False
        longest = max(
            (
                common_prefix(other.prompt_ids, answer.prompt_ids)
                for other in self.running
                if other.is_prompt
                and (other.model.decoder, other.model.adapter) == (model.decoder, model.adapter)
            ),
            default=0,
        )
        if longest < WORTH_WAITING:
            return False
        known = model.decoder.known_prefix(model.adapter, answer.prompt_ids)
        return min(longest, len(answer.prompt_ids) - 1) - known >= WORTH_WAITING

    def _drop_canceled(self) -> None:
        for answer in [one for one in self.waiting if one.is_canceled]:
            self.waiting.remove(answer)
            self._finish(answer, CANCELED)
        for answer in [one for one in self.running if one.is_canceled]:
            self._leave(answer)
            self._finish(answer, CANCELED)

    def _step_decoder(self, decoder: Decoder, answers: Sequence[RunningAnswer]) -> None:
        work, by_sequence = [], {}
        budget = PROMPT_TOKENS
        for answer in answers:
            sequence = answer.sequence
            assert sequence is not None
            if answer.text.ids and decoder.must_restart(sequence):
                answer.pending = [*answer.prompt_ids, *answer.text.ids]
                decoder.restart(sequence, len(answer.pending))
            is_prompt = answer.is_prompt
            if is_prompt and budget <= 0:
                continue
            part = answer.take_part(budget, splits=decoder.splits_prompts)
            budget -= len(part) if is_prompt else 0
            work.append(NewTokens(sequence, part, not answer.pending))
            by_sequence[id(sequence)] = answer
        try:
            complete, logits = decoder.step(work)
        except Exception as error:  # whatever it is, other requests go on
            self._fail_all(list(by_sequence.values()), error)
            return
        self.totals["steps"] += 1
        self._take_tokens([by_sequence[id(one.sequence)] for one in complete], logits)

    def _take_tokens(self, answers: Sequence[RunningAnswer], logits: torch.Tensor) -> None:
        for answer, best, row in zip(answers, logits.argmax(-1).tolist(), logits, strict=True):
            try:
                token = answer.choose_token(row, best)
                reason = answer.take_token(token, row)
            except Exception as error:  # whatever it is, other requests go on
                self._fail_all([answer], error)
                continue
            self.totals["generatedTokens"] += 1
            if reason is not None:
                self._leave(answer)
                self._finish(answer, reason)

    def _finish(self, answer: RunningAnswer, reason: str) -> None:
        try:
            answer.finish(reason)
        except Exception as error:  # whatever the model wrote, other requests go on
            answer.fail(_failure(error))

    def _fail_all(self, answers: Sequence[RunningAnswer], error: Exception) -> None:
        for answer in answers:
            self._leave(answer)
            answer.fail(_failure(error))

    def _leave(self, answer: RunningAnswer) -> None:
        self.running.remove(answer)
        assert answer.sequence is not None
        answer.model.decoder.remove(answer.sequence)


def _failure(error: Exception) -> TrainerError:
    if isinstance(error, TrainerError):
        return error
    return ModelFailed(
        f"The model failed: {error}", fix="if memory ran out, send fewer requests at a time."
    )
