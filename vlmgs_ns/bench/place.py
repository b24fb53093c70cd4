"""Strict reading of YAML: whatever is wrong is told with the file, the place, the value, the reason and the fix."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from vlmgs_ns.system.errors import InputError


class _Loader(yaml.SafeLoader):
    """Plain data alone, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is there twice; keep one of them", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class Place:
    """A YAML file, or a place inside it, that can tell what is wrong with it.

    Every method raises `InputError` with the file, the place, the value, the reason and the fix.
    """

    def __init__(self, path: Path, content: Any, name: str = "") -> None:
        self.path, self.content, self.name = path, content, name

    @classmethod
    def read(cls, path: Path) -> Place:
        """The content of a file."""
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}. Give a file such as configs/toy.yaml.") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise InputError(f"{path} is no YAML: {' '.join(str(error).split())}. Correct the file.") from None
        return cls(path, content)

    def refuse(self, reason: str, fix: str = "Correct the file.") -> NoReturn:
        """Raise for this place."""
        raise InputError(f"{self.path}: {self.name or 'content'} is {reprlib.repr(self.content)}, but {reason}. {fix}")

    def fields(self, known: Iterable[str], needed: Iterable[str] = ()) -> dict[str, Place]:
        """The entries of a mapping that may have the `known` keys alone, and must have those `needed`."""
        entries, known = self.entries(), list(known)
        for key in entries:
            if key not in known:
                raise InputError(f"{self.path}: {self._at(key)} is not known. {nearest(key, known)}")
        for key in needed:
            if key not in entries:
                raise InputError(f"{self.path}: {self._at(key)} is missing. Add it.")
        return entries

    def entries(self) -> dict[str, Place]:
        """The entries of a mapping with any keys."""
        if not isinstance(self.content, dict):
            self.refuse("must be a mapping, lines of key: value")
        for key in self.content:
            if not isinstance(key, str) or not key.strip():
                self.refuse(f"its key {key!r} is no text", "Put the key in quotes.")
        return {key: Place(self.path, value, self._at(key)) for key, value in self.content.items()}

    def items(self) -> list[Place]:
        """The entries of a list that has some."""
        if not isinstance(self.content, list) or not self.content:
            self.refuse("must be a list with something in it", f"Write {self.name.rpartition('.')[2]}: [a, b].")
        return [Place(self.path, entry, f"{self.name}[{k}]") for k, entry in enumerate(self.content)]

    def text(self) -> str:
        """Words, their lines joined."""
        if not isinstance(self.content, str) or not self.content.strip():
            self.refuse("must be text that is not empty", "Put it in quotes.")
        return " ".join(self.content.split())

    def choice(self, choices: Iterable[str]) -> str:
        """One of some words."""
        value, choices = self.text(), list(choices)
        if value not in choices:
            self.refuse("is none of those known", nearest(value, choices))
        return value

    def whole(self, least: int) -> int:
        """A whole number."""
        if isinstance(self.content, bool) or not isinstance(self.content, int) or self.content < least:
            self.refuse(f"must be a whole number, {least} or more")
        return int(self.content)

    def fraction(self) -> float:
        """A number from 0 up to and with 1."""
        if isinstance(self.content, bool) or not isinstance(self.content, (int, float)) or not 0 <= self.content <= 1:
            self.refuse("must be a number from 0 to 1")
        return float(self.content)

    def no_twins(self, values: Iterable[Any]) -> None:
        """Refuse a list that names something twice."""
        every = list(values)
        for value in every:
            if every.count(value) > 1:
                self.refuse(f"{value!r} is there twice", "Keep one of them.")

    def _at(self, key: object) -> str:
        return f"{self.name}.{key}".lstrip(".")


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence that suggests the known word most like another, or lists them all."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"Did you mean {close[0]}?" if close else f"Known are {', '.join(known)}."


def plain(value: Any) -> Any:
    """`value` with mappings and sequences as JSON has them, for hashing and writing."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value
