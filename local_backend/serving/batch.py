"""The requests that wait and those that are answered in one batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import torch

from local_backend.errors import ModelFailed, SchemaError, TrainerError
from local_backend.inference.answer_preview import INCOMPLETE
from local_backend.serving.answer_text import AnswerText
from local_backend.serving.choose import (
    RowSampling,
    ScoredToken,
    draw_token,
    mask_logits,
    score_token,
)
from local_backend.serving.constraint import JsonConstraint
from local_backend.serving.kept_prefixes import common_prefix
from local_backend.serving.models import ServedModel
from local_backend.serving.prompt_scores import PromptScores
from local_backend.serving.requests import Submission, Values, error_reply, preparation_error
from local_backend.serving.sequences import Decoded, Decoder, NewTokens

Reply = Callable[[Values], None]
"""Takes a reply to a request, without its id."""
PROMPT_TOKENS = 256
"""Tokens of prompts that go through the model in one step, beside the answers under way."""
COMPILE_S = 60.0
"""Seconds that a request waits for its schema at most."""
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
        self.limit = min(request.get("maxNewTokens", 256), room)
        self.sampling = RowSampling(
            request.get("temperature", 0.0),
            request.get("topP", 1.0),
            request.get("topK", 0),
            request.get("seed", 0),
        )
        self.top = request.get("logprobs")
        self.prompt_scores: PromptScores | None = None
        if request.get("scorePrompt"):
            self.prompt_scores = PromptScores(self.prompt_ids, self.top or 0)
        self.text = AnswerText(model.loaded, prompt, request.get("stop", ()))
        self.constraint: JsonConstraint | None = None
        schema = request.get("jsonSchema")
        self.schema = None if schema is None else model.schemas.start(schema)
        """The constraint to come, while the schema is compiled."""
        self.sequence: Decoded | None = None
        self.pending = list(self.prompt_ids)
        """Tokens that have not gone through the model yet."""
        self.is_canceled = False
        self.shared_tokens = 0
        self.first_token_s = 0.0
        self._received = received
        self._scored: list[ScoredToken] = []

    def compile_schema(self) -> bool:
        """Return whether the answer can start. Raise TrainerError where its schema isn't kept."""
        if self.schema is None:
            return True
        if self.schema.is_done:
            schema, self.schema = self.schema, None
            self.constraint = schema.take()
            return True
        if time.monotonic() < self._received + COMPILE_S:
            return False
        late = f"has not been compiled within {COMPILE_S:.0f} seconds"
        if self.schema.has_begun:
            raise SchemaError(
                f"The JSON schema can't be kept: it {late}.",
                fix="simplify the schema: fewer properties and alternatives.",
            )
        raise ModelFailed(
            f"The JSON schema {late}, because others were compiled.", fix="send it again later."
        )

    def leave_schema(self) -> None:
        """Let the schema go that is compiled for this answer."""
        if self.schema is not None:
            self.schema.cancel()
            self.schema = None

    def start(self) -> None:
        """Begin with what is known of the prompt already."""
        reuse = self.prompt_scores is None
        self.sequence = self.model.decoder.add(self.model.adapter, self.prompt_ids, reuse=reuse)
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

    def report_prompt(self) -> None:
        """Report the scores of the prompt's tokens, which is done once."""
        if self.prompt_scores is None:
            return
        scores, self.prompt_scores = self.prompt_scores, None
        texts = self.model.token_bytes
        data = b"".join(texts(token) for token in self.prompt_ids)
        first = self._text(self.prompt_ids[0])
        scored = [self._describe(one) for one in scores.tokens]
        prompt = {"text": data.decode("utf-8", "replace"), "first": first, "tokens": scored}
        self.reply({"delta": "", "reasoning": "", "tokens": 0, "logprobs": [], "prompt": prompt})

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
        data = list(self.model.token_bytes(token))
        return {"token": token, "text": self._text(token), "bytes": data, "logprob": logprob}

    def _text(self, token: int) -> str:
        text = self.model.token_bytes(token).decode("utf-8", "replace")
        if INCOMPLETE in text:
            text = str(self.model.loaded.tokenizer.decode([token]))
        return text


class Batch:
    """Answers in the making, at most `rows` at once, and requests that wait for a place."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        rows: int,
        on_prepared: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_prepared` is called, in any thread, when a step may have more to do."""
        self._on_prepared = on_prepared
        self.models = {model.reply["name"]: model for model in models}
        self.rows = rows
        self.preparing: list[RunningAnswer] = []
        """Answers whose schema is compiled."""
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
        if answer.schema is None:
            self.waiting.append(answer)
        else:
            self.preparing.append(answer)
            answer.schema.call_when_done(self._on_prepared)
        return answer

    @property
    def is_idle(self) -> bool:
        """Return whether a step would do nothing: at most, schemas are compiled."""
        return not self.running and not self.waiting

    @property
    def is_empty(self) -> bool:
        """Return whether no request is open."""
        return self.is_idle and not self.preparing

    def stats(self) -> Values:
        """Return what is done now, and has been done."""
        return {
            "running": len(self.running),
            "waiting": len(self.preparing) + len(self.waiting),
            **self.totals,
            "cachedTokens": sum(decoder.cached_tokens for decoder in self._decoders),
        }

    def step(self) -> None:
        """Compute the next token of every answer under way, and parts of prompts that wait."""
        self._drop_canceled()
        self._admit_prepared()
        self._admit()
        for decoder in self._decoders:
            answers = [answer for answer in self.running if answer.model.decoder is decoder]
            if answers:
                self._step_decoder(decoder, answers)

    def _admit_prepared(self) -> None:
        """Let the answers wait for a place whose schema is compiled, and end those where it fails.

        Also those that were canceled end here.
        """
        preparing, self.preparing = self.preparing, []
        for answer in preparing:
            try:
                if answer.is_canceled:
                    answer.leave_schema()
                    answer.finish(CANCELED)
                elif answer.compile_schema():
                    self.waiting.append(answer)
                else:
                    self.preparing.append(answer)
            except Exception as error:  # whatever it is, other requests go on
                answer.leave_schema()
                answer.fail(preparation_error(error))

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
        if not model.decoder.splits_prompts or answer.prompt_scores is not None:
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
            scores = answer.prompt_scores
            on_logits = None if scores is None else scores.take
            work.append(NewTokens(sequence, part, not answer.pending, on_logits))
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
                answer.report_prompt()
                reason: str | None = LENGTH
                if answer.limit:
                    reason = answer.take_token(answer.choose_token(row, best), row)
            except Exception as error:  # whatever it is, other requests go on
                self._fail_all([answer], error)
                continue
            self.totals["generatedTokens"] += bool(answer.limit)
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
