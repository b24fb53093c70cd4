from __future__ import annotations

import subprocess
import sys

import pytest

from vlmgs_ns.system.errors import InputError
from vlmgs_ns.words.query import (
    LONGEST_PHRASE,
    MOST_PHRASES,
    Fields,
    Query,
    apart,
    checked_phrases,
    file_stem,
    make_query,
    parse_prompt,
)


def test_a_relevancy_is_told_apart_from_its_threshold() -> None:
    assert apart(0.804, 0.5) == "0.80" and apart(0.4996, 0.5) == "0.4996" and apart(0.5004, 0.5) == "0.5004"
    assert apart(0.5, 0.5) == "exactly 0.50" and apart(0.496, 0.5) == "0.496" and apart(0.494, 0.5) == "0.49"


def test_phrases_are_stripped_in_order_and_each_once() -> None:
    assert checked_phrases([" red ball ", "table", "red ball", "ärm · 红球 👩‍🚀"], "--select") == [
        "red ball",
        "table",
        "ärm · 红球 👩‍🚀",
    ]
    assert checked_phrases([], "--select") == []
    assert checked_phrases(["x" * LONGEST_PHRASE], "--select")


@pytest.mark.parametrize(
    ("phrase", "complaint"),
    [
        ("", "--text '' is empty"),
        (" \t", "is empty"),
        ("x" * 10_000, "'xxxx.*' has 10000 characters"),
        ("x" * (LONGEST_PHRASE + 1), "has 301 characters"),
        ("red\nball", r"'red\\nball' holds characters"),
        ("red\x00ball", "holds characters"),
        ("red\udc80ball", "holds characters"),
    ],
)
def test_what_is_no_phrase_is_refused(phrase: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        checked_phrases(["good", phrase], "--text")


def test_names_of_files() -> None:
    assert file_stem(["Red  ball!", "the cat's hat"]) == "red-ball+the-cat-s-hat"
    assert file_stem(["../../etc/passwd"]) == "etc-passwd"
    assert file_stem(["红球"]) == "红球" and file_stem(["???"]) == "phrase"
    long = file_stem(["红" * 100])
    assert len(long.encode()) <= 80 and long != file_stem(["红" * 101])


def test_prompts() -> None:
    assert parse_prompt(None) == parse_prompt("") == []
    assert parse_prompt(" red  ball;wooden table ;; ") == ["red ball", "wooden table"]
    for text, complaint in (
        (" ; ;", "names nothing"),
        ("x" * 10_000, "10000 characters"),
        (";".join(map(str, range(MOST_PHRASES + 1))), "33 phrases"),
    ):
        with pytest.raises(InputError, match=complaint):
            parse_prompt(text)
    assert parse_prompt("x" * LONGEST_PHRASE) == ["x" * LONGEST_PHRASE]


def test_a_query_is_checked_where_it_is_made() -> None:
    assert make_query([" red ball", "red ball"], ["floor "], 0.6) == Query(("red ball",), ("floor",), 0.6)
    fields = Fields("--select", "--negative", "--threshold")
    for arguments, complaint in (
        ((["ball"], ["ball "]), "'ball' is in --select and in --negative, and cannot beat itself"),
        ((["ball"], [""]), "--negative '' is empty"),
        ((["ball"], [], 1.0), "--threshold 1 is out of range"),
        ((["ball"], [], float("nan")), "--threshold nan is out of range"),
        ((list(map(str, range(MOST_PHRASES + 1))),), "33 phrases; give at most 32"),
    ):
        with pytest.raises(InputError, match=complaint):
            make_query(*arguments, fields=fields)
    with pytest.raises(InputError, match="2 phrases; give at most 1"):
        make_query(["a", "b"], most=1)


def test_the_module_of_queries_is_light() -> None:
    program = "import vlmgs_ns.words.query, sys; sys.exit(bool({'torch', 'numpy', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
