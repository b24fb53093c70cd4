"""Strict reading of YAML files into pydantic models: an error is one line with the file, place, value, reason and fix."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from vlmgs_ns.system.errors import InputError

REASONS = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "string_too_short": "must be text that is not empty",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping, lines of key: value",
    "too_short": "must have something in it",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
}
"""What to say for pydantic's types of errors."""
FIXES = {"string_type": "Put it in quotes.", "string_too_short": "Put it in quotes.", "too_short": "Add an entry."}

Text = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, min_length=1), AfterValidator(lambda text: " ".join(text.split()))
]
"""Text that is not empty, its lines joined."""


class StrictModel(BaseModel):
    """A mapping that has no other keys than its fields."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            raise fault(REASONS["dict_type"])
        for key in content:
            if key not in cls.model_fields:
                raise PydanticCustomError("unknown", "{fix}", {"key": str(key), "fix": nearest(str(key), cls.model_fields)})
        return content


Model = TypeVar("Model", bound=StrictModel)


def fault(reason: str, fix: str = "Correct the file.") -> PydanticCustomError:
    """Return the error that a validator raises for its value."""
    return PydanticCustomError("fault", "{reason}", {"reason": reason, "fix": fix})


def read_yaml(path: Path, model: type[Model]) -> Model:
    """Return the content of a YAML file as a model.

    Raises:
        InputError: the file cannot be read, is not plain YAML, has a key twice, or does not fit the model.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Give a file such as configs/toy.yaml.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}. Correct the file.") from None
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {_message(error.errors(include_url=False)[0])}") from None


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests the known word most like another, or lists them all."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"Did you mean {close[0]}?" if close else f"Known are {', '.join(known)}."


def _message(error: ErrorDetails) -> str:
    """Place, value, reason and fix of one of pydantic's errors."""
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    of_key = bool(error["loc"]) and error["loc"][-1] == "[key]"
    place = ""
    for part in error["loc"][:-2] if of_key else error["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    if kind == "unknown":
        return f"{place}.{context['key']} is not known. {context['fix']}".lstrip(".")
    place = place.lstrip(".") or "content"
    if kind == "missing":
        return f"{place} is missing. Add it."
    reason = REASONS.get(kind, error["msg"]).format(**context)
    fix = context.get("fix") or FIXES.get(kind, "Correct the file.")
    if kind == "literal_error":
        fix = nearest(str(value), re.findall(r"'([^']+)'", context["expected"]))
    if of_key:
        return f"{place}: its key {reprlib.repr(value)} {reason}. {fix}"
    return f"{place} is {reprlib.repr(value)}, but {reason}. {fix}"


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
