from __future__ import annotations

import pytest

from vlmgs_ns.system.errors import InputError
from vlmgs_ns.words.phrases import LONGEST_PHRASE, checked_phrases, file_stem


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
