"""Trained Gaussians, cameras and photos of an embedded scene in one file, which all runs of benchmarks/semantics.py share."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any


def train_geometry(args: argparse.Namespace, seed: int, out: Path) -> None:
    """Train one scene and keep its Gaussians, cameras and photos."""
    import torch
    from nerfstudio.scripts.train import _set_random_seed
    from safetensors.torch import save_file

    from vlmgs_ns.bench.configure import configure
    from vlmgs_ns.toy.scene import write_scene

    scene = args.out / f"toy-{seed}"
    if not scene.exists():
        write_scene(scene, seed=seed)
    _set_random_seed(seed)
    settings = {"base": "vlm-fastgs-lite", "dataparser": "auto", "start": "points", "seed": seed, "words": None}
    settings |= {"iterations": args.iterations, "resolution": args.size, "overrides": {"pipeline.model.guidance.enabled": False}}
    trainer = configure(settings, scene, out.with_suffix("")).setup()
    trainer.setup()
    began, began_cpu = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    model, data = trainer.pipeline.model, trainer.pipeline.datamanager
    splats, (centre, radius) = model.splats(), model.extent()
    kept = {name: getattr(splats, name) for name in ("means", "quats", "scales", "opacities")}
    kept |= {"centre": centre, "radius": torch.tensor(radius)}
    kept["transform"], scale = data.train_dataparser_outputs.dataparser_transform, data.train_dataparser_outputs.dataparser_scale
    kept["scale"] = torch.tensor(float(scale))
    about: dict[str, Any] = {"names": {}, "gaussians": len(splats), "seconds": seconds, "cpu_seconds": cpu}
    about["psnr"] = float(trainer.pipeline.get_average_eval_image_metrics()["psnr"])
    for split, photos in (("train", data.train_dataset), ("held_out", data.eval_dataset)):
        views = [model.pinhole(photos.cameras[index : index + 1]) for index in range(len(photos))]
        kept[f"{split}.viewmats"] = torch.stack([view.viewmat for view in views])
        kept[f"{split}.Ks"] = torch.stack([view.K for view in views])
        pixels = [torch.from_numpy(photos.get_numpy_image(index))[..., :3] for index in range(len(photos))]
        kept[f"{split}.photos"] = torch.stack(pixels)
        about["names"][split] = [file.stem for file in photos.image_filenames]
    partial = out.with_suffix(".tmp")
    save_file({name: values.contiguous() for name, values in kept.items()}, partial, metadata={"about": json.dumps(about)})
    partial.rename(out)


class Geometry:
    """One scene's Gaussians and views, as `semantics.stage.Views` of the training photos."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        from vlmgs_ns.splats.camera import Pinhole
        from vlmgs_ns.splats.gaussians import Splats

        with safe_open(path, framework="pt") as file:
            self.about = json.loads(file.metadata()["about"])
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        self.splats = Splats(*(held[name] for name in ("means", "quats", "scales", "opacities")))
        self.centre, self.radius = held["centre"], float(held["radius"])
        self.photos = held["train.photos"]
        self.transform, self.scale = held.get("transform"), held.get("scale")
        """From the data's coordinates to these, as `words.place.in_data` takes them."""
        self.cameras: dict[str, list[Any]] = {}
        for split in ("train", "held_out"):
            height, width = held[f"{split}.photos"].shape[1:3]
            pairs = zip(held[f"{split}.viewmats"], held[f"{split}.Ks"], strict=True)
            self.cameras[split] = [Pinhole(pose, K, width, height) for pose, K in pairs]
        self.held_out = dict(zip(self.about["names"]["held_out"], self.cameras["held_out"], strict=True))

    def __len__(self) -> int:
        return len(self.photos)

    def photo(self, index: int) -> Any:
        return self.photos[index].numpy()

    def camera(self, index: int) -> Any:
        return self.cameras["train"][index]

    def photo_cameras(self, most: int) -> list[Any]:
        import numpy as np

        cameras = self.cameras["train"]
        return [cameras[k] for k in np.linspace(0, len(cameras) - 1, min(most, len(cameras))).round().astype(int)]

    def mask(self, index: int) -> None:
        """All pixels count."""
