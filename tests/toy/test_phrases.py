"""Phrases of the toy world against the labels of its scenes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.toy_phrases import PLACE_WORDS, SURFACES, object_facts, object_phrases, surface_phrases, taught_phrases
from vlmgs_ns.toy.furniture import CATALOGUE, PLACES, make_object
from vlmgs_ns.toy.layout import draw_room
from vlmgs_ns.toy.room import Room, SceneObject
from vlmgs_ns.toy.tiny import tiny_clip_folder

SEEDS = range(12)


def room_of(seed: int) -> Room:
    return draw_room(np.random.default_rng([seed, 0]))


def thing(noun: str, colour: str, texture: str, place: str) -> SceneObject:
    kind = next(kind for kind in CATALOGUE if kind.noun == noun)
    return make_object(kind, colour, texture, place, 0.15, 0.0, np.zeros(3))


BALL = thing("ball", "red", "dots", "table")


@pytest.mark.parametrize("seed", SEEDS)
def test_every_label_of_a_scene_has_its_phrase(seed: int) -> None:
    room = room_of(seed)
    for item in room.objects:
        assert set(item.phrases) <= {phrase.text for phrase in object_phrases(item)}, item.name
    assert set(room.decor.phrases) <= {text for texts in SURFACES.values() for text in texts}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_label_is_true_of_its_object_alone(seed: int) -> None:
    objects = room_of(seed).objects
    for item in objects:
        for phrase in object_phrases(item):
            assert phrase.is_true_of(object_facts(item)), phrase
            if phrase.text in item.phrases:
                assert [other.name for other in objects if phrase.is_true_of(object_facts(other))] == [item.name], phrase


def test_the_same_words_always_claim_the_same() -> None:
    claims: dict[str, frozenset[str]] = {}
    for seed in range(40):
        for item in room_of(seed).objects:
            for phrase in object_phrases(item):
                assert claims.setdefault(phrase.text, phrase.facts) == phrase.facts, phrase.text


def test_facts_of_an_object() -> None:
    assert object_facts(BALL) == {"ball", "red", "spotted", "round", "on the table"}
    assert object_facts(thing("ball", "red", "plain", "wall")) == {"ball", "red", "plain", "shiny", "round", "by the wall"}
    assert object_facts(thing("box", "brown", "wood", "corner")) == {"box", "brown", "wooden", "in the corner"}


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("ball", {"ball"}),
        ("red sphere", {"red", "ball"}),
        ("red thing", {"red"}),
        ("round thing", {"round"}),
        ("dotted thing", {"spotted"}),
        ("spotted red ball", {"spotted", "red", "ball"}),
        ("red spotted ball on top of the table", {"spotted", "red", "ball", "on the table"}),
        ("object on the table", {"on the table"}),
    ],
)
def test_what_wordings_claim(text: str, facts: set[str]) -> None:
    assert {phrase.text: phrase.facts for phrase in object_phrases(BALL)}[text] == facts


def test_generic_words_alone_are_no_phrase() -> None:
    assert not {"", "thing", "object"} & {phrase.text for phrase in object_phrases(BALL)}


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        (thing("ball", "red", "plain", "wall"), {"red ball", "red thing", "ball", "round thing"}),
        (thing("egg", "red", "dots", "table"), {"red thing", "round thing", "spotted thing", "red object on the table"}),
        (thing("box", "blue", "plain", "corner"), set()),
    ],
)
def test_phrases_that_hold_of_another_object(other: SceneObject, shared: set[str]) -> None:
    some = {"red ball", "red thing", "ball", "round thing", "spotted thing", "red object on the table"}
    phrases = [phrase for phrase in object_phrases(BALL) if phrase.text in some]
    assert {phrase.text for phrase in phrases if phrase.is_true_of(object_facts(other))} == shared


def test_the_form_of_the_table() -> None:
    tables = [room_of(seed).objects[0] for seed in SEEDS]
    forms = {("rectangular" if "rectangular" in object_facts(table) else "round") for table in tables}
    assert forms == {"round", "rectangular"}
    for table in tables:
        form = "rectangular" if "rectangular table" in table.phrases else "round"
        assert {form, "table", "wooden", "brown"} <= object_facts(table)


def test_words_for_places_cover_the_catalogue() -> None:
    assert set(PLACES.values()) == set(PLACE_WORDS)
    assert all(words[0] == place and len(words) > 1 for place, words in PLACE_WORDS.items())


def test_surfaces_have_phrases_of_their_own() -> None:
    texts = [phrase.text for name in SURFACES for phrase in surface_phrases(name)]
    assert len(texts) == len(set(texts))
    assert all(phrase.is_true_of(frozenset(("door",))) for phrase in surface_phrases("door"))
    assert not any(phrase.is_true_of(frozenset(("window",))) for phrase in surface_phrases("door"))


def test_the_tiny_clip_s_folder_lists_the_phrases_it_was_taught() -> None:
    """Written with `json.dumps(taught_phrases(), indent=1)`."""
    assert json.loads((tiny_clip_folder() / "phrases.json").read_text(encoding="utf-8")) == taught_phrases()
