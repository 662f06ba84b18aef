"""Options of `evaluate` that say what answers for the tuned model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from cloudft.runtimes.engines import EngineChoice

Function = TypeVar("Function", bound=Callable[..., Any])


def engine_options(function: Function) -> Function:
    """Add --engine and what belongs to it. The command gets them as `engine`; None without it."""

    @functools.wraps(function)
    def with_engine(
        *,
        engine: str | None,
        engine_model: str | None,
        engine_base: str | None,
        engine_dir: Path | None,
        **others: Any,
    ) -> Any:
        chosen = None
        if engine is not None:
            chosen = _parse_options(engine, engine_model, engine_base, engine_dir, others)
        elif engine_model or engine_base or engine_dir:
            raise click.UsageError("--engine-model, --engine-base and --engine-dir need --engine")
        return function(engine=chosen, **others)

    for option in (
        click.option(
            "--engine-dir",
            type=click.Path(path_type=Path, exists=True),
            metavar="DIR",
            help="An exported model to start the engine on, instead of exporting the job's.",
        ),
        click.option(
            "--engine-base",
            metavar="NAME",
            help="The base model's name there; default: the job's own backend answers for it.",
        ),
        click.option(
            "--engine-model", metavar="NAME", help="The tuned model's name on the server."
        ),
        click.option(
            "--engine",
            metavar="NAME",
            help="What answers for the tuned model: vllm or llama.cpp, started on the job's"
            " export, or a server: openai:http://HOST:PORT/v1",
        ),
    ):
        option(with_engine)
    return with_engine  # type: ignore[return-value]


def _parse_options(
    engine: str,
    model: str | None,
    base_model: str | None,
    folder: Path | None,
    others: dict[str, Any],
) -> EngineChoice:
    """Return the engine that is chosen. Raise UsageError for options that don't fit."""
    from cloudft.runtimes.engines import parse_engine

    if others.get("answers") or others.get("batches") or others.get("suites"):
        raise click.UsageError("--engine can't be combined with --answers, --batch or --suite")
    return parse_engine(engine, model, base_model, folder)
