"""The boxes in a model's reply, whatever is written around them.

Replies come fenced, chatty, cut off at the token limit or simply broken, so nothing here repairs JSON: one pass over the text
finds flat lists of four numbers (and `<box>` tags) wherever they stand, and the label beside them. Strings are skipped whole,
so text inside a label is never read as anything else. The pass takes time linear in the text and keeps no stack.

Models that think aloud first are told by their tags: text in `<think>…</think>` does not count, nor does what comes before a
`</think>` whose beginning was part of the prompt.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

Coordinates = Literal["thousandths", "pixels"]
"""What the numbers of a reply count: thousandths of the picture's width and height (Qwen3-VL), or its pixels (Qwen2.5-VL)."""

MAX_BOXES = 256
"""Boxes kept of one reply; a model caught in a loop writes the same one until its token limit."""
MAX_LABEL = 80

BOX_KEYS = {"bbox_2d", "bbox", "box"}
"""Other keys are not guessed at: some models write `box_2d` with y first."""
LABEL_KEYS = {"label", "description"}

# Every pattern looks at a character a bounded number of times: none of their repetitions can share characters.
TOKEN = re.compile(r"""[\[\]{}"]|(?<=[\[{,:\s])'|</?think>|<(?:box|\|box_start\|)>""")
FLAT_LIST = re.compile(r"""\[([\w\s.,+\-"']*)(\]?)""", re.ASCII)
PAIRS = re.compile(r"([()\w\s.,+\-]*)(</box>|<\|box_end\|>)?", re.ASCII)
STRING_STOP = {quote: re.compile(rf"\\[^\n]|[{quote}\n]") for quote in "\"'"}
COLON = re.compile(r"\s*:\s*")
NUMBER = re.compile(r"""\s*(["']?)([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\1\s*""", re.ASCII)
NOT_A_NUMBER = re.compile(r"""\s*["']?[-+]?(?:nan|inf|infinity|true|false|null|none)["']?\s*""", re.IGNORECASE)
LONGEST_NUMBER = 64
LONGEST_RAW_LABEL = 2000


class Box(NamedTuple):
    """A rectangle of a picture, in fractions of its width and height, x right and y down.

    Every box of a `Reply` has 0 ≤ left < right ≤ 1 and 0 ≤ top < bottom ≤ 1.
    """

    left: float
    top: float
    right: float
    bottom: float
    label: str = ""


class Reply(NamedTuple):
    """What a reply names."""

    boxes: tuple[Box, ...]
    """In the model's order, at most `MAX_BOXES`."""
    dropped: int
    """What looked like a box and was none (not four finite numbers, no area, cut off), and boxes beyond `MAX_BOXES`."""


def parse(text: str, coordinates: Coordinates, width: int, height: int) -> Reply:
    """The boxes of a model's reply; corners are sorted and clamped to the picture.

    Read are lists `[x1, y1, x2, y2]`, bare, in lists or under a key of `BOX_KEYS`, at any depth, with the first `LABEL_KEYS` of
    the same object as their label, and `<box>(x1, y1), (x2, y2)</box>` or `<|box_start|>…<|box_end|>`. A reply that is cut off
    gives the boxes that are whole; one that says nothing gives none. No text raises.

    Args:
        text: the reply, as the model wrote it.
        coordinates: what its numbers count, see `Coordinates`.
        width, height: of the picture that the model saw, in pixels; only used if the numbers are pixels.

    Raises:
        ValueError: unknown coordinates, or a picture without pixels.
    """
    if coordinates not in ("thousandths", "pixels"):
        raise ValueError(f"unknown coordinates {coordinates!r}: 'thousandths' or 'pixels'")
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width} x {height} pixels holds no box: give the size of the picture the model saw")
    scale = (1000, 1000) if coordinates == "thousandths" else (width, height)
    boxes: list[Box] = []
    dropped = depth = position = 0
    key, key_end = "", -1  # the last key, and where its value starts
    label, unlabelled = "", 0  # of the object being read: its label, and the first box that belongs to it

    def take(numbers: Sequence[str]) -> None:
        nonlocal dropped
        box = box_of(numbers, scale) if len(boxes) < MAX_BOXES else None
        if box is None:
            dropped += 1
        else:
            boxes.append(box)

    def close_object() -> None:
        nonlocal label, unlabelled
        if label:
            boxes[unlabelled:] = [box._replace(label=label) for box in boxes[unlabelled:]]
        label, unlabelled = "", len(boxes)

    while token := TOKEN.search(text, position):
        start, position = token.span()
        match token[0]:
            case "[":
                depth += 1
                items, closing = FLAT_LIST.match(text, start).groups()  # type: ignore[union-attr]
                numbers = split(items)
                if not closing:  # cut off, or it holds something else than scalars, and that is read next
                    dropped += looks_like_box(numbers)
                    continue
                position += len(items) + 1
                depth -= 1
                if key_end == start and key not in BOX_KEYS:  # another matter, e.g. a colour, but told if it has all of a box
                    dropped += len(numbers) == 4 and all(map(NUMBER.fullmatch, numbers))
                elif numbers and (key_end == start or looks_like_box(numbers)):
                    take(numbers)
            case "{":
                depth += 1
                close_object()
            case "]":
                depth = max(depth - 1, 0)
            case "}":
                depth = max(depth - 1, 0)
                close_object()
            case '"' | "'" if depth:  # elsewhere it is a mark in prose
                end, closed = string_end(text, position, token[0])
                string = text[position : min(end, position + LONGEST_RAW_LABEL)]
                position = end + closed
                if closed and (colon := COLON.match(text, position)):
                    key, key_end = string, colon.end()
                    position = key_end
                    dropped += key in BOX_KEYS and key_end < len(text) and not text.startswith(("[", "n"), key_end)
                elif closed and key_end == start and key in LABEL_KEYS and not label:
                    label = clean(string)
            case "<think>":
                end = text.find("</think>", position)
                position = end + len("</think>") if end >= 0 else len(text)
            case "</think>":
                boxes.clear()
                dropped = depth = 0
                close_object()
            case "<box>" | "<|box_start|>":
                items, closing = PAIRS.match(text, position).groups()  # type: ignore[union-attr]
                position += len(items) + len(closing or "")
                numbers = split(items.replace("(", " ").replace(")", " "))
                if closing and numbers:
                    take(numbers)
                else:
                    dropped += looks_like_box(numbers)
    close_object()
    return Reply(tuple(boxes), dropped)


def split(items: str) -> list[str]:
    """The members of a flat list; a comma may follow the last."""
    items = items.strip()
    return items.removesuffix(",").split(",") if items else []


def looks_like_box(items: Sequence[str]) -> bool:
    return any(NUMBER.fullmatch(item) or NOT_A_NUMBER.fullmatch(item) for item in items)


def box_of(items: Sequence[str], scale: tuple[int, int]) -> Box | None:
    """The box with these corners, or None if they make none."""
    if len(items) != 4:
        return None
    found = [NUMBER.fullmatch(item) if len(item) <= LONGEST_NUMBER else None for item in items]
    values = [float(number[2]) for number in found if number]
    if len(values) < 4 or not all(map(math.isfinite, values)):
        return None
    (left, right), (top, bottom) = (
        sorted(min(max(value / size, 0.0), 1.0) for value in values[axis::2]) for axis, size in enumerate(scale)
    )
    return Box(left, top, right, bottom) if left < right and top < bottom else None


def string_end(text: str, start: int, quote: str) -> tuple[int, bool]:
    """Where a string's characters end, and whether a quote closes it. JSON has no line break in strings: what is still open there
    or at the end of the text lacks its quote, and the next line is read afresh."""
    while stop := STRING_STOP[quote].search(text, start):
        if text[stop.start()] != "\\":
            return stop.start(), text[stop.start()] == quote
        start = stop.end()
    return len(text), False


def clean(raw: str) -> str:
    """A JSON string's characters as one printable line of at most `MAX_LABEL` characters.

    Square brackets become round ones, so that a console that reads markup in them finds none.
    """
    try:
        text = json.loads(f'"{raw}"', strict=False)
    except ValueError:
        text = raw
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.translate(str.maketrans("[]", "()")).split())[:MAX_LABEL].rstrip()
