"""Measure how the code reads: sizes, docstrings, retired words, `Any`, comments.

`python tests/language.py [--list] [FOLDER...]` prints the figures of cloudft and local_backend, or
of the folders that are named. `--list` adds every docstring of a function that does not begin
with a verb, and every retired word, by file and line.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import statistics
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cloudft", "local_backend")
RETIRED = frozenset(
    re.findall(
        r"\w+",
        """told tells tell asked asks stranger strangers thing things mend mends mended mending twin
        twins anew whoever""",
    )
)
"""Words of a private vocabulary that no name and no docstring uses."""
RETIRED_PHRASES = ("gone on with", "goes on with", "comes to", "what stands", "looked at")
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


VERBS = frozenset(
    re.findall(
        r"[\w-]+",
        """abort accept account acknowledge acquire act activate adapt add adjust adopt advance
        align allocate allow analyze answer append apply archive arrange ask assemble assert
        assign assume attach attempt authenticate authorize average await backpropagate
        balance batch begin bind block bound branch break broadcast build cache calculate
        call cancel cap capture cast catch change charge check choose chunk clamp classify
        clean clear clip clone close collapse collate collect combine come compact compare
        compile complete compose compress compute concatenate configure confirm connect
        construct consume contain continue convert coordinate copy correct count cover
        create cross cut deactivate decide declare decode decompress decrease decrypt
        deduplicate define delay delegate delete deliver deny deploy derive describe
        deserialize destroy detach detect determine diagnose dispatch display distribute
        divide do download draw drive drop dump duplicate embed emit emulate enable encode
        encrypt end enforce ensure enter enumerate escape estimate evaluate examine exchange
        exclude execute exit expand expect explain export expose express extend extract fail
        fall feed fetch fill filter find finish fit fix flag flatten flush fold follow
        forget fork format forward free freeze gather generate get give go grade grant group
        guard guess halt handle hash hide hold identify ignore implement import include
        increase increment index infer inherit initialize insert inspect install interpret
        interrupt intersect invalidate invoke isolate issue iterate join judge keep kill
        label launch lay learn leave let lift limit link list listen load locate lock log
        look lower make map mark mask match materialize measure merge migrate mirror mix
        mock monitor mount move multiply name narrow negotiate normalize note notify number
        observe obtain offer omit open optimize order override overwrite own pack pad page
        paginate parse partition pass patch pause perform permit persist pick pin pipe place
        plan play point poll pop populate post predict prefer prefix prepare present
        preserve preview price print probe proceed process produce project promote prompt
        propagate propose prove provide provision prune publish pull push put qualify query
        queue quote raise rank read rebuild recall receive recognize recompute reconnect
        reconstruct record recover redact redirect reduce refer refresh refuse regenerate
        register reject release reload remember remove rename render renew reorder repair
        repeat replace replay reply report represent request require resample rescale
        reserve reset reshape resize resolve respond restart restore restrict resume retain
        retrieve retry return reuse revert review rewrite roll rotate round route run sample
        sanitize satisfy save scale scan schedule score scrub search seed seek select send
        separate serialize serve set shard share shift ship show shrink shuffle shut sign
        signal simulate skip sleep slice sort speak specify spend split spread stage stand
        start state stay step stop store stream strip submit substitute subtract succeed
        suggest sum summarize supply support suppress swap switch synchronize synthesize tag
        take talk terminate test throttle throw time toggle tokenize touch trace track train
        transfer transform translate traverse treat trim truncate try tune turn undeploy
        undo unfreeze unify uninstall unlink unlock unpack unwrap update upload use validate
        verify view visit wait walk warm warn watch weigh widen wire withdraw wrap write
        yield zero zip
        dequantize fine-tune manage supervise""",
    )
)
"""Verbs that a docstring may begin with, in the imperative."""


@dataclass
class Figures:
    """What was counted in some files."""

    lines: int = 0
    files: list[int] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)
    docstrings: int = 0
    verbs: int = 0
    not_verbs: list[str] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)
    comments: int = 0
    any: int = 0
    untyped_mappings: int = 0


def words_of(name: str) -> list[str]:
    """Return the lower-case words of a snake_case or CamelCase name."""
    return [w for w in re.split(r"[^a-z]+", re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()) if w]


def begins_with_verb(docstring: str) -> bool:
    """Return whether the first word is a verb of the list, in the imperative."""
    first = re.match(r"[A-Za-z-]+", docstring.strip())
    return first is not None and first.group().lower() in VERBS


def names_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the spelling of each name that a file defines."""
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def docstrings_in(tree: ast.AST) -> Iterator[tuple[int, ast.AST, str]]:
    """Yield line, node and text of each docstring, those of constants and fields included."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for index, statement in enumerate(body):
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                continue
            text = statement.value.value
            if isinstance(text, str):
                yield statement.lineno, node if index == 0 else statement, text


def retired_in(text: str) -> list[str]:
    """Return the retired words and phrases of a text."""
    lower = " ".join(text.lower().split())
    found = [w for w in re.findall(r"[a-z]+", re.sub(r"`[^`]*`", "", lower)) if w in RETIRED]
    return found + [phrase for phrase in RETIRED_PHRASES if phrase in lower]


def count(text: str, here: str, figures: Figures) -> None:
    """Add the figures of one file's text. `here` names it in what is listed."""
    tree = ast.parse(text)
    lines = text.count("\n")
    figures.lines += lines
    figures.files.append(lines)
    for line, name in names_in(tree):
        for word in sorted(RETIRED & set(words_of(name))):
            figures.retired.append(f"{here}:{line} name {name}: {word}")
    for line, node, docstring in docstrings_in(tree):
        figures.retired += [f"{here}:{line} docstring: {word}" for word in retired_in(docstring)]
        if isinstance(node, FunctionNode):
            figures.docstrings += 1
            if begins_with_verb(docstring):
                figures.verbs += 1
            else:
                figures.not_verbs.append(f"{here}:{line} {docstring.strip().splitlines()[0][:70]}")
    figures.functions += [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, FunctionNode)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    figures.comments += sum(token.type == tokenize.COMMENT for token in tokens)
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    figures.any += names.count("Any")
    figures.untyped_mappings += len(re.findall(r"(?:Mapping|[dD]ict)\[str, (?:Any|object)\]", text))


def of(packages: tuple[str, ...] = PACKAGES) -> Figures:
    """Return the figures of these packages of the repository."""
    figures = Figures()
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            here = path.relative_to(ROOT).as_posix()
            count(path.read_text(encoding="utf-8"), here, figures)
    return figures


def percentile_90(values: list[int]) -> float:
    """Return the 90th percentile."""
    return statistics.quantiles(values, n=10)[-1]


def main() -> None:
    """Print the figures of each package, and with --list what is behind them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print every place that is counted")
    parser.add_argument("packages", nargs="*", default=PACKAGES)
    arguments = parser.parse_args()
    for package in arguments.packages:
        figures = of((package,))
        thousand = figures.lines / 1000
        print(
            f"{package}: {len(figures.files)} files, {figures.lines} lines\n"
            f"  functions: median {statistics.median(figures.functions):.0f}, 90 % within"
            f" {percentile_90(figures.functions):.0f} lines,"
            f" {sum(n > 60 for n in figures.functions)} over 60\n"
            f"  files: median {statistics.median(figures.files):.0f}, 90 % within"
            f" {percentile_90(figures.files):.0f} lines\n"
            f"  docstrings of functions that begin with a verb:"
            f" {figures.verbs} of {figures.docstrings}"
            f" ({100 * figures.verbs / max(1, figures.docstrings):.1f} %)\n"
            f"  retired words: {len(figures.retired)}\n"
            f"  in 1,000 lines: {figures.any / thousand:.1f} Any,"
            f" {figures.untyped_mappings / thousand:.1f} mappings of Any\n"
            f"  comments in 100 lines: {figures.comments / (figures.lines / 100):.1f}"
        )
        if arguments.list:
            print(*figures.not_verbs, *figures.retired, sep="\n")


if __name__ == "__main__":
    main()
