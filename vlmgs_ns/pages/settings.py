"""The settings of a run, and which of them are not its method's own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

_NAMES_AND_PLACES = {
    *("data", "output_dir", "experiment_name", "timestamp", "method_name", "relative_model_dir"),
    *("pipeline.checkpoint_dir", "pipeline.datamanager.data"),
}
"""Names and places, which are another for every run and say nothing about how it was trained."""


@dataclass(frozen=True)
class Setting:
    """One setting under the name of its flag of ns-train."""

    flag: str
    value: str
    default: str | None
    """The method's default; None where the method, or this setting of it, is not known here."""

    @property
    def row(self) -> tuple[str, str, str]:
        """Cells of a table: flag, value and the method's default."""
        return self.flag, self.value, self.default or ""

    @property
    def differs(self) -> bool:
        return self.default is not None and self.value != self.default


def settings_of(config: Any) -> list[Setting]:
    """Return every setting of a trainer's config, with the default of its method on this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the imported methods use of torch is not for our users to mend
        from nerfstudio.configs.method_configs import all_methods
    defaults = dict(_leaves(all_methods.get(config.method_name)))
    length = f"{config.max_num_iterations}"
    found = []
    for name, value in _leaves(config):
        if name in _NAMES_AND_PLACES:
            continue
        default = defaults.get(name)
        # The trainer fills in the length of the run where no flag gives it.
        if name == "pipeline.model.run_length" and value == length:
            default = value
        found.append(Setting("--" + name.replace("_", "-"), value, default))
    return found


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted names of the settings inside a config with their values in words."""
    if is_dataclass(value) and not isinstance(value, type):
        inside: Mapping[str, Any] = vars(value)
    elif isinstance(value, Mapping):
        inside = value
    else:
        if name:
            yield name, value.__qualname__ if isinstance(value, type) else str(value)
        return
    for key, part in inside.items():
        if key != "_target":
            yield from _leaves(part, f"{name}.{key}" if name else str(key))
