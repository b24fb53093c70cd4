"""nerfstudio's trainer, with clean stops and exact continuation on any machine."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
import tyro
from nerfstudio.configs.base_config import LocalWriterConfig, LoggingConfig, MachineConfig, ViewerConfig
from nerfstudio.engine.callbacks import TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import TRAIN_INTERATION_OUTPUT, Trainer, TrainerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.utils import writer
from nerfstudio.utils.decorators import check_main_thread

from vlmgs_ns.method import checkpoint, machine
from vlmgs_ns.method.optimizers import LazyUpdates, resolve_schedulers
from vlmgs_ns.method.photo_views import PhotoViews
from vlmgs_ns.method.pipeline import VlmFastGSPipelineConfig
from vlmgs_ns.method.ply_frame import choose_frame
from vlmgs_ns.method.terminal import TrainingLine, ending, hushed
from vlmgs_ns.semantics.embedded import things_in
from vlmgs_ns.splats.coordinates import moved
from vlmgs_ns.splats.ply import read_ply
from vlmgs_ns.system.atomic import replacing, sweep
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.folders import check_folder
from vlmgs_ns.system.progress import say
from vlmgs_ns.system.schedules import resolve

PLY_STEP = 29_999
"""The last step of the run that a .ply is taken to come from: 3DGS' own."""


@dataclass
class VlmFastGSTrainerConfig(TrainerConfig):
    """Configuration of a training run."""

    _target: type = field(default_factory=lambda: VlmFastGSTrainer)
    machine: MachineConfig = field(default_factory=lambda: MachineConfig(device_type=machine.default_device()))
    """Device and seed."""
    logging: LoggingConfig = field(
        default_factory=lambda: LoggingConfig(local_writer=LocalWriterConfig(enable=False), profiler="none")
    )
    """What nerfstudio logs; its table in the terminal is off, as a line of ours follows training."""
    viewer: ViewerConfig = field(default_factory=lambda: ViewerConfig(websocket_host="127.0.0.1"))
    """The viewer; only this machine can reach it unless the host is changed."""
    pipeline: VanillaPipelineConfig = field(default_factory=VlmFastGSPipelineConfig)
    """Photos and model."""
    lazy_updates: LazyUpdates = field(default_factory=LazyUpdates)
    """Schedule of the updates of the Gaussians' parameters."""
    load_ply: Path | None = None
    """A 3DGS .ply to start from instead of the scene's points, as a finished run of 30,000 iterations. With
    --max-num-iterations 0 only the semantic stage runs, which makes an existing scene searchable."""
    load_ply_frame: Literal["auto", "data", "nerfstudio"] = "auto"
    """Coordinates of --load-ply: data, those of the data set's own poses (COLMAP, transforms.json), as 3DGS and gsplat write;
    nerfstudio, those that nerfstudio trains in, as ns-export writes; auto, those in which it looks like the photos."""

    run_folder: tyro.conf.Suppress[Path | None] = None
    """Where a run lies that was copied or renamed after it was trained; None: where the settings above say."""

    def print_to_terminal(self) -> None:
        """Say what begins, and where all of its settings are to be read."""
        data = self.pipeline.datamanager.data  # type: ignore[attr-defined]
        folder = self.get_base_dir()
        say(f"{self.method_name}: {self.max_num_iterations:,} iterations on {data}\nSettings: {folder / 'config.yml'}")

    def save_config(self) -> None:
        """Write config.yml."""
        check_folder(self.get_base_dir())
        with hushed():
            super().save_config()

    def get_base_dir(self) -> Path:
        """Return the run's folder: the one that its config.yml was read from, else the one that the settings name."""
        self.run_folder = self.run_folder or loaded_from(sys.argv)
        return self.run_folder or super().get_base_dir()

    def get_checkpoint_dir(self) -> Path:
        """Return the run's checkpoint folder, and pass it to the pipeline, which nerfstudio's other commands do not."""
        trained_in, opened = super().get_base_dir(), self.get_base_dir()
        if opened.resolve().parts[-len(trained_in.parts) :] != trained_in.parts:
            say(f"This run was trained in {trained_in} and is opened in {opened}: all is read and written here")
        folder = super().get_checkpoint_dir()
        if isinstance(self.pipeline, VlmFastGSPipelineConfig):
            self.pipeline.checkpoint_dir = folder
        return folder


def loaded_from(command: Sequence[str]) -> Path | None:
    """Return the folder of ``--load-config``, which a command of nerfstudio's reads a run from without telling it where; None
    where there is none, or a new run begins (ns-train)."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--load-config", "--load_config", type=Path)
    config: Path | None = parser.parse_known_args(command[1:])[0].load_config
    return None if config is None or Path(command[0]).name == "ns-train" else config.parent


class VlmFastGSTrainer(Trainer):
    """Trains; writes whole checkpoints; stops between steps on Ctrl-C; continues bit for bit with ``--load-dir``."""

    config: VlmFastGSTrainerConfig

    def __init__(self, config: VlmFastGSTrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        machine.check_device(config.machine.device_type)
        sources = [config.load_dir, config.load_checkpoint, config.load_ply]
        if config.load_ply is not None and sources.count(None) < 2:
            raise InputError("--load-ply and --load-dir or --load-checkpoint both say where to start; give one of them")
        if config.max_num_iterations == 0 and sources.count(None) == 3:
            raise InputError(
                "--max-num-iterations 0 trains nothing, so the run needs Gaussians to start from; give --load-dir, "
                "--load-checkpoint or --load-ply, or 1 iteration or more"
            )
        if config.max_num_iterations < 0:
            raise InputError(f"--max-num-iterations {config.max_num_iterations} trains nothing; give 0 or more")
        with hushed():
            super().__init__(config, local_rank, world_size)
        self._resumed: dict[str, Any] | None = None
        self._last_trained: int | None = None
        self._stopped_by: int | None = None
        self._line: TrainingLine | None = None

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Read the checkpoint to continue from, if any, set the run's length, and build pipeline and optimisers."""
        path = self._path_to_resume()
        if path is not None and (path.parent.parent / "config.yml").is_file():
            sweep(path.parent.parent)
        self._resumed = None if path is None else checkpoint.load(path)
        if self.config.load_ply is not None:
            self._ply = read_ply(self.config.load_ply)
            self._resumed = {"step": PLY_STEP, "optimizers": {}, "schedulers": {}, "scalers": self.grad_scaler.state_dict()}
        model: Any = self.config.pipeline.model
        model.run_length = self._run_length(model.run_length)
        if self.config.max_num_iterations == 0:
            self.config.logging.local_writer.enable = False  # its table divides by the number of iterations
        with hushed():
            super().setup(test_mode)
        place = self.pipeline.datamanager.cache_place()  # type: ignore[attr-defined, operator]
        if self.local_rank == 0:
            machine.announce(machine.describe(self.device, place, self.pipeline.guidance), self.base_dir)  # type: ignore[arg-type]
            if hint := machine.hint_for_cpu(self.device, model.run_length, self.config.pipeline.datamanager.max_image_size):  # type: ignore[attr-defined]
                say(hint, "yellow")
            if self.pipeline.encoders is not None:
                say(str(self.pipeline.encoders.message))  # type: ignore[union-attr]

    def setup_optimizers(self) -> Optimizers:
        """Return optimisers over the model's present parameters, their schedules in iterations of this run."""
        run_length: int = self.config.pipeline.model.run_length  # type: ignore[attr-defined]
        optimizers = resolve_schedulers(self.config.optimizers, run_length)
        self._lazy_updates = resolve(self.config.lazy_updates, run_length)
        return Optimizers(optimizers, self.pipeline.get_param_groups())

    def train(self) -> None:
        """Train; Ctrl-C (or SIGTERM) ends the run after the current step with a checkpoint, a second one at once.

        Raises:
            SystemExit: with status 128 + signal number, after a run that was stopped.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()
        signals = (signal.SIGINT, signal.SIGTERM) if in_main_thread else ()
        self._previous_handlers = {number: signal.signal(number, self._stop) for number in signals}
        self._began = time.monotonic()
        self._line = TrainingLine(self.config.max_num_iterations)
        try:
            super().train()
        except KeyboardInterrupt:
            if self.training_state != "completed":
                say("Stopped in the middle of a step; nothing of it was saved", "yellow")
                raise SystemExit(128 + signal.SIGINT) from None
        finally:
            self._close_line()
            self._restore_handlers()
            if self.pipeline.model.steering is not None:
                self.pipeline.model.steering.close()  # type: ignore[operator, union-attr]
        if self._stopped_by is not None:
            raise SystemExit(128 + self._stopped_by)

    def train_iteration(self, step: int) -> TRAIN_INTERATION_OUTPUT:
        """Train one step, and update the parameters that are due."""
        if self.pipeline.model.semantics is not None:
            say("Training changes the Gaussians: the semantic field is built again after the last iteration")
            self.pipeline.model.semantics = None
        births_end = int(self.pipeline.model.config.stop_split_at)  # type: ignore[attr-defined]
        for group in self.pipeline.get_param_groups():
            if group not in self.config.gradient_accumulation_steps:
                self.gradient_accumulation_steps[group] = self._lazy_updates.interval(group, step, births_end)
        result = super().train_iteration(step)
        self._last_trained = step
        if self._line is not None:
            self._line.step(result[0], result[2], len(self.pipeline.model.gauss_params["means"]))  # type: ignore[arg-type, index]
        return result

    @check_main_thread
    def save_checkpoint(self, step: int) -> None:
        """Write the checkpoint of a step atomically, and then remove older ones where the config says so.

        Beside nerfstudio's entries it holds under ``vlmgs``: the run's length, the random generators, the order of cameras, and
        gradients that are still being accumulated. Where it cannot be written, training goes on; for the last one it is an error.
        """
        path = checkpoint.path_of(self.checkpoint_dir, step)
        state = {
            "step": step,
            "pipeline": self.pipeline.state_dict(),
            "optimizers": {name: part.state_dict() for name, part in self.optimizers.optimizers.items()},
            "schedulers": {name: part.state_dict() for name, part in self.optimizers.schedulers.items()},
            "scalers": self.grad_scaler.state_dict(),
            "vlmgs": {
                "run_length": self.pipeline.model.run_length,
                "random": checkpoint.random_state(),
                "cameras": self.pipeline.datamanager.get_state(),  # type: ignore[attr-defined, operator]
                "gradients": self._accumulated_gradients(),
            },
        }
        try:
            checkpoint.save(state, path)
        except InputError as error:
            if self.training_state == "completed":  # nothing comes after it
                raise
            say(f"{error}; training goes on", "yellow")
            return
        if self.config.save_only_latest_checkpoint:
            for other in self.checkpoint_dir.glob("*.ckpt"):
                if other != path:
                    other.unlink()

    def _accumulated_gradients(self) -> dict[str, list[torch.Tensor | None]]:
        return {
            name: [parameter.grad for parameter in parameters]
            for name, parameters in self.pipeline.get_param_groups().items()
            if self.gradient_accumulation_steps[name] > 1
        }

    def _path_to_resume(self) -> Path | None:
        if self.config.load_dir is not None:
            if self.config.load_step is not None:
                return checkpoint.path_of(self.config.load_dir, self.config.load_step)
            return checkpoint.newest(self.config.load_dir)
        return self.config.load_checkpoint

    def _run_length(self, configured: int) -> int:
        """Return the iterations that fractions of the run refer to: as configured, else the checkpoint's, else this run's."""
        if configured > 0:
            return configured
        if self._resumed is None:
            return self.config.max_num_iterations
        ours = self._resumed.get("vlmgs")
        return ours["run_length"] if ours else self._resumed["step"] + 1 + self.config.max_num_iterations

    def _load_checkpoint(self) -> None:
        """Restore the state of the checkpoint that ``setup`` read; without one, begin with what the photos show if asked to."""
        state, self._resumed = self._resumed, None
        self._random_state = None
        if state is None:
            if self.pipeline.seed_from_photos():  # type: ignore[operator]
                self.optimizers = self.setup_optimizers()
            return
        self._start_step = state["step"] + 1
        if self.config.load_ply is not None:
            state["pipeline"] = self._pipeline_of_ply()
        self.pipeline.load_pipeline(state["pipeline"], state["step"])
        # Loading gave the model new parameters of other sizes: the optimisers must hold those.
        self.optimizers = self.setup_optimizers()
        self.optimizers.load_optimizers(state["optimizers"])
        if self.config.load_scheduler:
            self.optimizers.load_schedulers(state.get("schedulers", {}))
        self.grad_scaler.load_state_dict(state["scalers"])
        ours = state.get("vlmgs")
        if ours is not None:
            self.pipeline.datamanager.set_state(ours["cameras"])  # type: ignore[attr-defined, operator]
            self._random_state = ours["random"]
            groups = self.pipeline.get_param_groups()
            for name, gradients in ours["gradients"].items():
                for parameter, gradient in zip(groups.get(name, []), gradients, strict=False):
                    parameter.grad = None if gradient is None else gradient.to(parameter.device)
        say(f"Continuing from step {state['step']} of {self.config.load_ply or self._path_to_resume()}")

    def _pipeline_of_ply(self) -> dict[str, torch.Tensor]:
        """Return the Gaussians of --load-ply as a checkpoint, in the coordinates and with the harmonics of this run."""
        model: Any = self.pipeline.model
        if model.config.sh_degree == 0:
            raise InputError("--pipeline.model.sh-degree 0 has no harmonics, but --load-ply brings them; give 1, 2 or 3")
        scene: Any = self.pipeline.datamanager.train_dataparser_outputs  # type: ignore[attr-defined]
        transform = scene.dataparser_transform.cpu()
        in_data = moved(self._ply, transform[:, :3], transform[:, 3], float(scene.dataparser_scale))
        placed = {"data": in_data, "nerfstudio": self._ply}
        if self.config.load_ply_frame == "auto":
            views = PhotoViews(model, model.training_views)
            gaussians = choose_frame(placed, views, Path(str(self.config.load_ply)))
        else:
            gaussians = placed[self.config.load_ply_frame]
        state = {f"_model.gauss_params.{name}": values for name, values in vars(gaussians).items()}
        wanted = model.gauss_params["features_rest"].shape[1]
        rest = gaussians.features_rest[:, :wanted]
        state["_model.gauss_params.features_rest"] = torch.nn.functional.pad(rest, (0, 0, 0, wanted - rest.shape[1]))
        return state

    def _init_viewer_state(self) -> None:
        """Start the viewer, where there is one; the last call before the first step."""
        super()._init_viewer_state()
        if self._random_state is not None:
            checkpoint.restore_random_state(self._random_state)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._stopped_by is not None:
            raise KeyboardInterrupt
        self._stopped_by = number
        self.stop_training = True
        say("Stopping after this step, with a checkpoint; press Ctrl-C again to stop without one", "yellow")

    def _close_line(self) -> None:
        if self._line is not None:
            self._line.close()

    def _restore_handlers(self) -> None:
        while self._previous_handlers:
            number, handler = self._previous_handlers.popitem()
            signal.signal(number, handler)

    def _after_train(self) -> None:
        """Build the semantics and save the last trained step; say what was written, and how to go on."""
        self._close_line()
        trained_in = time.monotonic() - self._began
        if self.config.max_num_iterations == 0:
            self._last_trained = self._start_step - 1
        if self._last_trained is None:
            say("Stopped before the first step: nothing to save", "yellow")
            return
        # nerfstudio's loop has by then begun to count the step that it did not take.
        self.step = self._last_trained
        if self._stopped_by is None:
            self._build_semantics()
        self.training_state = "completed"
        self.save_checkpoint(self.step)
        writer.write_out_storage()
        if self._stopped_by is None:
            self._say_what_was_trained(trained_in)
            for callback in self.callbacks:
                callback.run_callback_at_location(step=self.step, location=TrainingCallbackLocation.AFTER_TRAIN)
            if not self.config.viewer.quit_on_train_completion:
                self._train_complete_viewer()
            return
        left = self._start_step + self.config.max_num_iterations - self.step - 1
        data = self.pipeline.datamanager.get_datapath()
        resume = [
            *("ns-train", str(self.config.method_name), "--data", str(data), "--load-dir", str(self.checkpoint_dir)),
            *("--max-num-iterations", str(left)),
        ]
        say(
            f"Stopped after step {self.step}; {left} iterations were left.\n"
            f"Wrote {checkpoint.path_of(self.checkpoint_dir, self.step)}\n"
            f"Go on with (and the other options of this run):\n  {shlex.join(resume)}\n"
            f"Look at it with:\n  ns-viewer --load-config {shlex.quote(str(self.base_dir / 'config.yml'))} "
            "--viewer.websocket-host 127.0.0.1"
        )

    @check_main_thread
    def _say_what_was_trained(self, seconds: float) -> None:
        model: Any = self.pipeline.model
        has_photos = len(self.pipeline.datamanager.eval_dataset) > 0  # type: ignore[arg-type]
        measured = self.pipeline.get_average_eval_image_metrics(step=self.step) if has_photos else {}
        phrases = None if model.semantics is None else [*model.prompts, *things_in(self.pipeline.datamanager.get_datapath())]
        say(ending(self.base_dir / "config.yml", seconds, len(model.gauss_params["means"]), measured, phrases))

    @check_main_thread
    def _build_semantics(self) -> None:
        """Run the semantic stage on the finished Gaussians, which it does not change."""
        model: Any = self.pipeline.model
        if self.pipeline.encoders is None:
            return
        start = time.monotonic()
        stage = self.pipeline.semantic_stage()  # type: ignore[operator]
        scene = stage.begin(model.semantics)
        if scene.complete:
            say("The scene's semantics are already built with these settings")
        else:
            # Whatever happens from here on, the Gaussians are safe.
            self.save_checkpoint(self.step)
        model.semantics = scene
        if not stage.run(scene, lambda: self._stopped_by is not None):
            return
        say(f"Semantics built in {time.monotonic() - start:.0f} s: {scene.size()}")
        report = {"encoders": self.pipeline.encoders.message, "seconds": stage.seconds, **vars(scene.about)}  # type: ignore[union-attr]
        with replacing(self.base_dir / "semantics.json") as partial:
            partial.write_text(json.dumps(report, indent=2, default=vars) + "\n", encoding="utf-8")

    def _train_complete_viewer(self) -> None:
        """Keep the viewer up after training, until Ctrl-C."""
        self._restore_handlers()
        if self.viewer_state is not None:
            say("The viewer stays open; Ctrl-C ends it")
        super()._train_complete_viewer()
