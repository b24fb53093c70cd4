"""Write docs/flags.md, the table of flags, from the fields of our configs and their docstrings.

``python docs/flags.py`` writes it; a test asserts that it is up to date.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path

from vlmgs_ns.method.datamanager import VlmFastGSDatamanagerConfig
from vlmgs_ns.method.model import VlmFastGSModelConfig

PAGE = Path(__file__).with_name("flags.md")
HEAD = """# Flags

The flags that this project adds to `ns-train vlm-fastgs`, or gives another default.

Written by `python docs/flags.py` from the configs' docstrings: edit those. All of nerfstudio's Splatfacto flags are there as well
(`ns-train vlm-fastgs --help`). A whole number counts iterations; where a fraction is allowed, it is one of the run.

"""
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


def page() -> str:
    """Return the page in markdown."""
    rows = ["| flag | default | what it does |", "|---|---|---|"]
    for prefix, config in CONFIGS.items():
        for flag, default, text in fields(prefix, config()):
            shown = default if default != "" else '""'
            rows.append(f"| `{flag}` | `{shown}` | {text.replace('|', chr(92) + '|')} |")
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
