"""``vlmgs features``: look at a scene's photos ahead of training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vlmgs_ns.system.errors import InputError

if TYPE_CHECKING:
    from vlmgs_ns.bench.extract import Photos


@dataclass
class Features:
    """Make the CLIP and DINO feature maps of a scene ahead of training, on this machine or on a Ray cluster; those that are
    there are not made again. `vlmgs cache` lists and removes them."""

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Folder of the scene, as given to ns-train --data."""
    method: Literal["vlm-fastgs", "vlm-fastgs-big", "vlm-fastgs-cpu", "vlm-fastgs-lite"] = "vlm-fastgs"
    """The method that will be trained: maps are of photos at its size, by its encoders."""
    max_image_size: int | None = None
    """Longest side of a photo in pixels, as --pipeline.datamanager.max-image-size; by default the method's."""
    mode: Literal["warm", "fmgs", "lift"] | None = None
    """As --pipeline.model.semantics.mode: lift needs no DINO maps; by default the method's."""
    clip: str | None = None
    """As --pipeline.model.semantics.clip; by default the method's."""
    dino: str | None = None
    """As --pipeline.model.semantics.dino; by default the method's."""
    executor: Literal["local", "ray"] = "local"
    """Where maps are made: here, or on a Ray cluster (pip install "vlmgs-ns[cluster]") that sees DATA at the same path."""
    address: str | None = None
    """ray: the cluster, as ray.init takes it (auto, or HOST:PORT); by default one is started on this machine."""
    jobs: int = 1
    """ray without --address: worker processes of the cluster it starts."""
    batch: int = 16
    """ray: photos of a task."""

    def run(self) -> None:
        """Do it."""
        from vlmgs_ns.system.progress import say

        if self.batch < 1 or self.jobs < 1:
            raise InputError(f"--batch {self.batch}, --jobs {self.jobs}: give 1 or more")
        if self.max_image_size is not None and self.max_image_size < 0:
            raise InputError(f"--max-image-size {self.max_image_size} is not a size; give 0 for full size, or more")
        if self.address is not None and self.executor != "ray":
            raise InputError(f"--address {self.address} is a Ray cluster's; add --executor ray")
        from vlmgs_ns.bench.extract import Photos, look, maps_there

        before = maps_there(self.data)
        names = ("method", "max_image_size", "mode", "clip", "dino")
        photos = Photos(str(self.data.resolve()), **{name: getattr(self, name) for name in names})
        total = self._with_ray(photos) if self.executor == "ray" else look(photos)
        after = maps_there(self.data)
        made = {key: there - before.get(key, 0) for key, there in after.items() if there > before.get(key, 0)}
        for key, number in made.items():
            say(f"  {number} new: {key}")
        say(f"{total} photos have their feature maps" + ("" if made else "; nothing was left to do"))

    def _with_ray(self, photos: Photos) -> int:
        from dataclasses import replace

        from vlmgs_ns.bench.extract import count, look
        from vlmgs_ns.bench.ray_executor import RayExecutor
        from vlmgs_ns.system.progress import bar

        executor = RayExecutor(self.address, self.jobs)
        try:
            ((_, counted),) = executor.execute(count, [photos], lambda index, done: None, alone=False)
            if counted.error:
                raise InputError(counted.error)
            starts = range(0, counted.value, self.batch)
            parts = [replace(photos, first=first, last=first + self.batch) for first in starts]
            done = 0
            with bar("Looking at photos", counted.value) as report:
                for _, outcome in executor.execute(look, parts, lambda index, done: None, alone=False):
                    if outcome.error:
                        raise InputError(outcome.error)
                    done += outcome.value
                    report(done)
        finally:
            executor.close()
        return done
