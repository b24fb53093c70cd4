"""How well one click selects a thing: IoU of its silhouette with the mask that was clicked, and seconds a click takes.

    python benchmarks/clicks.py RUN MASKS [--views 6] [--gaussians 1000000]

MASKS holds a picture for each photo: 0 where nothing is labelled, else the number of a thing. In some views each thing of 0.3 %
of the picture or more is clicked twice: at the point farthest from its outline, and at a place drawn from its inner part. The
silhouette is taken in the view that was clicked. Seconds are of the first click in a scene, and of a click after others. With
--gaussians the scene stands beside itself up to that many times, with its features where they are lifted, for timing.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from vlmgs_ns.method.finished_run import open_run
from vlmgs_ns.semantics.blend import blend
from vlmgs_ns.splats.connect import Neighbours
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.words.thing import Looks, under

LEAST = 0.003
"""Share of the picture from which a thing is clicked."""


def places(mask: np.ndarray, draw: np.random.Generator) -> list[tuple[int, int]]:  # [H, W] bool
    """Return the places x, y where a thing is clicked."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    middle = np.unravel_index(depth.argmax(), depth.shape)
    inner = np.argwhere(depth > 0.4 * depth.max())
    return [(int(x), int(y)) for y, x in (middle, inner[draw.integers(len(inner))])]


def repeated(splats: Splats, count: int) -> Splats:
    """Return copies beside one another, `count` Gaussians in all."""
    many, extent = splats[torch.arange(count) % len(splats)], splats.means.amax(dim=0) - splats.means.amin(dim=0)
    shift = (torch.arange(count) // len(splats))[:, None] * extent * torch.tensor([1.0, 0.0, 0.0])
    return Splats(many.means + shift, many.quats, many.scales, many.opacities)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("masks", type=Path)
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--gaussians", type=int, default=0)
    parser.add_argument("--colours-alone", action="store_true", help="leave out the scene's features")
    args = parser.parse_args()
    run, draw = open_run(args.run), np.random.default_rng(0)
    model = run.model
    splats, colours = model.splats(), model.colors.detach()
    semantics = None if args.colours_alone else model.semantics
    if args.gaussians:
        of = torch.arange(args.gaussians) % len(splats)
        splats, colours = repeated(splats, args.gaussians), colours[of]
        if semantics is not None and semantics.field is not None:
            semantics = None
        elif semantics is not None:
            semantics.features = semantics.features[of]
    looks = Looks(splats, colours, Neighbours(splats), semantics)
    photos = [(camera, file) for photo, camera in run.photos() for file in args.masks.glob(f"{photo.stem}.png")]
    found, seconds, first = [], [], []
    for number in np.linspace(0, len(photos) - 1, min(args.views, len(photos))).round().astype(int):
        camera = model.pinhole(photos[number][0])
        labels = np.asarray(Image.open(photos[number][1]).resize((camera.width, camera.height), Image.Resampling.NEAREST))
        for label in np.unique(labels[labels > 0]):
            truth = labels == label
            if truth.mean() < LEAST:
                continue
            for x, y in places(truth, draw):
                start = time.perf_counter()
                Looks(splats, colours, Neighbours(splats), semantics).thing(under(splats, camera, x, y))
                first.append(time.perf_counter() - start)
                start = time.perf_counter()
                mask = looks.thing(under(splats, camera, x, y))
                seconds.append(time.perf_counter() - start)
                if args.gaussians:
                    continue
                image = blend(splats, camera, mask[:, None].float(), min_radius=0.0)[0][..., 0].numpy() > 0.5
                found.append(float((image & truth).sum() / (image | truth).sum()))
    about = {"run": str(args.run), "gaussians": len(splats), "features": semantics is not None, "clicks": len(seconds)}
    figures = {
        f"{name}_{kind}": round(float(of(spent)), 3)
        for name, spent in (("first_s", first), ("click_s", seconds))
        for kind, of in (("median", np.median), ("most", np.max))
    }
    if found:
        figures |= {"iou": round(float(np.mean(found)), 3), "at_least_0.7": round(float(np.mean(np.array(found) >= 0.7)), 3)}
    print(json.dumps(about | figures))


if __name__ == "__main__":
    main()
