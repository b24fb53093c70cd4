"""The trainer's config of a run's settings; overrides are checked against nerfstudio's config classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.strict import nearest


def configure(settings: Mapping[str, Any], data: Path, folder: Path) -> Any:
    """Return the config of a run: its base method, its start, its overrides, and no viewer.

    The semantic stage takes place only where a protocol will ask it something.

    Args:
        settings: of `plan.Run`.
        data: the scene's folder.
        folder: where the trainer may write.

    Raises:
        InputError: an override that names no setting, or has a value that the setting cannot take.
    """
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    config = base_config(str(settings["base"]))
    model, datamanager = config.pipeline.model, config.pipeline.datamanager
    if settings["dataparser"] == "colmap":
        datamanager.dataparser = ColmapDataParserConfig(downscale_factor=1)
    elif settings["dataparser"] == "nerfstudio":
        datamanager.dataparser = NerfstudioDataParserConfig(load_3D_points=True)
    model.seeding = "points"  # a specification says what runs start from
    if settings["start"] != "points":
        # FastGS' sparse start: uniform in ± half the extent, half opaque.
        model.random_init, model.random_scale, model.random_opacity = True, 1.0, 0.5
        model.num_random = int(str(settings["start"]).removeprefix("random "))
    config.machine.seed = model.semantics.seed = settings["seed"]
    datamanager.max_image_size = settings["resolution"]
    if not settings["words"]:
        model.semantics.enabled = False
    for path, value in settings["overrides"].items():
        override(config, path, value)
    _give_no_key_away(settings["overrides"], model)
    config.max_num_iterations = config.steps_per_save = settings["iterations"]
    config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = 0
    config.data = datamanager.data = data
    config.output_dir, config.experiment_name, config.vis = folder, "run", "tensorboard"
    config.viewer.quit_on_train_completion = True
    config.set_timestamp()
    return config


def base_config(name: str) -> Any:
    """Return a copy of the config of one of our methods."""
    from vlmgs_ns import config

    return deepcopy(getattr(config, name.replace("-", "_")).config)


def override(config: Any, path: str, value: Any) -> None:
    """Set one setting of a config by its dotted path.

    Raises:
        InputError: no such setting, with the nearest that there is; or a value of the wrong type.
    """
    target, names = config, path.split(".")
    for k, name in enumerate(names):
        known = _settings_of(target)
        if name not in known:
            where = ".".join(names[:k]) or "the config"
            raise InputError(f"the override {path}: {where} has no setting {name}. {nearest(name, known)}")
        if k < len(names) - 1:
            target = known[name]
    last = names[-1]
    fitted = _fitted(path, known[last], _hint(target, last), value)
    if isinstance(target, dict):
        target[last] = fitted
    else:
        setattr(target, last, fitted)


def _give_no_key_away(overrides: Mapping[str, Any], model: Any) -> None:
    """Send no key to a server that the specification names: it may be somebody else's, and so may the server.

    Raises:
        InputError: the specification names a server and a key, or an address that is none.
    """
    server, key = (f"pipeline.model.guidance.{name}" for name in ("base_url", "key_variable"))
    if server in overrides:
        if overrides.get(key):
            raise InputError(
                f"the overrides {server} and {key} together would send a secret of this machine to a server that "
                "the specification chooses; remove one of them"
            )
        model.guidance = dataclasses.replace(model.guidance, key_variable="")


def _settings_of(target: Any) -> dict[str, Any]:
    if isinstance(target, dict):
        return target
    if dataclasses.is_dataclass(target):
        return {entry.name: getattr(target, entry.name) for entry in dataclasses.fields(target) if not entry.name.startswith("_")}
    return {}


def _hint(target: Any, name: str) -> Any:
    try:
        return get_type_hints(type(target)).get(name)
    except NameError:  # a class of nerfstudio's that names types for checkers alone
        return None


def _fitted(path: str, old: Any, hint: Any, value: Any) -> Any:
    """`value` as the setting takes it; what it is now and its annotation say which types do."""
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    if choices:
        if value not in choices:
            suggestion = nearest(str(value), [str(choice) for choice in choices])
            raise InputError(f"the override {path}: {value!r} is none of its values. {suggestion}")
        return value
    if dataclasses.is_dataclass(old) or isinstance(old, dict):
        raise InputError(f"the override {path} is a group of settings; name one: {', '.join(_settings_of(old))}")
    types = {bool: "true or false", int: "a whole number", float: "a number", str: "text", tuple: "a list", Path: "a path"}
    wanted = next((kind for kind in types if isinstance(old, kind)), None)
    if value is None and (old is None or type(None) in get_args(hint)):
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if wanted is None or (wanted in (bool, str) and isinstance(value, wanted)):
        return value
    if number and (wanted is float or (wanted is int and (isinstance(value, int) or float in get_args(hint)))):
        return value
    if wanted is tuple and isinstance(value, list):
        return tuple(value)
    if wanted is Path and isinstance(value, str):
        return Path(value)
    hint_of_numbers = " (YAML reads 1e-3 as text: write 1.0e-3)" if isinstance(value, str) and wanted in (int, float) else ""
    raise InputError(f"the override {path}: {value!r} does not fit; it is {old!r} now, so give {types[wanted]}{hint_of_numbers}")
