"""A finished run, opened for evaluation, queries and export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmgs_ns.method.run_config import read_config
from vlmgs_ns.semantics.embedded import caution
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import say

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

    @property
    def caution(self) -> str:
        """A line for a scene that its encoder does not know, where words find noise (`semantics.embedded.caution`), else ""."""
        semantics = self.model.semantics
        return "" if semantics is None else caution(semantics.about.clip, self.data, self.folder)

    @property
    def training_photos(self) -> list[Path]:
        """Files of the photos that it was trained on."""
        files: list[Path] = self.pipeline.datamanager.train_dataset.image_filenames
        return files

    def photos(self) -> Iterator[tuple[Path, Cameras]]:
        """Yield every photo's file with its camera, training views first, then held-out views."""
        for dataset in (self.pipeline.datamanager.train_dataset, self.pipeline.datamanager.eval_dataset):
            for index, file in enumerate(dataset.image_filenames):
                yield file, dataset.cameras[index : index + 1]


def find_config(run: Path) -> Path:
    """Return the config.yml of a run, given by its folder, by that file, or by its scene: then of the scene's newest run.

    A scene is the folder that was trained on, or the one that nerfstudio keeps its runs in, such as outputs/room.

    Raises:
        InputError: there is none.
    """
    config = run / "config.yml" if run.is_dir() else run
    if config.is_file() and config.suffix == ".yml":
        return config
    name = run.resolve().stem
    for runs in (run, Path("outputs") / name, run.resolve().parent / "outputs" / name) if run.is_dir() else ():
        found = [file for depth in ("*", "*/*") for file in runs.glob(f"{depth}/config.yml") if has_checkpoint(file.parent)]
        if found:
            newest = max(found, key=lambda file: file.stat().st_mtime)
            say(f"{run} is no run but a scene; opening its newest run, {newest.parent}")
            return newest
    raise InputError(f"there is no run at {run}: give the folder with the config.yml that ns-train printed")


def has_checkpoint(folder: Path) -> bool:
    """Whether a run's folder holds a checkpoint."""
    return any((folder / "nerfstudio_models").glob("step-*.ckpt"))


def open_run(run: Path) -> OpenRun:
    """Load the last checkpoint of a run.

    Args:
        run: as `find_config` takes it; its checkpoint is the one beside its config.yml, wherever the run was trained.

    Raises:
        InputError: the folder is not a run, has no checkpoint, or is of another method.
    """
    config = find_config(run)
    if not has_checkpoint(config.parent):
        raise InputError(f"{config.parent} has no checkpoint in nerfstudio_models; train it with ns-train vlm-fastgs")
    import torch

    from vlmgs_ns.method import checkpoint
    from vlmgs_ns.method.terminal import hushed

    settings = read_config(config)
    settings.run_folder = config.parent
    folder = settings.get_checkpoint_dir()
    with hushed():
        pipeline: Any = settings.pipeline.setup(device="cuda" if torch.cuda.is_available() else "cpu", test_mode="test")
    pipeline.eval()
    state = checkpoint.load(checkpoint.newest(folder))
    pipeline.load_pipeline(state["pipeline"], state["step"])
    return OpenRun(config, pipeline)
