"""The README's table of flags, made from the fields of our configs and their docstrings.

``python docs/flags.py`` writes it between the table's markers; a test asserts that it is up to date.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

from vlmgs_ns.datamanager import VlmFastGSDatamanagerConfig
from vlmgs_ns.model import VlmFastGSModelConfig

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- flags -->\n", "<!-- end of flags -->"
CONFIGS = {
    "--pipeline.model.": VlmFastGSModelConfig,
    "--pipeline.datamanager.": VlmFastGSDatamanagerConfig,
}


def fields(config: type) -> list[tuple[str, str, str]]:
    """Name, default as source text, and docstring of each field that a config class itself defines."""
    (definition,) = ast.parse(inspect.getsource(config)).body
    assert isinstance(definition, ast.ClassDef)
    found = []
    for item, after in zip(definition.body, [*definition.body[1:], None], strict=True):
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name) or item.target.id.startswith("_"):
            continue
        assert item.value is not None, f"{config.__name__}.{item.target.id} has no default"
        documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
        assert documented, f"{config.__name__}.{item.target.id} has no docstring"
        found.append((item.target.id, ast.unparse(item.value).strip("'"), " ".join(after.value.value.split())))  # type: ignore[union-attr]
    return found


def table() -> str:
    """The table in markdown."""
    rows = ["| flag | default | what it does |", "|---|---|---|"]
    for prefix, config in CONFIGS.items():
        for name, default, text in fields(config):
            rows.append(f"| `{prefix}{name.replace('_', '-')}` | `{default}` | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


def with_table(text: str) -> str:
    """The README's text with the present table in it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    assert after, f"README.md has no {BEGIN.strip()} … {END}"
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
