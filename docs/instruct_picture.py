"""What boxes around an object do, as a picture: ``python docs/instruct_picture.py`` trains the embedded room twice."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import vlmgs_ns
from vlmgs_ns.bench.marks import object_pixels, write_boxes
from vlmgs_ns.toy.scene import write_scene

WANTED = 8
"""The object's number in the room's masks: the cushion, one of those that gain most."""
VIEWS, SIDE, MARGIN, HEADER = 4, 200, 0.35, 22
OPTIONS = (
    *("--max-num-iterations", "600", "--vis", "tensorboard", "--pipeline.model.max-gaussians", "10000"),
    *("--pipeline.model.semantics.enabled", "False", "--pipeline.model.guidance.backend", "residual"),
    *("--pipeline.model.guidance.detail.enabled", "False", "--pipeline.model.guidance.background.enabled", "False"),
)


def train(room: Path, out: Path, *options: str) -> Path:
    """Train the room; the folder of the run."""
    command = (
        "ns-train",
        "vlm-fastgs-lite",
        "--data",
        str(room),
        "--output-dir",
        str(out),
        "--timestamp",
        "now",
        *OPTIONS,
        *options,
    )
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(out.rglob("config.yml")).parent


def crop(picture: Image.Image, inside: np.ndarray) -> Image.Image:  # inside [H, W] bool
    """The square around an object, inside the picture, enlarged."""
    rows, columns = np.nonzero(inside)
    side = min(int((1 + 2 * MARGIN) * max(np.ptp(rows), np.ptp(columns))), *picture.size)
    left = int(np.clip(columns.mean() - side / 2, 0, picture.width - side))
    top = int(np.clip(rows.mean() - side / 2, 0, picture.height - side))
    return picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        room = work / "room"
        write_scene(room, seed=0)
        write_boxes(room / "masks_instance", room.glob("images/*"), WANTED, "boxes", work / "boxes.json")
        runs = {
            "FastGS": train(room, work / "without"),
            "with boxes": train(room, work / "with", "--pipeline.model.guidance.instruct-boxes", str(work / "boxes.json")),
        }
        scenes = {title: vlmgs_ns.open(run) for title, run in runs.items()}
        held_out = [file for file, _ in list(scenes["FastGS"].run.photos())[-12:]]
        masks = {file: object_pixels(room / "masks_instance" / f"{file.stem}.png", WANTED) for file in held_out}
        shown = sorted(held_out, key=lambda file: -int(masks[file].sum()))[:VIEWS]
        sheet = Image.new("RGB", (3 * (SIDE + 6) - 6, HEADER + VIEWS * (SIDE + 6) - 6), "white")
        draw = ImageDraw.Draw(sheet)
        for column, title in enumerate(("photo", *scenes)):
            draw.text((column * (SIDE + 6), 3), title, fill="black", font_size=13)
            for row, file in enumerate(shown):
                with Image.open(file) as photo:
                    picture = photo.convert("RGB")
                if title in scenes:
                    scene = scenes[title]
                    rgb = scene.render(scene.cameras[file.stem])["rgb"]
                    picture = Image.fromarray((rgb.clamp(0, 1) * 255).byte().numpy()).resize(picture.size)
                sheet.paste(crop(picture, masks[file]), (column * (SIDE + 6), HEADER + row * (SIDE + 6)))
        sheet.save(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "images" / "instruct.jpg", quality=88)


if __name__ == "__main__":
    main()
