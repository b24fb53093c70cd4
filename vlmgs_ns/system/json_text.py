"""JSON from outside: servers, other people's runs, edited files."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def parse_json(text: str, finite: bool = True) -> Any:
    """Return the value that JSON stands for; every text in it can be written as UTF-8, whatever was escaped there.

    Args:
        finite: refuse numbers that are not, such as NaN, Infinity and 1e999.

    Raises:
        ValueError: not JSON, nested too deeply, or a number that is not finite.
    """
    checks: Any = {"parse_constant": _refuse, "parse_float": _finite} if finite else {}
    try:
        value = json.loads(text, **checks)
        if "\\ud" in text.lower():  # a surrogate, perhaps without its other half
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refuse(digits)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")
