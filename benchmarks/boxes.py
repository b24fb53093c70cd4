"""Centres and boxes in space of what words find, against the true boxes of embedded rooms: every object, by its name.

    python benchmarks/boxes.py --out semantics [--rooms 11 12 13 14 15] [--iterations 500] [--size 200]

One geometry a room (`semantic_geometry.py`), kept on disk; features lifted with the embedded CLIP, as vlm-fastgs-lite has it;
the held-out views looked from, as `vlmgs query` does. A centre is right if it lies in the true box. IoU by a grid of points.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from semantic_geometry import Geometry, train_geometry
from semantics import alone, settings

POINTS = 40
"""Points of the grid along each side of a box."""


class SearchableRoom:
    """Gaussians and their lifted features, as `words.question.SearchableScene`."""

    def __init__(self, geometry: Geometry, semantics: Any) -> None:
        self._geometry, self._semantics = geometry, semantics

    def searchable(self) -> Any:
        return self._semantics

    def splats(self) -> Any:
        return self._geometry.splats

    def photo_cameras(self, most: int) -> list[Any]:
        return self._geometry.photo_cameras(most)


def iou(box: Any, low: Any, high: Any) -> float:
    """Intersection over union of an oriented box and one along the axes."""
    import torch

    along = (torch.arange(POINTS) + 0.5) / POINTS - 0.5
    points = box.centre + (torch.cartesian_prod(along, along, along) * box.size) @ box.axes
    volume = float(box.size.prod())
    common = float(((points >= low) & (points <= high)).all(dim=1).float().mean()) * volume
    return common / (volume + float((high - low).prod()) - common)


def measure(args: argparse.Namespace, seed: int, geometry_file: Path, out: Path) -> None:
    """Find every object of a room by its name."""
    import torch
    from semantic_oracle import eyes

    from vlmgs_ns.evaluation.toy_labels import read_toy
    from vlmgs_ns.semantics.cache import FeatureCache
    from vlmgs_ns.semantics.stage import Stage
    from vlmgs_ns.words.place import in_data
    from vlmgs_ns.words.query import make_query
    from vlmgs_ns.words.question import Survey, ask

    geometry, scene, config = Geometry(geometry_file), args.out / f"toy-{seed}", settings("lift")
    cache = FeatureCache(args.out / "maps" / f"{geometry_file.stem}-tiny")
    looking = eyes("tiny", config, scene, geometry.about["names"]["train"], geometry.photos, read_toy(scene), "", False)
    looking.look(geometry.photos, cache, False)
    stage = Stage(config, looking.encoders, geometry.splats, geometry, cache, geometry.centre, geometry.radius)
    found = stage.begin()
    assert stage.run(found)
    things = json.loads((scene / "labels.json").read_text(encoding="utf-8"))["objects"]
    survey = Survey(ask(SearchableRoom(geometry, found), make_query([thing["name"] for thing in things])))
    for camera in geometry.cameras["held_out"]:
        survey.look(camera)
    rows = []
    for thing, place in zip(things, survey.places(), strict=True):
        low, high = (torch.tensor(thing[name]) for name in ("bbox_min", "bbox_max"))
        row: dict[str, Any] = {"room": seed, "name": thing["name"], "inside": None, "iou": 0.0}
        if place.box is not None:
            box = in_data(place.box, geometry.transform, float(geometry.scale))
            row |= {"inside": bool(((box.centre >= low) & (box.centre <= high)).all()), "iou": iou(box, low, high)}
        rows.append(row)
    partial = out.with_suffix(".tmp")
    partial.write_text(json.dumps(rows, indent=1))
    partial.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("semantics"))
    parser.add_argument("--rooms", type=int, nargs="+", default=[11, 12, 13, 14, 15])
    parser.add_argument("--iterations", type=int, default=500, help="of the geometry")
    parser.add_argument("--size", type=int, default=200, help="longer side of the photos in pixels")
    parser.add_argument("--name", default="boxes", help="of the files, to compare two versions of the package")
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import vlmgs_ns.config  # noqa: F401  imported once, before the processes fork

    rows: list[dict[str, Any]] = []
    for seed in args.rooms:
        geometry, out = (
            (args.out / f"geometry-{seed}-{args.iterations}-{args.size}.safetensors"),
            args.out / f"{args.name}-{seed}.json",
        )
        if alone(train_geometry, args, seed, out=geometry) and alone(measure, args, seed, geometry, out=out):
            rows += json.loads(out.read_text())
    for seed in [*args.rooms, None]:
        some = [row for row in rows if seed in (row["room"], None)]
        located = [row for row in some if row["inside"] is not None]
        right, overlap = sum(row["inside"] for row in located), sum(row["iou"] for row in located) / max(1, len(located))
        where = "all" if seed is None else f"room {seed}"
        sys.stdout.write(f"{where}: {len(located)} of {len(some)} found, {right} centres right, mean box IoU {overlap:.2f}\n")


if __name__ == "__main__":
    main()
