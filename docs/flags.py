"""The README's table of flags, made from the fields of our configs and their docstrings.

``python docs/flags.py`` writes it between the table's markers; a test asserts that it is up to date.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path

from vlmgs_ns.method.datamanager import VlmFastGSDatamanagerConfig
from vlmgs_ns.method.model import VlmFastGSModelConfig

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- flags -->\n", "<!-- end of flags -->"
CONFIGS = {
    "--pipeline.model.": VlmFastGSModelConfig,
    "--pipeline.datamanager.": VlmFastGSDatamanagerConfig,
}


def documented(config: type) -> dict[str, str]:
    """Docstring of each field that a config class of ours, or one of ours that it inherits from, defines."""
    texts: dict[str, str] = {}
    for part in reversed(config.__mro__):
        if not part.__module__.startswith("vlmgs_ns"):
            continue
        (definition,) = ast.parse(inspect.getsource(part)).body
        assert isinstance(definition, ast.ClassDef)
        for item, after in zip(definition.body, [*definition.body[1:], None], strict=True):
            if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name) or item.target.id.startswith("_"):
                continue
            known = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
            assert known, f"{config.__name__}.{item.target.id} has no docstring"
            texts[item.target.id] = " ".join(after.value.value.split())  # type: ignore[union-attr]
    return texts


def fields(prefix: str, config: object) -> Iterator[tuple[str, object, str]]:
    """Flag, default and docstring of what a config of ours defines, and of what the configs of ours inside it do."""
    for name, text in documented(type(config)).items():
        value, flag = getattr(config, name), prefix + name.replace("_", "-")
        if dataclasses.is_dataclass(value) and type(value).__module__.startswith("vlmgs_ns"):
            yield from fields(flag + ".", value)
        else:
            yield flag, value, text


def table() -> str:
    """The table in markdown."""
    rows = ["| flag | default | what it does |", "|---|---|---|"]
    for prefix, config in CONFIGS.items():
        for flag, default, text in fields(prefix, config()):
            shown = default if default != "" else '""'
            rows.append(f"| `{flag}` | `{shown}` | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


def with_table(text: str) -> str:
    """The README's text with the present table in it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    assert after, f"README.md has no {BEGIN.strip()} … {END}"
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
