"""The options that say how an answer is decoded: shared by the commands that generate."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from cloudft.cli.param_types import SEED, TOKENS, FiniteRange

Function = TypeVar("Function", bound=Callable[..., Any])


def decoding_options(max_new_tokens: int) -> Callable[[Function], Function]:
    """Add --max-new-tokens (with this default), --temperature, --top-p and --seed.

    The command gets them as `decoding`, a GenerationConfig.
    """
    options = (
        click.option(
            "--max-new-tokens",
            type=TOKENS,
            default=max_new_tokens,
            show_default=True,
            help="Maximum tokens of an answer.",
        ),
        click.option(
            "--temperature",
            type=FiniteRange(0, 2),
            default=0.0,
            show_default=True,
            help="0 always takes the most likely token (greedy).",
        ),
        click.option(
            "--top-p",
            type=FiniteRange(0, 1, min_open=True),
            default=1.0,
            show_default=True,
            help="Sample from the most likely tokens with this total probability.",
        ),
        click.option(
            "--seed",
            type=SEED,
            default=7,
            show_default=True,
            help="Seed of the sampling, for a temperature above 0.",
        ),
    )

    def add_options(function: Function) -> Function:
        @functools.wraps(function)
        def with_decoding(
            *args: Any,
            max_new_tokens: int,
            temperature: float,
            top_p: float,
            seed: int,
            **rest: Any,
        ) -> Any:
            from cloudft.inference import GenerationConfig

            config = GenerationConfig(max_new_tokens, temperature, top_p, seed)
            return function(*args, decoding=config, **rest)

        for option in reversed(options):
            option(with_decoding)
        return with_decoding  # type: ignore[return-value]

    return add_options
