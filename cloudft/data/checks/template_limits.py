"""What the chat template of the trained model renders of tools and reasoning.

A template ignores what it does not know, so the trainer would learn records without their tools.
Once a record needs it, the trainer's own functions examine the template
(local_backend/data/template_support.py); texts alone never do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from cloudft.data.checks.violation import LimitViolation
from cloudft.data.formats.chat_writers import has_text_after_call
from cloudft.data.formats.record import Conversation, Reasoning, ToolCall, ToolResult, Turn
from cloudft.errors import CloudftError

TEMPLATE_FEATURES = {
    "tools": "the list of tools",
    "calls": "tool calls",
    "text_with_calls": "a text before a tool call",
    "text_after_calls": "a text after a tool call in the same turn",
    "parallel_calls": "several tool calls in one turn",
    "results": "tool results",
    "reasoning": "reasoning",
    "reasoning_with_calls": "reasoning before a tool call",
    "reasoning_and_text_with_calls": "reasoning and a text before a tool call",
}
"""What a record may need of a template, by the trainer's names, and how messages call it."""
TOOLS_MODEL, THINKING_MODEL = "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen3-0.6B"
"""Small models whose templates have tools, and reasoning too."""
LoadFeatures = Callable[[], Mapping[str, Sequence[str]] | None]
"""Returns the features that a template has, in chats with tools (`withTools`) and without
(`withoutTools`); None if the template is not on this machine."""


def find_template_needs(record: Conversation) -> set[str]:
    """Return what a template must render so that nothing of a record is lost."""
    needs = {"tools"} if record.tools else set()
    for turn in record.all_turns:
        if not all(isinstance(block, str) for block in turn.content):
            needs |= _turn_needs(turn)
    return needs


def _turn_needs(turn: Turn) -> set[str]:
    blocks = turn.content
    calls = sum(isinstance(block, ToolCall) for block in blocks)
    has_thought = any(isinstance(block, Reasoning) for block in blocks)
    needs = {"reasoning"} if has_thought else set()
    if any(isinstance(block, ToolResult) for block in blocks):
        needs.add("results")
    if not calls:
        return needs
    needs.add("calls")
    if calls > 1:
        needs.add("parallel_calls")
    if has_text_after_call(turn):
        needs.add("text_after_calls")
    has_text = any(isinstance(block, str) for block in blocks)
    parts = ["reasoning"] * has_thought + ["text"] * has_text
    return needs | {"_and_".join(parts) + "_with_calls"} if parts else needs


class TemplateLimits:
    """Checks records against the chat template of `model`.

    In another process (parallel_check.py) it has no template, and collects `needs` alone.
    """

    def __init__(self, model: str, load: LoadFeatures) -> None:
        self.needs: set[frozenset[str]] = set()
        self._model = model
        self._load: LoadFeatures | None = load
        self._features: Mapping[str, Sequence[str]] | None = None
        self._reason = ""

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_load": None, "needs": set()}

    def check_record(self, record: Conversation) -> Iterator[LimitViolation]:
        """Yield what the template would leave out of a record."""
        if not record.tools and all(
            isinstance(b, str) for t in record.all_turns for b in t.content
        ):
            return
        needs = frozenset(find_template_needs(record))
        self.needs.add(needs)
        if self._load is None:
            return
        yield from self._check_needs(needs)

    def has_problem(self, needs: Iterable[frozenset[str]]) -> bool:
        """Return whether a record with one of these needs has a violation."""
        return any(True for each in needs for _ in self._check_needs(each))

    def _check_needs(self, needs: frozenset[str]) -> Iterator[LimitViolation]:
        if not needs:
            return
        features = self._load_features()
        if features is None:
            message = (
                f"whether the chat template of {self._model} renders {_names(needs)} is not known"
                f" before the training starts: {self._reason}"
            )
            fix = "download the weights first; a template without them ends the job at its start"
            yield LimitViolation("warning", "TemplateNotHere", message, fix)
            return
        missing = needs - set(features["withTools" if "tools" in needs else "withoutTools"])
        if missing:
            message = f"the chat template of {self._model} leaves out {_names(missing)}"
            fix = (
                "leave these records out, or set base_model (local.model, if that is set) to a"
                f" model whose chat template has it: a Hugging Face id{_example(missing)} or a"
                " folder"
            )
            yield LimitViolation("error", "NotInTemplate", message, fix)

    def _load_features(self) -> Mapping[str, Sequence[str]] | None:
        if self._load is not None and self._features is None and not self._reason:
            try:
                self._features = self._load()
                self._reason = "" if self._features else "it is not on this machine"
            except CloudftError as error:
                self._reason = error.message
        return self._features


def _example(missing: Iterable[str]) -> str:
    """Return a small model that has the features, as the id follows "a Hugging Face id"."""
    if "text_after_calls" in missing:
        return ""  # few templates have an order of text and calls
    thinks = any(feature.startswith("reasoning") for feature in missing)
    return f" such as {THINKING_MODEL if thinks else TOOLS_MODEL}"


def _names(features: Iterable[str]) -> str:
    """Return the names of features; without calls or reasoning, not those of their details too."""
    known = set(features)
    without = (
        {f for f in known if f.endswith("_calls") or f == "results"} if "calls" in known else set()
    )
    if "reasoning" in known:
        without |= {f for f in known if f.startswith("reasoning_")}
    names = [name for key, name in TEMPLATE_FEATURES.items() if key in known - without]
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])
