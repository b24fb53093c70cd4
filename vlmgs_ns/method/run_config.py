"""The config.yml of a run, read without running what it names.

nerfstudio's commands load this file with a YAML loader that imports and calls whatever stands in it, so that a run which somebody
sent can do anything. Here it builds settings alone: dataclasses of nerfstudio and of this package, paths and members of
enumerations, and it may name classes of these and of ``torch.optim``.
"""

from __future__ import annotations

from dataclasses import is_dataclass
from enum import Enum
from functools import reduce
from importlib import import_module
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import yaml

from vlmgs_ns.system.errors import InputError

if TYPE_CHECKING:
    from vlmgs_ns.method.trainer import VlmFastGSTrainerConfig

KNOWN = (
    *("nerfstudio.cameras", "nerfstudio.configs", "nerfstudio.data", "nerfstudio.engine", "nerfstudio.utils"),
    *("vlmgs_ns", "torch.optim", "pathlib"),
)
"""Packages and modules of which a config may name classes: where nerfstudio and its methods keep their settings."""

MOVED = {
    "vlmgs_ns.datamanager": "vlmgs_ns.method.datamanager",
    "vlmgs_ns.guidance.schedule": "vlmgs_ns.guidance.config",
    "vlmgs_ns.model": "vlmgs_ns.method.model",
    "vlmgs_ns.optimizers": "vlmgs_ns.method.optimizers",
    "vlmgs_ns.pipeline": "vlmgs_ns.method.pipeline",
    "vlmgs_ns.trainer": "vlmgs_ns.method.trainer",
}
"""Modules that the config.yml of older runs names, and where their classes are now."""


def read_config(path: Path) -> VlmFastGSTrainerConfig:
    """Return the settings of a run of ours.

    Raises:
        InputError: the file is damaged, of another method, or names what is no setting of a run.
    """
    from vlmgs_ns.method.datamanager import VlmFastGSDatamanagerConfig
    from vlmgs_ns.method.model import VlmFastGSModelConfig
    from vlmgs_ns.method.pipeline import VlmFastGSPipelineConfig
    from vlmgs_ns.method.trainer import VlmFastGSTrainerConfig

    try:
        config = yaml.load(path.read_text(encoding="utf-8"), _SettingsLoader)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give the folder of another run") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not the config.yml of a run: {reason}; copy it again from where it is whole") from None
    for place, kind in (
        ("", VlmFastGSTrainerConfig),
        ("pipeline", VlmFastGSPipelineConfig),
        ("pipeline.model", VlmFastGSModelConfig),
        ("pipeline.datamanager", VlmFastGSDatamanagerConfig),
    ):
        part = reduce(lambda part, name: getattr(part, name, None), filter(None, place.split(".")), config)
        if not isinstance(part, kind):
            raise InputError(f"{path} is not a run of vlm-fastgs; train its scene with ns-train vlm-fastgs (or --load-dir)")
        part._target = kind()._target  # not the file's to choose
    return config


class _SettingsLoader(yaml.FullLoader):
    """Plain values and settings."""

    def find_python_name(self, name: str, mark: Any, unsafe: bool = False) -> type:
        """Return the class of that name; called for everything that a tag names."""
        module, _, attribute = name.rpartition(".")
        module = MOVED.get(module, module)
        found = getattr(import_module(module), attribute, None) if _known(module) else None
        # The class's own module: another package's may be imported where it is looked for.
        if not isinstance(found, type) or not _known(found.__module__):
            raise yaml.constructor.ConstructorError(
                None, None, f"{name} is no class that settings are made of, so it is not run", mark
            )
        return found

    def make_settings(self, name: str, node: yaml.MappingNode) -> Any:
        """Yield a dataclass and then fill it in, as it may be part of itself."""
        if not is_dataclass(self.find_python_name(name, node.start_mark)):
            raise yaml.constructor.ConstructorError(None, None, f"{name} holds no settings, so it is not made", node.start_mark)
        yield from self.construct_python_object(name, node)

    def make_value(self, name: str, node: yaml.SequenceNode) -> Any:
        """Return a path, or a member of an enumeration."""
        kind = self.find_python_name(name, node.start_mark)
        if not issubclass(kind, (PurePath, Enum)):
            raise yaml.constructor.ConstructorError(None, None, f"{name} is not called", node.start_mark)
        return kind(*self.construct_sequence(node, deep=True))


_SettingsLoader.add_multi_constructor("tag:yaml.org,2002:python/object:", _SettingsLoader.make_settings)
_SettingsLoader.add_multi_constructor("tag:yaml.org,2002:python/object/apply:", _SettingsLoader.make_value)


def _known(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in KNOWN)
