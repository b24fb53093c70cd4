"""Prompts: they say what the method asks, in the numbers of the model, and ask for what the parser reads."""

from __future__ import annotations

import json
import re
from typing import get_args

import pytest

from vlmgs_ns.guidance.prompts import REPLY_SCHEMA, prompt
from vlmgs_ns.guidance.question import Coordinates, Phase
from vlmgs_ns.guidance.regions import LIMITS
from vlmgs_ns.guidance.reply import parse

PHASES: tuple[Phase, ...] = get_args(Phase)
COORDINATES: tuple[Coordinates, ...] = get_args(Coordinates)
EXAMPLE = '[{"bbox_2d": [x1, y1, x2, y2], "label": "'


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_every_prompt_gives_the_form_of_the_reply(phase: Phase, coordinates: Coordinates) -> None:
    text = prompt(phase, coordinates, 640, 480)
    assert EXAMPLE in text and "Reply [] if there is none" in text and "JSON only" in text
    assert "None" not in text and "{" not in text.replace(EXAMPLE, "") and len(text) < 1000
    assert ("from 0 to 1000" in text) == (coordinates == "thousandths")
    assert ("640 wide and 480 high" in text) == (coordinates == "pixels")


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ("detail", ["beginning to show texture detail", "at most 8 boxes", "1/2 of the picture"]),
        ("background", ["main subject", "ONE box", "at most 1/2 of the picture"]),
        (
            "novel",
            ["inconsistent or under-reconstructed", "floaters", "holes", "blur", "no photo was taken", "at most 8", "1/4 of the"],
        ),
        (
            "compare",
            ["first picture is a render", "second picture is a photo", "differs most", "at most 3 boxes", "1/8 of the picture"],
        ),
    ],
)
def test_prompts_say_what_the_method_asks(phase: Phase, words: list[str]) -> None:
    text = prompt(phase, "thousandths", 640, 480)
    assert not [word for word in words if word not in text]


def test_the_users_words_are_asked_for_as_they_are() -> None:
    text = prompt("ground", "thousandths", 640, 480, "the {odd} cup; its handle")
    assert "the {odd} cup; its handle" in text and "at most 8 boxes" in text


@pytest.mark.parametrize("coordinates", COORDINATES)
def test_phases_are_told_apart(coordinates: Coordinates) -> None:
    assert len({prompt(phase, coordinates, 640, 480) for phase in PHASES}) == len(PHASES)


def test_a_model_that_repeats_the_prompt_names_no_region() -> None:
    for phase in PHASES:
        for coordinates in COORDINATES:
            assert parse(prompt(phase, coordinates, 640, 480), "thousandths", 640, 480).boxes == ()


@pytest.mark.parametrize(("phase", "coordinates"), [("later", "pixels"), ("detail", "percent")])
def test_unknown_phases_and_coordinates_are_refused(phase: Phase, coordinates: Coordinates) -> None:
    with pytest.raises(ValueError, match=r"later|percent"):
        prompt(phase, coordinates, 640, 480)


def test_the_schema_and_the_prompt_agree() -> None:
    """A reply built from nothing but the schema is read, and has the keys that the prompt shows."""
    item = REPLY_SCHEMA["properties"]["regions"]["items"]
    assert REPLY_SCHEMA["required"] == ["regions"] and set(item["required"]) == set(item["properties"])
    assert set(re.findall(r'"(\w+)":', EXAMPLE)) == set(item["properties"])
    sides = item["properties"]["bbox_2d"]
    assert sides["minItems"] == sides["maxItems"] == 4 and sides["items"] == {"type": "integer"}
    reply = json.dumps({"regions": [dict(zip(item["properties"], ([100, 200, 300, 400], "chair"), strict=True))]})
    assert parse(reply, "thousandths", 640, 480).boxes == ((0.1, 0.2, 0.3, 0.4, "chair"),)
    assert REPLY_SCHEMA["properties"]["regions"]["maxItems"] == max(limits.max_boxes for limits in LIMITS.values())
    json.dumps(REPLY_SCHEMA)
