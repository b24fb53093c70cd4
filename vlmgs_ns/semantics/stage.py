"""The semantic stage: builds the semantic field of finished, frozen Gaussians from their photos.

Feature maps of the photos → features lifted to the Gaussians and smoothed → the field fitted to them → a few steps on rendered
maps; or only some of these, by `SemanticsConfig.mode`. All randomness comes from the seed and the step, so that a stopped stage
continues as if it had not been stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from vlmgs_ns.rasterize import rasterization
from vlmgs_ns.semantics.blend import CellView, blend_field, cell_means
from vlmgs_ns.semantics.cache import FeatureCache
from vlmgs_ns.semantics.config import SemanticsConfig
from vlmgs_ns.semantics.embedded import EMBEDDED, model_folder
from vlmgs_ns.semantics.encoders import DinoEncoder, OpenClipEncoder
from vlmgs_ns.semantics.features import FeatureMaps, Photos, feature_maps
from vlmgs_ns.semantics.field import SemanticField
from vlmgs_ns.semantics.hybrid import TILE_SIZES
from vlmgs_ns.semantics.lifting import FeatureView, Lifted, Projection, fit_field, lift_features, resized
from vlmgs_ns.semantics.losses import SemanticLoss, semantic_loss
from vlmgs_ns.semantics.scene_semantics import About, SceneSemantics
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.connect import Neighbours
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import Report, bar

CLIP, DINO = "ViT-B-16", "facebook/dino-vits8"
"""FMGS' encoders."""
TINY_SIDE = 240
"""Shorter side in pixels of the pictures that the embedded DINO was trained on."""
TINY_TILES = 2
"""Tile sizes of the embedded CLIP's map. It recognises what takes most of a tile's area, so that larger tiles only blur the map;
a CLIP trained on real photos recognises a handle's cup by them."""
VIEWS_KEPT = 1 << 30
"""Bytes up to which views of rendered steps are kept; others are made again for each step."""
LEAST_DIMS = 32
"""Least number of dimensions that lifted features are projected to."""
SCRATCH = 0.25
"""Share of `lift_memory` for the channels that are lifted, or smoothed, at once."""
BESIDE = 500
"""Bytes a Gaussian that lifting holds beside features: a rasterised view, which others each Gaussian touches."""
EDGE = 0.05
"""Distance of two Gaussians' colours, in RGB from 0 to 1, at which their features begin to keep apart."""


class Views(Photos, Protocol):
    """The photos that the stage learns from, with their cameras."""

    def camera(self, index: int) -> Pinhole:
        """At the photo's size."""

    def mask(self, index: int) -> Tensor | None:
        """Pixels that count [H, W] bool; None: all."""


@dataclass(frozen=True)
class Encoders:
    """The encoders of a stage."""

    clip: OpenClipEncoder
    dino: DinoEncoder
    clip_model: str
    """Name by which `SceneSemantics` finds the CLIP again."""
    message: str
    """One line that names them and the reason for the choice."""


def choose_encoders(config: SemanticsConfig) -> Encoders:
    """Return the configured encoders; for `auto` FMGS' where their weights are on this machine, else the embedded tiny ones.

    Raises:
        InputError: a model or device is not on this machine.
    """
    config.check()
    options: dict[str, Any] = {"device": config.device, "dtype": config.dtype}
    clip_model, dino_model = config.clip, config.dino
    if clip_model == "auto":
        clip_model = CLIP if _there(lambda: OpenClipEncoder(CLIP, config.clip_pretrained)) else EMBEDDED
    if dino_model == "auto":
        dino_model = DINO if _there(lambda: DinoEncoder(DINO)) else EMBEDDED
    tiles = TILE_SIZES if clip_model != EMBEDDED else TINY_TILES
    clip = OpenClipEncoder(model_folder(clip_model), config.clip_pretrained, tile_sizes=tiles, **options)
    side = config.dino_shorter_side if dino_model != EMBEDDED else min(config.dino_shorter_side, TINY_SIDE)
    dino = DinoEncoder(model_folder(dino_model, "dino"), shorter_side=side, **options)
    tiny = [name for name, model in (("CLIP", clip_model), ("DINO", dino_model)) if model == EMBEDDED]
    names = [f"{kind} {name}" for kind, name in (("OpenCLIP", clip.name), ("DINO", dino.name)) if kind[-4:] not in tiny]
    if tiny:
        names.append(f"the embedded tiny {' and '.join(tiny)}, which know the embedded scenes and no other")
    lacking = [
        name for name, model, configured in ((CLIP, clip_model, config.clip), (DINO, dino_model, config.dino))
        if configured == "auto" and model == EMBEDDED
    ]  # fmt: skip
    why = f" ({' and '.join(lacking)} not on this machine)" if lacking else ""
    return Encoders(clip, dino, clip_model, f"Semantics: {config.mode}, {', '.join(names)}{why}, on {clip.device}")


def _there(make: Callable[[], object]) -> bool:
    try:
        make()
    except InputError:
        return False
    return True


class _Stopped(Exception):
    """Raised where the stage shall stop."""


@dataclass
class Stage:
    """One scene's semantic stage; its inputs are not changed."""

    config: SemanticsConfig
    encoders: Encoders
    splats: Splats
    views: Views
    cache: FeatureCache
    centre: Tensor  # [3] world
    scale: float
    """Radius of the scene's inner part, world units."""
    phrases: Sequence[str] = ()
    """Phrases embedded and stored with the scene, so that it answers them without the encoder."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of each part."""
    _kept: dict[int, CellView] = field(default_factory=dict, init=False, repr=False)
    """Views of the rendered steps, on a CPU."""

    def __post_init__(self) -> None:
        self.splats = self.splats.detached()

    def about(self) -> About:
        """Return the settings and encoders that the scene is built with."""
        config, clip, dino = self.config, self.encoders.clip, self.encoders.dino
        sizes = replace(config.sizes, clip_dim=clip.dimension, dino_dim=dino.dimension)
        free = ("enabled", "device", "dtype", "negatives", "clip", "clip_pretrained", "dino")
        settings = {name: value for name, value in asdict(config).items() if name not in free}
        settings |= {"saw": [clip.fingerprint, dino.fingerprint], "tile sizes": clip.tile_sizes}
        settings |= {"photos": len(self.views), "Gaussians": digest(self.splats)}
        return About(
            config.mode, sizes, self.encoders.clip_model, config.clip_pretrained, clip.fingerprint, tuple(config.negatives),
            json.dumps(settings, sort_keys=True),
        )  # fmt: skip

    def begin(self, found: SceneSemantics | None = None) -> SceneSemantics:
        """Return the scene to run on: `found`, if it was built with the same settings from the same Gaussians and has trained at
        least a step; else a new one, the same each time."""
        about = self.about()
        if found is not None and found.about.settings == about.settings and (found.complete or found.step > 0):
            found.about = about
            return found
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.config.seed)
            return SceneSemantics(about, self.centre.cpu(), self.scale).to(self.splats.means.device)

    def run(self, scene: SceneSemantics, stop: Callable[[], bool] = lambda: False) -> bool:
        """Build what is missing from a scene of `begin`, with progress bars; return whether it is complete.

        Args:
            stop: called after every photo and step; once it returns True, this returns, and a later run continues from there.

        Raises:
            InputError: the scene has no Gaussians, no photo shows one, or the maps cannot be written.
        """
        if len(self.splats) == 0:
            raise InputError("the scene has no Gaussians to build semantics on; train it first")
        # Building the encoders draws random numbers; training that continues afterwards must not be affected.
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            return self._run(scene, stop)

    def _run(self, scene: SceneSemantics, stop: Callable[[], bool]) -> bool:
        scene.use(self.encoders.clip)
        if not scene.complete:
            try:
                maps = self._look(stop)
                if self.config.mode == "lift":
                    scene.keep_lifted(self._lift("clip", maps, stop))
                elif self.config.mode == "warm" and scene.step == 0:
                    self._fit(scene, maps, stop)
                self._train(scene, maps, stop)
            except _Stopped:
                return False
            scene.finish(self.splats)
        scene.embed([*self.phrases, *self.config.negatives])
        return True

    def _look(self, stop: Callable[[], bool]) -> FeatureMaps:
        dino = None if self.config.mode == "lift" else self.encoders.dino
        with self._part("Looking at photos", len(self.views), stop) as report:
            return feature_maps(self.views, self.encoders.clip, dino, self.cache, report)

    def _lift(self, kind: str, maps: FeatureMaps, stop: Callable[[], bool]) -> Lifted:
        """Lift CLIP or DINO features to all Gaussians, projected where `lift_memory` asks for it; CLIP's are smoothed."""
        config = self.config
        # It takes memory to make, and little to keep.
        smoothing = self._smoothing(stop) if kind == "clip" and config.smoothing else None
        channels = (self.encoders.clip if kind == "clip" else self.encoders.dino).dimension
        affordable, projection = self._affordable_dims(), None
        if affordable < channels:
            dims = min(channels, max(LEAST_DIMS, affordable))
            projection = Projection.fit((_map(maps, kind, index) for index in range(len(maps))), dims)
        passes = 1 + (config.gate > 0) + config.robust_passes
        scratch = SCRATCH * config.lift_memory * 1e9
        with self._part(f"Lifting {kind.upper()} features", passes * len(self.views), stop) as report:
            lifted = lift_features(
                lambda: self._feature_views(lambda index: _map(maps, kind, index)), projection=projection, gate=config.gate,
                robust_passes=config.robust_passes, scratch=scratch, progress=report,
            )  # fmt: skip
        if not bool(lifted.seen.any()):
            raise InputError(
                f"none of {len(self.splats)} Gaussians is in any of {len(self.views)} photos: do they belong to them, and "
                "are they in their coordinates? (--load-ply-frame)"
            )
        if smoothing is not None:
            for part in lifted.features.split(max(1, int(scratch / (12 * len(self.splats)))), dim=1):
                mean = part.cpu().numpy()
                for _ in range(config.smoothing):
                    mean = smoothing @ mean
                part.copy_(torch.from_numpy(mean)).mul_(lifted.seen[:, None])
        return lifted

    def _affordable_dims(self) -> int:
        """Return the dimensions of lifted features that fit into `lift_memory`."""
        config = self.config
        # Lifted ones are kept in half precision at last; CLIP's wait for DINO's to be fitted along.
        bytes_a_dim = 6 if config.mode == "lift" else 8
        if config.robust_passes:
            bytes_a_dim += 24
        return int((config.lift_memory * 1e9 * (1 - SCRATCH) / len(self.splats) - BESIDE) / bytes_a_dim)

    def _smoothing(self, stop: Callable[[], bool]) -> csr_matrix:  # [N, N]
        """Return means over touching Gaussians of one colour: tiles blur what a map says of a place, and photos do not."""
        with self._part("Lifting colours", len(self.views), stop) as report:
            colors = lift_features(lambda: self._feature_views(self._photo), progress=report)
        return Neighbours(self.splats).bilateral(self.splats.opacities * colors.seen, colors.features, EDGE)

    def _feature_views(self, feature_map: Callable[[int], Tensor]) -> Iterator[FeatureView]:
        ones = self.splats.means.new_ones(len(self.splats), 1)
        for index in range(len(self.views)):
            camera = self.views.camera(index)
            _, _, info = rasterization(
                self.splats.means, self.splats.quats, self.splats.scales, self.splats.opacities, ones,
                camera.viewmat[None], camera.K[None], camera.width, camera.height,
            )  # fmt: skip
            yield FeatureView(info, feature_map(index), self.views.mask(index))

    def _photo(self, index: int) -> Tensor:  # [H, W, 3] in [0, 1]
        photo = torch.as_tensor(self.views.photo(index))
        return photo.float() / 255 if photo.dtype == torch.uint8 else photo

    def _fit(self, scene: SceneSemantics, maps: FeatureMaps, stop: Callable[[], bool]) -> None:
        """Fit the field to lifted features: the warm start."""
        clip, dino = self._lift("clip", maps, stop), self._lift("dino", maps, stop)
        config = self.config
        assert scene.field is not None
        with self._part("Fitting the field", config.warm_steps, stop) as report:
            fit_field(
                scene.field, self.splats.means, clip, dino, steps=config.warm_steps, batch=config.warm_batch, lr=config.short_lr,
                final_lr=config.final_lr, generator=torch.Generator().manual_seed(config.seed), progress=report,
            )  # fmt: skip

    def _train(self, scene: SceneSemantics, maps: FeatureMaps, stop: Callable[[], bool]) -> None:
        """Train on rendered maps, one photo a step."""
        total, unaligned = self.config.rendered_steps()
        if scene.field is None or total == 0:
            return
        # RAdam takes a tenth of its rate at first and a third after two hundred steps: too little for few of them.
        optimise = torch.optim.RAdam if self.config.many_steps() else torch.optim.Adam
        optimizer = optimise(scene.field.parameters(), lr=self.config.lr, eps=1e-15, weight_decay=1e-9)
        if scene.moments is not None:
            optimizer.load_state_dict(scene.moments)
        try:
            with self._part("Training the field on renders", total, stop) as report:
                for step in range(scene.step, total):
                    for group in optimizer.param_groups:
                        group["lr"] = self._rate(step, total)
                    optimizer.zero_grad()
                    loss = self._loss(scene, maps, step, aligned=step >= unaligned)
                    loss.total.backward()  # type: ignore[no-untyped-call]
                    torch.nn.utils.clip_grad_norm_(scene.field.parameters(), 1.0)
                    optimizer.step()
                    scene.step = step + 1
                    scene.moments = optimizer.state_dict()
                    report(step + 1, f"loss {float(loss.total.detach()):.4f}")
        finally:
            optimizer.zero_grad()
            self._kept.clear()

    def _rate(self, step: int, total: int) -> float:
        config = self.config
        first, last = config.lr if config.many_steps() else config.short_lr, config.final_lr
        return first * (last / first) ** (step / max(1, total - 1))

    def _loss(self, scene: SceneSemantics, maps: FeatureMaps, step: int, aligned: bool) -> SemanticLoss:
        epoch, turn = divmod(step, len(self.views))
        order = torch.randperm(len(self.views), generator=torch.Generator().manual_seed(self.config.seed + epoch))
        index = int(order[turn])
        full = self.views.camera(index)
        factor = min(0.5, self.config.render_size / max(full.width, full.height))
        camera = full.resized(max(1, round(full.width * factor)), max(1, round(full.height * factor)))
        assert scene.field is not None
        dino_target = _map(maps, "dino", index).to(self.splats.means)
        grid = dino_target.shape[0], dino_target.shape[1]
        clip_target = resized(_map(maps, "clip", index).to(dino_target), grid)
        clip, dino = self._render(scene.field, index, camera, grid)
        mask = self.views.mask(index)
        if mask is not None:
            mask = cell_means(mask[..., None].to(dino_target), grid)[..., 0] > 0.5
        weights = self.config.weights if aligned else replace(self.config.weights, alignment=0.0)
        return semantic_loss(clip, clip_target, dino, dino_target, mask, weights)

    def _render(self, field: SemanticField, index: int, camera: Pinhole, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        if self.splats.means.is_cuda:
            return blend_field(field, self.splats, camera, grid)
        view = self._kept.get(index)
        if view is None:
            view = CellView.of(self.splats, camera, grid)
            if sum(kept.nbytes for kept in self._kept.values()) + view.nbytes <= VIEWS_KEPT:
                self._kept[index] = view
        return view.maps(field, self.splats.means)

    @contextmanager
    def _part(self, label: str, total: int, stop: Callable[[], bool]) -> Iterator[Report]:
        """Show a progress bar at which the stage can be stopped, and record the seconds."""
        start = time.monotonic()
        with bar(label, total) as shown:

            def report(done: int, note: str = "") -> None:
                shown(done, note)
                if stop():
                    raise _Stopped

            yield report
        self.seconds[label] = round(time.monotonic() - start, 2)


def digest(splats: Splats) -> str:
    """Return a hash of every bit of the Gaussians."""
    found = hashlib.blake2b(digest_size=8)
    for values in (splats.means, splats.quats, splats.scales, splats.opacities):
        found.update(values.detach().contiguous().cpu().numpy().data)
    return found.hexdigest()


def _map(maps: FeatureMaps, kind: str, index: int) -> Tensor:  # [h, w, D] float32
    return torch.as_tensor(getattr(maps[index], kind)).float()
