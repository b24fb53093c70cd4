"""What each phase asks of a model, in words, and the form of its reply.

Small models follow short orders: what to look for, how many boxes, how large, in which numbers, and nothing else. The limits
they are told are those that `regions.limit` holds them to. A server that is given `REPLY_SCHEMA` makes the model write the same
list of regions as the value of "regions"; `reply.parse` reads both.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from vlmgs_ns.guidance.question import Phase
from vlmgs_ns.guidance.regions import LIMITS, Limits
from vlmgs_ns.guidance.reply import Coordinates

TASKS: dict[Phase, str] = {
    "detail": (
        "This picture is a render of a 3D scene that is still being reconstructed from photos. "
        "Mark the regions that are beginning to show texture detail: places where fine structure, patterns or edges start to "
        "appear but are not sharp yet. Leave out regions that are still featureless blur and surfaces that are plain."
    ),
    "background": (
        "This picture is a render of a 3D scene that is being reconstructed from photos. "
        "Mark the main subject: the object, or tight group of objects, that the photos were taken of. Leave out the background."
    ),
    "novel": (
        "This picture is a render of a reconstructed 3D scene from a viewpoint where no photo was taken. "
        "Mark the regions that are inconsistent or under-reconstructed: floaters (blobs or streaks hanging in the air), "
        "holes, and blurred or smeared surfaces. Leave out regions that look like a real photo."
    ),
    "compare": (
        "The first picture is a render of a reconstructed 3D scene, the second picture is a photo of the same view. "
        "Mark the regions where the render differs most from the photo: missing, blurred or wrong parts. "
        "Give the boxes in the first picture."
    ),
    "ground": "Mark each of these things where it can be seen in the picture, with its words as the label: {wish}.",
}
"""What to look for, by phase (docs/methods.md: VLM-Instruct-FastGS)."""

REPLY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "regions": {
            "type": "array",
            "maxItems": max(limits.max_boxes for limits in LIMITS.values()),
            "items": {
                "type": "object",
                "properties": {
                    "bbox_2d": {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4},
                    "label": {"type": "string"},
                },
                "required": ["bbox_2d", "label"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["regions"],
    "additionalProperties": False,
}
"""JSON schema of a reply, for servers that can hold a model to one. Its top level is an object because they demand it."""


def prompt(phase: Phase, coordinates: Coordinates, width: int, height: int, wish: str = "") -> str:
    """What a model is told beside its picture(s).

    Args:
        phase: what is asked, see `TASKS`.
        coordinates: what the numbers in the reply shall count.
        width, height: of the (first) picture as the model sees it, in pixels.
        wish: what the user wants in detail, for "ground".

    Raises:
        ValueError: unknown phase or coordinates.
    """
    if phase not in TASKS:
        raise ValueError(f"unknown phase {phase!r}: one of {', '.join(TASKS)}")
    return (
        f"{TASKS[phase].replace('{wish}', wish)}\n"
        f"{bounds(LIMITS[phase])}\n"
        "Reply with JSON only, no other text: the list of regions\n"
        '[{"bbox_2d": [x1, y1, x2, y2], "label": "a few words"}]\n'
        f"(x1, y1) is the top left corner and (x2, y2) the bottom right corner, {units(coordinates, width, height)}.\n"
        "Reply [] if there is none."
    )


def bounds(limits: Limits) -> str:
    area = f"at most {Fraction(limits.max_area).limit_denominator(100)} of the picture's area"
    if limits.max_boxes == 1:
        return f"Give ONE box, {area}."
    return f"Give at most {limits.max_boxes} boxes, each {area}, as tight as possible."


def units(coordinates: Coordinates, width: int, height: int) -> str:
    if coordinates == "thousandths":
        return "in integers from 0 to 1000: x in thousandths of the picture's width, y in thousandths of its height"
    if coordinates == "pixels":
        return f"in integer pixels of the picture, which is {width} wide and {height} high"
    raise ValueError(f"unknown coordinates {coordinates!r}: 'thousandths' or 'pixels'")
