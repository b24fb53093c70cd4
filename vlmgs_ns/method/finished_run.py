"""A finished run, opened for evaluation, queries and export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmgs_ns.system.errors import InputError

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras

    from vlmgs_ns.method.model import VlmFastGSModel


@dataclass(frozen=True)
class OpenRun:
    """A run with its checkpoint loaded, ready to render."""

    config: Path
    """Its config.yml."""
    pipeline: Any

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.config.parent

    @property
    def model(self) -> VlmFastGSModel:
        """The model, in evaluation mode."""
        model: VlmFastGSModel = self.pipeline.model
        return model

    @property
    def data(self) -> Path:
        """The folder of the scene that it was trained on."""
        path = Path(self.pipeline.datamanager.get_datapath())
        return path if path.is_dir() else path.parent

    def photos(self) -> Iterator[tuple[Path, Cameras]]:
        """Yield every photo's file with its camera, training views first, then held-out views."""
        for dataset in (self.pipeline.datamanager.train_dataset, self.pipeline.datamanager.eval_dataset):
            for index, file in enumerate(dataset.image_filenames):
                yield file, dataset.cameras[index : index + 1]


def find_config(run: Path) -> Path:
    """Return the config.yml of a run, given by its folder or by that file.

    Raises:
        InputError: the file does not exist.
    """
    config = run / "config.yml" if run.is_dir() else run
    if not config.is_file() or config.suffix != ".yml":
        raise InputError(f"there is no run at {run}: give the folder with the config.yml that ns-train printed")
    return config


def open_run(run: Path) -> OpenRun:
    """Load the last checkpoint of a run.

    Args:
        run: its folder or its config.yml.

    Raises:
        InputError: the folder is not a run, has no checkpoint, or is of another method.
    """
    config = find_config(run)
    if not any((config.parent / "nerfstudio_models").glob("step-*.ckpt")):
        raise InputError(f"{config.parent} has no checkpoint in nerfstudio_models; train it with ns-train vlm-fastgs")
    from nerfstudio.utils.eval_utils import eval_setup

    from vlmgs_ns.method.pipeline import VlmFastGSPipeline

    _, pipeline, _, _ = eval_setup(config)
    if not isinstance(pipeline, VlmFastGSPipeline):
        raise InputError(f"{config} is not a run of vlm-fastgs; train its scene with ns-train vlm-fastgs (or --load-dir)")
    return OpenRun(config, pipeline)
