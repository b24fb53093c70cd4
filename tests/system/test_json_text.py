"""JSON that is hostile or damaged."""

from __future__ import annotations

import pytest

from vlmgs_ns.system.json_text import parse_json


def test_plain_values() -> None:
    assert parse_json('{"a": [1, 2.5, null, true, "ü\\ud83d\\ude00"]}') == {"a": [1, 2.5, None, True, "ü😀"]}


DEEP = ("[" * 100_000, '{"a":' * 100_000)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "-Infinity", "1e999", *DEEP, "", "{", "9" * 5000])
def test_what_no_one_can_use_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


def test_numbers_that_are_not_finite_where_the_reader_has_its_own_word_for_them() -> None:
    assert parse_json("[Infinity, -1e999]", finite=False) == [float("inf"), float("-inf")]


def test_half_a_surrogate_pair_cannot_break_a_file() -> None:
    value = parse_json('{"\\uD800": "a\\udfffb", "kept": "\\\\ud800"}')
    assert value == {"?": "a?b", "kept": "\\ud800"}
    repr(value).encode("utf-8")
