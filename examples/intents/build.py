"""Build the intent classification data from the PyPI package `home-assistant-intents`.

Contract: writes `train.jsonl` and `test.jsonl` (OpenAI chat records: system, user, assistant),
balanced over `INTENTS`. The two files share no sentence template: a held-out utterance is
written by a held-out template, and hassil recognizes it with no training template. Running the
script twice gives the same bytes.

Source: `home_assistant_intents/data/en.json` (Apache-2.0, The Home Assistant Authors), whose
templates `hassil` parses; a seeded random walk over the parsed template picks the words.

    pip install home-assistant-intents==2026.10.27 hassil==3.12.1
    python examples/intents/build.py
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from hassil.expression import (
    Alternative,
    Expression,
    Group,
    ListReference,
    Permutation,
    RuleReference,
    Sentence,
    TextChunk,
)
from hassil.intents import Intents, SlotList, TextSlotList
from hassil.parse_expression import parse_sentence
from hassil.recognize import is_match
from hassil.util import normalize_whitespace

PACKAGE, VERSION = "home-assistant-intents", "2026.10.27"
SEED = 7
TRAIN_PER_INTENT, TEST_PER_INTENT = 40, 15
TEST_SHARE = 0.3  # of an intent's templates
DRAWS = 150  # random walks a template gets

INTENTS = (
    "HassTurnOn",
    "HassTurnOff",
    "HassLightSet",
    "HassGetState",
    "HassSetVolume",
    "HassFanSetSpeed",
    "HassClimateSetTemperature",
    "HassMediaSearchAndPlay",
    "HassMediaNext",
    "HassStartTimer",
    "HassTimerStatus",
    "HassCancelTimer",
)
SYSTEM = "Name the intent of the user's request to a smart home. Answer with one of: " + ", ".join(
    INTENTS
)

# Left out: opening, locking and the like are filed under "on" and "off" by a convention of Home
# Assistant that no reader would guess; scripts, persons, zones and some scenes are bare names; a
# delayed command ("turn off the lamp in 5 minutes") reads like the command itself.
NOT_SWITCHED = {"cover", "valve", "lock", "script"}
LEFT_OUT_DOMAINS = {
    "HassTurnOn": NOT_SWITCHED,
    "HassTurnOff": NOT_SWITCHED,
    "HassGetState": {"person"},
}
LEFT_OUT_TEXT = re.compile(
    r"\{timer_command|\{zone|<how_is>|to scene|^<(open|close)>|^\[<the>\] \{name\}$"
)
LEFT_OUT_SCENES = re.compile(r"^\[<the>\] .*\{name\}.* on$")

# A template accepts far more than people say ("bring out lamp across kitchen"). Each rule and
# each rewriting below keeps a natural part of what the template accepts.
RULES = {
    "all": "all [the]",
    "everywhere": "(everywhere|in the [whole] house)",
    "here": "in (here|this room)",
    "home": "house",
    "in": "in",
    "is": "(is|are)",
    "light": "(light|lights)",
    "lockable": "(door|window|gate)s",
    "numeric_value_set": "(set|change)",
    "set": "(set|change|turn)",
    "temp": "(temp|temperature)",
    "the": "(the|the|my)",
    "turn": "(turn|switch)",
    "what_is": "(what's|what is|tell me)",
}
REWRITINGS = (  # in this order
    ("<is> [<the>] {name}", "is <the> {name}"),
    ("<are_any> ", "are (any|any of the) "),
    ("<are_all> ", "are all [(the|of the)] "),
    ("<which> ", "which [of the] "),
    ("<how_many> ", "how many [of the] "),
    ("(do you know|tell me|<what_is>) [the [current] (state|value) of]", "<what_is> the state of"),
    ("[<in>]", "<in>"),
    ("[in]", "in"),
    ("[on]", "on"),
    ("[on|for]", "on"),
    ("(in|on)", "in"),
    ("(of|on)", "on"),
    ("[to] on", "on"),
    ("[to] off", "off"),
    ("[to] [the]", "to the"),
    ("to [the]", "to the"),
    ("[to]", "to"),
    ("[<numeric_value_set>]", "<numeric_value_set>"),
    ("[<set>]", "<set>"),
    ("[<turn>]", "<turn>"),
    ("[activate]", "activate"),
    ("[scene]", "scene"),
    ("scene [<the>]", "scene"),
    ("[button]", "button"),
    ("[volume]", "volume"),
    ("[<all>] [<the>]", "(<all>|<the>)"),
    ("[(<all>|<the>)]", "(<all>|<the>)"),
    ("[<the>] <light>", "<the> <light>"),
    ("{area} [<the>] {name}", "{area} {name}"),
    ("[<the>] {name}", "<the> {name}"),
    ("<in> [<the>]", "<in> <the>"),
    ("in [<the>]", "in <the>"),
    ("[<the>] {area}", "<the> {area}"),
    ("<set> fan[s]", "<set> fans"),
    ("and [a] {timer_half", "and a {timer_half"),
    ("[of [the]]", "of the"),
    ("[of]", "of"),
    ("of fan[s]", "of fans"),
    ("[the] ", "the "),
    ("[the|my]", "(the|my)"),
    ("<light> {floor}", "<light> {level}"),
    ("in <the> {floor} [floor]", "on the {floor}"),
    ("<in> <the> {floor} [floor]", "on the {floor}"),
    ("<in> <the> {floor}", "on the {floor}"),
    ("on [<the>] {floor} [floor]", "on the {floor}"),
    ("[<the>] {floor} [floor]", "the {floor}"),
    ("{floor} [floor]", "{floor}"),
    ("[([ ]%)| percent]", "(%| percent)"),
    ("[%| percent]", "(%| percent)"),
    ("[([ ]°)|( degree[s])]", "[ degrees]"),
    ("[[ ](k|kelvin)]", "( k| kelvin)"),
    ("[and] ", "and "),
    ("[how much] time [is]", "how much time is"),
    ("how long [is]", "how long is"),
    ("[a|an|the|my]", "a"),
)
ONE = "(?:light|fan|switch|door|window|gate|shutter|blind|shade|curtain|awning)"
MANY = "(?:lights|fans|switches|doors|windows|gates|shutters|blinds|shades|curtains|awnings)"
UNNATURAL = re.compile(
    "|".join(
        (
            r"\b1[ -](hours|minutes|seconds)\b",  # number and noun disagree
            (
                r"\b(?!1[ -])\d+[ -](hour|minute|second)\b"
                r"(?!( and \d+[ -](hour|minute|second))* timer)"
            ),
            r"-(hours|minutes|seconds)|\d (hours|minutes|seconds)\b.* timer",
            r"half an? (hours|minutes)|and a half (hour|minute)\b|\ba (8|11|18|80)\b",
            r"\bhour.*\bsecond|\d-\w+\b(?! timer)",
            rf"\b(all|are|every|any|how many)\b.*\b{ONE}\b|\bevery {MANY}\b",
            rf"\bis\b.*\b{MANY}\b|\b{MANY}( \w+)? is\b|^how many.* is\b",
            rf"\bof the\b.*\b{ONE}\b (is|are)\b|^which\b.*\b({ONE} are|{MANY} is)\b",
            r"\b(the|my|a|of) the\b|\b(the|my|a) my\b|\ball my\b",  # two articles
            r"^(all|in|on) |^(light|fan)s? |\bon on\b|\bfans speed\b|\bswitch (.* )?out\b",
            r"\blight\b.*\b(house|everywhere)\b",
            r"\bturn (the |my )?(speed|colou?r|brightness)\b|\bturn the fan on this room\b",
        )
    )
)

AREAS = (
    "kitchen",
    "bedroom",
    "living room",
    "bathroom",
    "office",
    "garage",
    "hallway",
    "dining room",
    "nursery",
    "basement",
    "guest room",
    "laundry room",
)
FLOORS = ("ground floor", "first floor", "second floor", "top floor")
LEVELS = ("upstairs", "downstairs")
LAMPS = ("floor lamp", "bedside lamp", "desk lamp", "night light", "fairy lights", "reading lamp")
APPLIANCES = (
    "coffee maker",
    "space heater",
    "ceiling fan",
    "TV",
    "radio",
    "humidifier",
    "air purifier",
    "floor lamp",
    "kettle",
    "dehumidifier",
)
PLAYERS = ("TV", "stereo", "soundbar", "record player", "smart speaker", "radio")
NAMES = {  # by the domain that a template asks for, the first that fits
    "scene": ("movie night", "bedtime", "dinner party", "relax", "reading", "good morning"),
    "button": ("boost", "reset", "snooze", "doorbell", "panic", "refill"),
    "lock": ("balcony door", "patio door", "side door", "closet door", "cabinet"),
    "cover": ("roller blind", "skylight", "patio door", "awning", "blackout blind"),
    "switch": APPLIANCES,
    "light": LAMPS,
    "fan": ("ceiling fan", "desk fan", "tower fan", "extractor fan", "window fan", "box fan"),
    "climate": ("thermostat", "air conditioner", "heat pump", "heater", "radiator", "boiler"),
    "media_player": PLAYERS,
}
SENSOR_NAMES = ("washing machine", "dishwasher", "air purifier", "garage door", "sprinkler", "oven")
OPENING_NAMES = ("fridge door", "mailbox", "attic hatch", "cellar door", "pet door")
MOTION_NAMES = ("motion sensor", "smoke alarm", "leak sensor", "driveway sensor", "doorbell")
LIGHT_KINDS = ("reading", "ceiling", "bedside", "desk", "closet", "vanity", "wall", "corner")
TITLES = (
    "summer nights",
    "golden hour",
    "northern lights",
    "midnight train",
    "ocean drive",
    "the long road",
    "paper planes",
    "silver river",
    "city of rain",
    "wild honey",
)
MUSIC = ("some jazz", "classical music", "the news", "soft piano", "rain sounds", "dance hits")
SLOTS: dict[str, tuple[str, ...]] = {
    "area": AREAS,
    "floor": FLOORS,
    "level": LEVELS,
    "brightness": ("10", "25", "30", "40", "50", "60", "75", "80", "100"),
    "volume": ("5", "10", "15", "20", "30", "40", "50", "65", "80"),
    "fan_speed": ("10", "20", "25", "40", "50", "60", "75", "90", "100"),
    "temperature": ("18", "19", "20", "21", "22", "23", "24", "66", "68", "70", "72"),
    "color_temperature": ("2700", "3000", "4000", "5000", "6500"),
    "timer_seconds": ("10", "15", "20", "30", "40", "45", "50", "90"),
    "timer_minutes": ("1", "2", "3", "5", "8", "10", "12", "15", "20", "25", "45"),
    "timer_hours": ("1", "2", "3", "4", "6", "8"),
    "timer_name": ("pizza", "pasta", "laundry", "tea", "cookies", "workout", "homework", "rice"),
    "timer_half": ("half",),
    "bs_occupancy_states": ("triggered", "on"),
    "media_class": ("album", "song", "track", "playlist", "podcast", "movie", "show"),
    "cover_states": ("open", "closed", "shut"),
    "lock_states": ("locked", "unlocked"),
}


@dataclass(frozen=True)
class Template:
    """One sentence template of an intent: its published text and the domains that it serves."""

    intent: str
    text: str
    domains: frozenset[str]


def load_package() -> dict[str, Any]:
    """Return the package's English intents; refuse another version than the pinned one."""
    found = metadata.version(PACKAGE)
    if found != VERSION:
        raise SystemExit(f"{PACKAGE} {found} is installed, this data comes from {VERSION}")
    path = resources.files("home_assistant_intents") / "data" / "en.json"
    return json.loads(path.read_text(encoding="utf-8"))


def block_domains(block: dict[str, Any]) -> frozenset[str]:
    """Return the domains that a block of templates serves (empty: any)."""
    domain = block.get("requires_context", {}).get("domain", [])
    return frozenset([domain] if isinstance(domain, str) else domain)


def is_left_out(intent: str, text: str, domains: frozenset[str]) -> bool:
    """Return whether a template is one of those that the constants above leave out."""
    if domains & LEFT_OUT_DOMAINS.get(intent, set()) or LEFT_OUT_TEXT.search(text):
        return True
    return "scene" in domains and LEFT_OUT_SCENES.search(text) is not None


def load_templates(package: dict[str, Any]) -> list[Template]:
    """Return the usable templates; one text in several blocks of an intent is one template."""
    found: dict[tuple[str, str], Template] = {}
    for intent in INTENTS:
        for block in package["intents"][intent]["data"]:
            domains = block_domains(block)
            for text in block["sentences"]:
                if not is_left_out(intent, text, domains):
                    found.setdefault((intent, text), Template(intent, text, domains))
    return list(found.values())


def natural(text: str) -> str:
    """Return the template narrowed to what people say."""
    for old, new in REWRITINGS:
        text = text.replace(old, new)
    return text


def names_for(template: Template) -> tuple[str, ...]:
    """Return the device names that suit a template."""
    if "{name} <light>" in template.text:
        return LIGHT_KINDS
    if "sensor" in template.domains:
        return SENSOR_NAMES
    if "binary_sensor" in template.domains:
        return OPENING_NAMES if "bs_open" in template.text else MOTION_NAMES
    return next((NAMES[d] for d in NAMES if d in template.domains), APPLIANCES)


def slots_for(template: Template) -> dict[str, tuple[str, ...]]:
    """Return every slot's words for a template."""
    queries = TITLES if "{media_class}" in template.text else TITLES + MUSIC
    return {**SLOTS, "name": names_for(template), "search_query": queries}


class Walker:
    """Writes random sentences of templates, from one seeded generator."""

    def __init__(self, rules: dict[str, Sentence], lists: dict[str, SlotList], seed: int) -> None:
        self.rules, self.lists, self.rng = rules, lists, random.Random(seed)

    def write(self, template: Template) -> str:
        """Return one random sentence of the template."""
        slots = slots_for(template)
        text = self._walk(parse_sentence(natural(template.text)).expression, slots)
        return normalize_whitespace(text).strip()

    def _walk(self, node: Expression, slots: dict[str, tuple[str, ...]]) -> str:
        if isinstance(node, TextChunk):
            return node.original_text
        if isinstance(node, RuleReference):
            return self._walk(self.rules[node.rule_name].expression, slots)
        if isinstance(node, ListReference):
            return self._slot(node.list_name, slots)
        if isinstance(node, Alternative):
            return self._walk(self.rng.choice(node.items), slots)
        if isinstance(node, Group):
            items = list(node.items)
            if isinstance(node, Permutation):
                self.rng.shuffle(items)
            return "".join(self._walk(item, slots) for item in items)
        raise TypeError(f"unknown expression: {node!r}")

    def _slot(self, name: str, slots: dict[str, tuple[str, ...]]) -> str:
        if name in slots:
            return self.rng.choice(slots[name])
        values = self.lists[name]
        if not isinstance(values, TextSlotList):
            raise TypeError(f"no words for the slot {name}")
        return self._walk(self.rng.choice(values.values).text_in, slots)


class Recognizer:
    """Says which published templates accept an utterance; open slots take our words alone."""

    def __init__(self, intents: Intents) -> None:
        self.rules = intents.expansion_rules
        names = {n for group in NAMES.values() for n in group}
        names |= {*SENSOR_NAMES, *OPENING_NAMES, *MOTION_NAMES, *LIGHT_KINDS}
        words = {
            "name": sorted(names),
            "area": AREAS,
            "floor": (*FLOORS, *LEVELS, "ground", "first", "second", "top"),
            "search_query": (*TITLES, *MUSIC),
            "timer_name": SLOTS["timer_name"],
        }
        ours = {k: TextSlotList.from_strings(v, name=k) for k, v in words.items()}
        self.lists: dict[str, SlotList] = {**intents.slot_lists, **ours}
        self.parsed: dict[str, Sentence] = {}

    def accepts(self, template: Template, utterance: str) -> bool:
        """Return whether the published template (not the narrowed one) accepts the utterance."""
        sentence = self.parsed.setdefault(template.text, parse_sentence(template.text))
        match = is_match(utterance, sentence, self.lists, self.rules, language="en")
        return match is not None

    def any_accepts(self, templates: list[Template], utterance: str) -> bool:
        """Return whether one of the templates accepts the utterance."""
        return any(self.accepts(t, utterance) for t in templates)


def split_templates(
    templates: list[Template], rng: random.Random
) -> tuple[list[Template], list[Template]]:
    """Return (train, test) templates of one intent, `TEST_SHARE` of them for the test."""
    shuffled = rng.sample(templates, len(templates))
    held_out = max(2, round(TEST_SHARE * len(shuffled)))
    return shuffled[held_out:], shuffled[:held_out]


def utterances(walker: Walker, templates: list[Template]) -> Iterator[tuple[str, Template]]:
    """Yield distinct natural utterances, one of each template in turn, until none is new."""
    pools = [(t, candidates(walker, t)) for t in templates]
    seen: set[str] = set()
    while any(pool for _, pool in pools):
        for template, pool in pools:
            while pool and pool[-1] in seen:
                pool.pop()
            if pool:
                seen.add(pool[-1])
                yield pool.pop(), template


def candidates(walker: Walker, template: Template) -> list[str]:
    """Return the template's natural utterances in a random order."""
    drawn = dict.fromkeys(walker.write(template) for _ in range(DRAWS))
    return [u for u in drawn if not UNNATURAL.search(u) and len(u.split()) > 1]


def pick(
    walker: Walker,
    recognizer: Recognizer,
    sources: list[Template],
    forbidden: list[Template],
    count: int,
) -> list[str]:
    """Return `count` utterances of `sources` that no `forbidden` template accepts."""
    chosen: list[str] = []
    for utterance, template in utterances(walker, sources):
        if not recognizer.accepts(template, utterance):
            continue
        if recognizer.any_accepts(forbidden, utterance):
            continue
        chosen.append(utterance)
        if len(chosen) == count:
            return chosen
    raise SystemExit(f"only {len(chosen)} of {count} utterances for {sources[0].intent}")


def record(utterance: str, intent: str) -> dict[str, Any]:
    """Return the chat record of one utterance."""
    turns = (("system", SYSTEM), ("user", utterance), ("assistant", intent))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def build(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the (train, test) records."""
    package = load_package()
    intents = Intents.from_dict({**package, "intents": {}})
    rules = {**intents.expansion_rules, **{k: parse_sentence(v) for k, v in RULES.items()}}
    walker, recognizer = Walker(rules, intents.slot_lists, seed), Recognizer(intents)
    rng = random.Random(seed)
    templates = load_templates(package)
    sides = {i: split_templates([t for t in templates if t.intent == i], rng) for i in INTENTS}
    train: list[dict[str, Any]] = []
    test: list[dict[str, Any]] = []
    for intent, (train_templates, test_templates) in sides.items():
        others = [t for i, (a, b) in sides.items() if i != intent for t in a + b]
        for out, mine, unseen, count in (
            (train, train_templates, test_templates, TRAIN_PER_INTENT),
            (test, test_templates, train_templates, TEST_PER_INTENT),
        ):
            found = pick(walker, recognizer, mine, unseen + others, count)
            out.extend(record(utterance, intent) for utterance in found)
    return rng.sample(train, len(train)), rng.sample(test, len(test))


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    """Write the records, one JSON object a line, with a line feed after each."""
    lines = (json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    path.write_bytes("".join(lines).encode("utf-8"))


def main() -> None:
    """Build both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    default = Path(__file__).parent / "data"
    parser.add_argument("--out", type=Path, default=default, help="folder (default: data here)")
    parser.add_argument("--seed", type=int, default=SEED, help="default: %(default)s")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, records in zip(("train", "test"), build(args.seed), strict=True):
        write_jsonl(args.out / f"{name}.jsonl", records)
        print(f"{name}.jsonl: {len(records)} records")


if __name__ == "__main__":
    main()
