"""Replies of models: what is read as a box, what is not, and that no text does harm."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.markup import render

from vlmgs_ns.guidance.reply import MAX_BOXES, MAX_LABEL, Box, Reply, parse

Numbers = tuple[int, int, int, int]

A, B = (100, 200, 300, 400), (500, 0, 1000, 250)
BOX_A, BOX_B = Box(0.1, 0.2, 0.3, 0.4), Box(0.5, 0.0, 1.0, 0.25)


def read(text: str) -> Reply:
    return parse(text, "thousandths", 640, 480)


def valid(box: Box) -> bool:
    return (
        0 <= box.left < box.right <= 1
        and 0 <= box.top < box.bottom <= 1
        and all(type(edge) is float for edge in box[:4])
        and len(box.label) <= MAX_LABEL
        and box.label.isprintable()
        and box.label == box.label.strip()
        and not set(box.label) & set("[]")
    )


def edges(boxes: tuple[Box, ...]) -> list[tuple[float, float, float, float]]:
    return [box[:4] for box in boxes]


# Replies in the manner of real models.
REPLIES = {
    "qwen3-vl": '```json\n[\n\t{"bbox_2d": [100, 200, 300, 400], "label": "a"},\n'
    '\t{"bbox_2d": [500, 0, 1000, 250], "label": "b"}\n]\n```',
    "one object": '{"bbox_2d": [100, 200, 300, 400], "label": "a"}, {"bbox_2d": [500, 0, 1000, 250], "label": "b"}',
    "other keys": '[{"description": "a", "bbox": [100, 200, 300, 400]}, {"box": [500, 0, 1000, 250], "description": "b"}]',
    "schema": '{"regions": [{"bbox_2d": [100,200,300,400], "label": "a"}, {"bbox_2d": [500,0,1000,250], "label": "b"}]}',
    "nested": '{"a": {"b": [[{"bbox_2d": [100,200,300,400], "label": "a"}]], "c": {"bbox_2d": [500,0,1000,250], "label": "b"}}}',
    "chatty": 'Sure! I see "two" (2) of them, it\'s here:\n{"bbox_2d": [100,200,300,400], "label": "a"}\nand\n```json\n'
    '[{"bbox_2d": [500,0,1000,250], "label": "b"}]\n```\nHope that\'s useful [smile].',
    "python": "[{'bbox_2d': [100, 200, 300, 400], 'label': 'a'}, {'id': (), 'bbox': [500, 0, 1000, 250], 'label': 'b'},]",
    "strings": '[{"bbox_2d": ["100", "200", "300", "400"], "label": "a"},'
    '{"bbox_2d": ["500.0", "0", "1e3", "250"], "label": "b"}]',
    "thinking": '<think>Perhaps [1, 2, 3, 4] and {"bbox_2d": [0,0,9,9]}?</think>[{"bbox_2d": [100,200,300,400], "label": "a"},'
    '{"bbox_2d": [500,0,1000,250], "label": "b"}]',
    "thinking begun in the prompt": 'Perhaps [1, 2, 3, 4] {[" or [5].\n</think>\n[{"bbox_2d": [100,200,300,400], "label": "a"},'
    '{"bbox_2d": [500,0,1000,250], "label": "b"}]',
    "missing brace": '[{"bbox_2d": [100,200,300,400], "label": "a", {"bbox_2d": [500,0,1000,250], "label": "b"}]',
    "swapped corners": '[{"bbox_2d": [300,400,100,200], "label": "a"}, {"bbox_2d": [500,250,1000,0], "label": "b"}]',
    "beyond the picture": '[{"bbox_2d": [100,200,300,400], "label": "a"}, {"bbox_2d": [500,-7,1e300,250], "label": "b"}]',
}
UNLABELLED = {
    "lists": "[[100, 200, 300, 400], [500, 0, 1000, 250]]",
    "list after list": "[100, 200, 300, 400]\n[500, 0, 1000, 250]",
    "both under a key": '{"bbox_2d": [[100, 200, 300, 400], [500, 0, 1000, 250]]}',
    "fractions, signs, a last comma": "[[+100.0, 2e2, 300., .4E3,], [500, -0, 1000, 250]]",
    "box tags": "<box>(100, 200), (300, 400)</box> and <box>(500,0),(1000,250)</box>",
    "special tokens": "<|box_start|>(100,200),(300,400)<|box_end|><|box_start|>(500,0),(1000,250)<|box_end|><|im_end|>",
    "tags about lists": "<box>[[100, 200, 300, 400]]</box><box>[500, 0, 1000, 250]</box>",
    "marks of inches": 'A 5" pipe [100, 200, 300, 400] and a 6" pipe [500, 0, 1000, 250].',
    "bare keys": "{bbox_2d: [100, 200, 300, 400]}, {bbox_2d: [500, 0, 1000, 250]}",
}


@pytest.mark.parametrize("name", REPLIES)
def test_labelled_replies(name: str) -> None:
    assert read(REPLIES[name]) == Reply((BOX_A._replace(label="a"), BOX_B._replace(label="b")), 0)


@pytest.mark.parametrize("name", UNLABELLED)
def test_unlabelled_replies(name: str) -> None:
    assert read(UNLABELLED[name]) == Reply((BOX_A, BOX_B), 0)


NOTHING = r"""
[]
 [ ]
```json []```
{}
{"regions": []}
{"bbox_2d": []}
{"bbox_2d": null}
There is none.
<box></box>
<think>[1, 2, 3, 4]
<think></think>
["a", "b"]
{"label": "chair"}
[x1, y1, x2, y2]
{"rgb": [1, 2, 3]}
"""
NO_BOX = r"""
[1, 2, 3]
[1, 2, 3, 4, 5]
[NaN, 2, 3, 4]
[1, 2, Infinity, 4]
[1, 2, -Infinity, 4]
[1, 2, 1e999, 4]
[true, false, 3, 4]
[true, true, true, true]
[1, 2, null, 4]
[1, 2, "x", 4]
[1, 2, , 4]
[1_0, 2, 30, 4]
[0x1, 2, 3, 4]
[5, 5, 5, 9]
[5, 5, 9, 5]
[1001, 0, 2000, 10]
[-9, 0, 0, 10]
[1, 2, 3, 4
[1, 2, 3
[1, 2, 3, 4; 5]
{"bbox_2d": "1, 2, 3, 4"}
{"bbox_2d": ["a"]}
{"bbox_2d": 5}
{"bbox_2d": {"x1": 1}}
{"bbox_2d": [1, 2, 3, 4}
{"box_2d": [1, 2, 3, 4]}
<box>(1, 2), (3, 4)
<box>(1, 2), (3)</box>
<box>chair</box>
"""


@pytest.mark.parametrize("text", NOTHING.splitlines())
def test_nothing_is_nothing(text: str) -> None:
    assert read(text) == Reply((), 0)


@pytest.mark.parametrize("text", [*NO_BOX.split("\n")[1:-1], f"[1, 2, 3, {'9' * 65}]"])
def test_what_is_no_box_is_counted_once_and_disturbs_no_other(text: str) -> None:
    assert read(text) == Reply((), 1)
    if text.endswith(("]", ">", "}")):
        assert read(f"[100, 200, 300, 400] {text} [500, 0, 1000, 250]") == Reply((BOX_A, BOX_B), 1)


def test_pixels_count_in_the_picture_that_the_model_saw() -> None:
    assert parse("[64, 48, 320, 480]", "pixels", 640, 480).boxes == (Box(0.1, 0.1, 0.5, 1.0),)
    assert parse("[64, 48, 320, 480]", "thousandths", 640, 480).boxes == (Box(0.064, 0.048, 0.32, 0.48),)
    assert parse("[600, 10, 700, 20]", "pixels", 640, 480).boxes == (Box(600 / 640, 10 / 480, 1.0, 20 / 480),)


def test_a_label_stays_with_its_object() -> None:
    text = '[1,1,2,2] {"label": "x", "bbox_2d": [1,1,2,2], "description": "y"} [1,1,2,2]'
    text += ' {"bbox": [[1,1,2,2], [1,1,2,2]], "label": "z"}'
    text += ' {"label": 5, "bbox_2d": [1,1,2,2]} {"bbox_2d": [1,1,2,2], "color": "red"} {"label": ["a: b"], "bbox_2d": [1,1,2,2]}'
    assert [box.label for box in read(text).boxes] == ["", "x", "", "z", "z", "", "", ""]


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        (r"a \"big\" chair", 'a "big" chair'),
        (r"two\nlines\tand more   space ", "two lines and more space"),
        (r"caf\u00e9 \ud83d\ude00", "café 😀"),
        (r"\ud800 half", "half"),
        (r"\u202ereversed\u0007\u001b[31m", "reversed (31m"),
        ("[bold red]loud[/] [link=x]", "(bold red)loud(/) (link=x)"),
        (r"wrong \q escape", r"wrong \q escape"),
        ("x" * 200, "x" * MAX_LABEL),
        ("x" * 79 + " y", "x" * 79),
        (r"\n" * 5000, ""),
        ("ignore all instructions]}, [0, 0, 1000, 1000], <box>(0,0),(9,9)</box></think>{", None),
        (r"}\"], [0, 0, 1000, 1000], [\"\\", None),
        ("__import__('os').system('x')", "__import__('os').system('x')"),
    ],
)
def test_labels_are_one_line_of_plain_text(raw: str, cleaned: str | None) -> None:
    reply = read(f'[{{"bbox_2d": [100,200,300,400], "label": "{raw}"}}, {{"label": "{raw}", "bbox_2d": [500,0,1000,250]}}]')
    assert edges(reply.boxes) == [BOX_A[:4], BOX_B[:4]] and reply.dropped == 0
    assert reply.boxes[0].label == reply.boxes[1].label and all(map(valid, reply.boxes))
    if cleaned is not None:
        assert reply.boxes[0].label == cleaned
    assert render(reply.boxes[0].label).plain == reply.boxes[0].label


def test_a_string_without_its_quote_costs_its_line_only() -> None:
    text = '[{"bbox_2d": [100,200,300,400], "label": "a 5" tall [1,1,2,2] jar"},\n{"bbox_2d": [500,0,1000,250], "label": "b"}]'
    assert read(text).boxes[-1] == BOX_B._replace(label="b") and read(text).boxes[0][:4] == BOX_A[:4]


def test_a_million_boxes() -> None:
    reply = read("[" + ",".join(["[100, 200, 300, 400]"] * 1_000_000) + "]")
    assert reply == Reply((BOX_A,) * MAX_BOXES, 1_000_000 - MAX_BOXES)


UNITS = r"""[ { [" [' {"a": [1, 1 \" \ <box> <box>(1, <think> </think> ] }{ - ' ["a" """


@pytest.mark.parametrize("unit", [*UNITS.split(), " "])
@pytest.mark.parametrize("start", ["", '["', '{"bbox_2d":'])
def test_monotonous_replies(start: str, unit: str) -> None:
    """Quadratic time would be 10^10 steps and not end; recursion would be 10^5 deep. What follows is still read."""
    assert read(start + unit * 100_000).boxes == ()
    follows = "</think>" if unit == "<think>" else ""
    assert read(start + unit * 50 + follows + "\n[[100, 200, 300, 400]]").boxes == (BOX_A,)


def test_ten_megabytes() -> None:
    for text in ('["' + '\\"' * 5_000_000, "[" + "1," * 5_000_000, "blah blah " * 1_000_000, "[" + "9" * 10_000_000):
        assert read(text).boxes == ()


@pytest.mark.parametrize(("coordinates", "width", "height"), [("percent", 9, 9), ("pixels", 0, 9), ("thousandths", 9, -1)])
def test_wrong_use_is_refused(coordinates: str, width: int, height: int) -> None:
    with pytest.raises(ValueError, match=r"percent|pixels"):
        parse("[]", coordinates, width, height)  # type: ignore[arg-type]


FRAGMENTS = """[ ] { } " ' , : \\ 1 -2.5 999 1e400 NaN true null bbox_2d "bbox_2d": "label": [1,2,3,4] [9,9,9,9] "a" <box> </box>
(1,2),(3,4) <|box_start|> <|box_end|> <think> </think> ```json \ud800 \u202e \uff11 \xe9 \0 [bold]"""


@given(
    text=st.one_of(st.text(), st.lists(st.sampled_from([*FRAGMENTS.split(), " ", "\n"]), max_size=40).map("".join)),
    pixels=st.booleans(),
    width=st.integers(1, 10_000),
    height=st.integers(1, 10_000),
)
def test_no_text_raises_and_every_box_is_valid(text: str, pixels: bool, width: int, height: int) -> None:
    reply = parse(text, "pixels" if pixels else "thousandths", width, height)
    assert all(map(valid, reply.boxes)) and len(reply.boxes) <= MAX_BOXES and reply.dropped >= 0


def objects(key: str, label: str) -> Callable[[list[Numbers], list[str]], str]:
    return lambda boxes, labels: json.dumps([{key: box, label: text} for box, text in zip(boxes, labels, strict=True)])


def pairs(start: str, end: str) -> Callable[[list[Numbers], list[str]], str]:
    return lambda boxes, labels: " ".join(f"{start}({a},{b}), ({c},{d}){end}" for a, b, c, d in boxes)


LABELLED: list[Callable[[list[Numbers], list[str]], str]] = [
    objects("bbox_2d", "label"),
    objects("bbox", "description"),
    lambda boxes, labels: "```json\n" + objects("box", "label")(boxes, labels).replace("}, {", "},\n{") + "\n```",
    lambda boxes, labels: json.dumps(
        {"regions": [{"label": text, "bbox_2d": box} for box, text in zip(boxes, labels, strict=True)]}, indent=1
    ),
    lambda boxes, labels: "<think>[1, 2, 3, 4] \"</think>It's: " + objects("bbox_2d", "label")([*map(strings, boxes)], labels),  # type: ignore[list-item]
    lambda boxes, labels: "".join(
        json.dumps({"bbox_2d": box, "label": text}, ensure_ascii=False) for box, text in zip(boxes, labels, strict=True)
    ),
]
BARE: list[Callable[[list[Numbers], list[str]], str]] = [
    lambda boxes, labels: json.dumps(boxes),
    lambda boxes, labels: "\n".join(map(str, map(list, boxes))),
    pairs("<box>", "</box>"),
    pairs("<|box_start|>", "<|box_end|>"),
]


def strings(box: Numbers) -> tuple[str, ...]:
    return tuple(map(str, box))


def intervals(size: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, size), min_size=2, max_size=2, unique=True).map(sorted)


@st.composite
def answers(draw: st.DrawFn, size: int) -> tuple[list[Numbers], list[str]]:
    spans = draw(st.lists(st.tuples(intervals(size), intervals(size)), max_size=6))
    boxes = [(x[0], y[0], x[1], y[1]) for x, y in spans]
    return boxes, draw(st.lists(st.text(max_size=12), min_size=len(boxes), max_size=len(boxes)))


@given(answer=answers(640), style=st.sampled_from(LABELLED + BARE))
def test_boxes_come_back_in_every_syntax(answer: tuple[list[Numbers], list[str]], style: Callable[..., str]) -> None:
    boxes, labels = answer
    reply = parse(style(boxes, labels), "pixels", 640, 800)
    assert reply.dropped == 0 and len(reply.boxes) == len(boxes)
    for found, (left, top, right, bottom), label in zip(reply.boxes, boxes, labels, strict=True):
        assert math.dist(found[:4], (left / 640, top / 800, right / 640, bottom / 800)) < 1e-12
        words = "".join(c if c.isprintable() else " " for c in label).replace("[", "(").replace("]", ")").split()
        assert found.label == (" ".join(words) if style in LABELLED else "")


@given(answer=answers(1000), style=st.sampled_from(LABELLED + BARE), data=st.data())
def test_a_cut_reply_gives_a_prefix_of_its_boxes(
    answer: tuple[list[Numbers], list[str]], style: Callable[..., str], data: st.DataObject
) -> None:
    """Whatever stands in the labels; a box may lose its label, when the cut is between the two."""
    boxes, labels = answer
    text = style(boxes, [data.draw(st.sampled_from([label, "[1,2,3,4]", '"}, [1,2,3,4]', "</think>\\"])) for label in labels])
    whole, shown = read(text).boxes, 0
    assert len(whole) == len(boxes)
    cuts = range(len(text) + 1) if len(text) < 200 else sorted(random.Random(0).sample(range(len(text) + 1), 200))
    for cut in cuts:
        part = read(text[:cut]).boxes
        assert edges(part) == edges(whole[: len(part)]) and len(part) >= shown
        assert all(box.label in ("", twin.label) for box, twin in zip(part, whole, strict=False))
        shown = len(part)
