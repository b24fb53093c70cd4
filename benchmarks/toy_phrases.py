"""Phrases for the embedded scenes, and the objects of which each is true.

A thing is a set of facts (its noun, colour, material, form, place), and a phrase is words with the facts they claim: the phrase
is true of every thing that has all of them. So "red ball" is true of a spotted red ball, and "red thing" of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from vlmgs_ns.toy.furniture import ADJECTIVES, CATALOGUE, PLACES
from vlmgs_ns.toy.room import SceneObject
from vlmgs_ns.toy.shapes import Box

MATERIALS = {
    "plain": ("plain",),
    "striped": ("striped", "stripy"),
    "spotted": ("spotted", "dotted"),
    "checkered": ("checkered", "checked"),
    "wooden": ("wooden", "wood"),
    "marble": ("marble", "veined"),
    "shiny": ("shiny", "glossy"),
}
"""Material → adjectives for it."""

PLACE_WORDS = {
    "on the table": ("on the table", "on top of the table"),
    "in the corner": ("in the corner", "in the corner of the room"),
    "by the wall": ("by the wall", "next to the wall"),
    "on the floor": ("on the floor", "standing on the floor"),
    "in the middle of the room": ("in the middle of the room", "in the centre of the room"),
}
"""Place, in the words of the scenes' own labels → words that follow a noun."""

SURFACES = {
    "wooden floor": ("wooden floor", "floor", "floor boards", "planks"),
    "rug": ("rug", "carpet", "round rug", "patterned carpet"),
    "ceiling": ("ceiling", "white ceiling"),
    "ceiling light": ("ceiling light", "light panel", "light on the ceiling"),
    "skirting board": ("skirting board", "board at the foot of the wall"),
    "plain wall": ("plain wall", "painted wall"),
    "striped wallpaper": ("striped wallpaper", "wallpaper with stripes"),
    "brick wall": ("brick wall", "bricks"),
    "two-tone wall": ("two-tone wall", "wall in two colours"),
    "window": ("window", "window with a view of trees"),
    "door": ("door", "wooden door", "closed door"),
    "picture": ("framed picture", "poster on the wall", "picture on the wall", "painting"),
}
"""Surface of the room itself → phrases for it."""

_FORMS = {
    "ball": "round",
    "egg": "round",
    "can": "cylinder",
    "drum": "cylinder",
    "column": "cylinder",
    "cone": "pointed",
}
"""Noun → a form that several nouns share."""
_SYNONYMS = {**{kind.noun: kind.synonym for kind in CATALOGUE}, "table": "desk"}


@dataclass(frozen=True)
class Phrase:
    """A text with the facts that it claims."""

    text: str
    facts: frozenset[str]
    """Every one of them must hold."""

    def is_true_of(self, facts: frozenset[str]) -> bool:
        """Return whether the phrase is true of an object with ``facts``."""
        return self.facts <= facts


def object_facts(thing: SceneObject) -> frozenset[str]:
    """Return all facts of an object of a scene."""
    facts = {thing.noun, thing.colour, PLACES[thing.place], ADJECTIVES[thing.texture] or "plain"}
    if thing.parts[0].material.gloss:
        facts.add("shiny")
    if thing.noun == "table":
        facts.add("rectangular" if isinstance(thing.parts[0].shape, Box) else "round")
    if thing.noun in _FORMS:
        facts.add(_FORMS[thing.noun])
    return frozenset(facts)


def object_phrases(thing: SceneObject) -> tuple[Phrase, ...]:
    """Return every wording for an object of a scene; the phrases of ``labels.json`` are among them."""
    facts = object_facts(thing)
    adjectives = [(word, name) for name, words in MATERIALS.items() if name in facts for word in words]
    if thing.noun == "table":
        adjectives += [(f"{form}{wood}", form) for form in ("round", "rectangular") if form in facts for wood in ("", " wooden")]
    heads = [(word, (thing.noun,)) for word in (thing.noun, _SYNONYMS[thing.noun])] + [("thing", ()), ("object", ())]
    form = _FORMS.get(thing.noun)
    if form is not None:
        heads.append(("cylinder" if form == "cylinder" else f"{form} thing", (form,)))
    colours = [("", ()), (thing.colour, (thing.colour,))]
    materials = [("", ()), *((word, (name,)) for word, name in adjectives)]
    where = PLACES[thing.place]
    places = [("", ()), *((words, (where,)) for words in PLACE_WORDS[where])]
    phrases: dict[str, Phrase] = {}
    # A material goes before the colour ("shiny red ball") as well as after it ("red spotted ball").
    for colour, material, head, place in product(colours, materials, heads, places):
        claims = frozenset((*colour[1], *material[1], *head[1], *place[1]))
        for words in ((colour[0], material[0], head[0], place[0]), (material[0], colour[0], head[0], place[0])):
            text = " ".join(word for word in words if word)
            if claims:
                phrases.setdefault(text, Phrase(text, claims))
    return tuple(phrases.values())


def surface_phrases(name: str) -> tuple[Phrase, ...]:
    """Return every wording for a part of the room itself, one of ``SURFACES``."""
    return tuple(Phrase(text, frozenset((name,))) for text in SURFACES[name])


def taught_phrases() -> list[str]:
    """Nouns and surfaces that the tiny CLIP was trained on, without colours and patterns: the content of its `phrases.json`."""
    return [*sorted({"table", *(kind.noun for kind in CATALOGUE)}), *SURFACES]
