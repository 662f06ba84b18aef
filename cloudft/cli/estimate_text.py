"""Print estimates: a table, and below it what each amount is made of, with source and age."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudft.types import BilledPart, Estimate, UnitPrice

COLUMNS = (
    "BACKEND",
    "TOKENS",
    "EPOCHS",
    "TRAINING",
    "STORAGE PER MONTH",
    "SERVING PER HOUR",
)


def estimates_text(estimates: Sequence[Estimate]) -> str:
    """Return the estimates of a job on several backends."""
    from cloudft.cli.output import format_table

    lines = [format_table(COLUMNS, map(_row, estimates))]
    for one in estimates:
        lines += _part_lines(one)
        lines += _probe_lines(one)
        lines += _unknown_lines(one)
    return "\n".join(lines)


def _row(estimate: Estimate) -> tuple[Any, ...]:
    from cloudft.cli.number_format import format_usd

    usd = estimate.usd
    bound = "at most " if estimate.at_most and usd["training"] is not None else ""
    return (
        estimate.backend,
        f"{'' if estimate.tokens_counted else 'about '}{estimate.train_tokens}",
        estimate.epochs,
        bound + format_usd(usd["training"]),
        format_usd(usd["storagePerMonth"]),
        format_usd(usd["servingPerHour"]),
    )


def _part_lines(estimate: Estimate) -> Iterator[str]:
    """Yield what the training amount is made of, and the sources of the prices."""
    if not estimate.parts and estimate.price_source:
        yield f"{estimate.backend}: {estimate.price_source}"
    sources: list[str] = []
    for part in estimate.parts:
        if part.price is None:
            continue
        yield f"{estimate.backend}: {_part_text(part)}"
        for line in (f"  price: {price_origin(part.price)}", *_not_used(part)):
            if line not in sources:
                sources.append(line)
                yield line
    for note in estimate.notes:
        yield f"  note: {note}"


def _part_text(part: BilledPart) -> str:
    from cloudft.cli.number_format import format_usd

    assert part.price is not None
    per = "1,000 tokens" if part.unit == "token" else part.unit
    amount = f"{part.price.usd:,.12g} USD per {per}"
    if part.quantity is None:
        return f"{part.what}: {amount}"
    unit = f"{part.unit}{'' if part.quantity == 1 else 's'}"
    quantity = f"{part.quantity:,}" if part.unit == "token" else f"{part.quantity:,.6g}"
    return f"{part.what}: {quantity} {unit} x {amount} = {format_usd(part.usd)}"


def price_origin(price: UnitPrice) -> str:
    """Return where a price is from, how sure it is, of which Region, and whether it is old."""
    from cloudft.catalogue.prices import CERTAINTY_TEXTS

    texts: dict[str, str] = {str(key): text for key, text in CERTAINTY_TEXTS.items()}
    facts = [price.region or "", texts.get(price.certainty, "")]
    facts += ["more than a year old"] if price.is_old else []
    return f"{price.source} ({', '.join(filter(None, facts))})"


def _not_used(part: BilledPart) -> Iterator[str]:
    other = part.not_used
    if other is not None:
        yield (
            f"  not used: {other.usd:,.12g} USD, {price_origin(other)}: AWS's Price List of today"
            " has another price, which counts"
        )


def _unknown_lines(estimate: Estimate) -> Iterator[str]:
    from cloudft.catalogue import cost
    from cloudft.jobs import prepare

    if estimate.usd["training"] is not None:
        return
    if estimate.unpriced is not None:
        yield f"{estimate.backend}: {cost.NO_PRICE_KNOWN} for {estimate.unpriced.what}"
        yield f"  fix: {prepare.price_remedy(estimate, 'then estimate again')}"
    elif estimate.unknown is not None:
        unknown = estimate.unknown
        yield f"{estimate.backend}: {unknown.what}"
        yield f"  fix: set {unknown.field}, such as {unknown.example}, then estimate again."


def _probe_lines(estimate: Estimate) -> Iterator[str]:
    """Yield the result of a probe in sentences."""
    from cloudft.cli.number_format import format_duration, format_gibibytes

    memory = estimate.memory
    if memory is not None:
        free = f" of {format_gibibytes(memory.available)} free" if memory.available else ""
        verdict = "fits" if memory.fits else "does not fit"
        yield f"{estimate.backend}: {verdict}: {format_gibibytes(memory.bytes)} of memory{free}"
        if memory.remedy:
            yield f"  fix: {memory.remedy}"
    if estimate.seconds is not None:
        time = format_duration(estimate.seconds)
        yield f"{estimate.backend}: {estimate.steps} steps, {time} in total"
