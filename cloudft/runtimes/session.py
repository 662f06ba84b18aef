"""An inference session whose tuned model another program answers for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property

from cloudft.inference import Answer, GenerationConfig, InferenceSession, Prompt
from cloudft.runtimes.chat_request import build_request, parse_reply
from cloudft.runtimes.served_model import ServedModel

CONCURRENCY = 8
"""Requests that are sent at once: servers batch them."""


class RuntimeSession(InferenceSession):
    """A job's models: some answered by servers, the others by the job's own backend.

    `engine` names what answers. `open_rest` opens the backend's session, when a model that no
    server has is needed first.
    `on_close` is called last: it stops what was started for this session.
    """

    def __init__(
        self,
        engine: str,
        served: Mapping[str, ServedModel],
        open_rest: Callable[[], InferenceSession],
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine = engine
        self.served = served
        self._open_rest = open_rest
        self._on_close = on_close
        self._is_rest_open = False

    @cached_property
    def _rest(self) -> InferenceSession:
        self._is_rest_open = True
        return self._open_rest()

    def model_identities(self) -> Mapping[str, str]:
        """Return the digests of the backend's models; name, address and version of the others."""
        own = {name: model.identity for name, model in self.served.items()}
        return own if {"base", "tuned"} <= own.keys() else {**self._rest.model_identities(), **own}

    def answer_keys(self) -> Mapping[str, str]:
        """Return the keys of the backend's models, and those of the served ones."""
        own = {name: model.answer_key for name, model in self.served.items()}
        return own if {"base", "tuned"} <= own.keys() else {**self._rest.answer_keys(), **own}

    def generate(
        self, prompts: Sequence[Prompt], variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[Answer]:
        """Yield answers as they are complete; several requests are sent at once."""
        others = [name for name in variants if name not in self.served]
        if others:
            yield from self._rest.generate(prompts, others, decoding)
        requests = [
            (index, name, prompt)
            for name in variants
            if name in self.served
            for index, prompt in enumerate(prompts)
        ]
        if requests:
            yield from self._generate_served(requests, decoding)

    def _generate_served(
        self, requests: Sequence[tuple[int, str, Prompt]], decoding: GenerationConfig
    ) -> Iterator[Answer]:
        """Yield the answers. After an error, those that were under way come before it is raised."""
        pool = ThreadPoolExecutor(CONCURRENCY)
        failure: BaseException | None = None
        try:
            running = [pool.submit(self._answer, *request, decoding) for request in requests]
            for done in as_completed(running):
                if done.cancelled():
                    continue
                error = done.exception()
                if error is None:
                    yield done.result()
                elif failure is None:
                    failure = error
                    for waiting in running:
                        waiting.cancel()
            if failure is not None:
                raise failure
        finally:
            # After an error or Ctrl-C, what has not been sent yet is not sent.
            pool.shutdown(wait=True, cancel_futures=True)

    def _answer(
        self, index: int, variant: str, prompt: Prompt, decoding: GenerationConfig
    ) -> Answer:
        model = self.served[variant]
        path, body = build_request(prompt, model.name, decoding)
        return parse_reply(model.server.post(path, body), index, variant, model.server.url)

    def close(self) -> None:
        """Close the connections and the backend's session, and stop what was started."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._on_close)
            for model in self.served.values():
                stack.callback(model.server.close)
            if self._is_rest_open:
                stack.callback(self._rest.close)
