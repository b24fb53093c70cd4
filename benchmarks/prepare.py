"""How well `vlmgs prepare` finds cameras: embedded rooms with true poses, and captures with the poses that they came with.

    python benchmarks/prepare.py --out prepared [--rooms 0 1 2] [--captures fox/ banana/] [--given fox/] [--videos fox/]

Cameras are aligned by the similarity that fits their centres best. Errors are parts of the diagonal of the box of all true camera
centres, and degrees. Photos alone are given to the command: EXIF as it is, poses removed. Of those under --given, nothing
is found: they are written with their own poses as the command writes scenes, to train on as on what it found. A video shows the
first photos of a capture one after the other at 10 frames a second: each blurred, sharp, less blurred; every fourth three times.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from vlmgs_ns.prepare.layout import stand_upright, write_scene
from vlmgs_ns.prepare.photos import jpeg_names, photo_files
from vlmgs_ns.prepare.run import prepare
from vlmgs_ns.prepare.settings import Preparation
from vlmgs_ns.prepare.video import write_frames
from vlmgs_ns.system.video import write_mp4
from vlmgs_ns.toy.make import SceneSettings, make_scene

VIDEO_PHOTOS, VIDEO_SIZE = 24, 540
"""Photos of a capture that its video shows, and the longer side of its frames."""


def true_poses(scene: Path) -> dict[str, np.ndarray]:  # stem -> [4, 4] camera to world, OpenGL axes
    """Return the poses of a transforms.json, or of a COLMAP model in sparse/0."""
    if (scene / "transforms.json").is_file():
        frames = json.loads((scene / "transforms.json").read_text(encoding="utf-8"))["frames"]
        return {Path(frame["file_path"]).stem: np.array(frame["transform_matrix"]) for frame in frames}
    import pycolmap

    poses = {}
    for image in pycolmap.Reconstruction(next(p.parent for p in sorted(scene.rglob("cameras.*")))).images.values():
        poses[Path(image.name).stem] = np.eye(4)
        poses[Path(image.name).stem][:3] = image.cam_from_world().inverse().matrix() @ np.diag([1, -1, -1, 1])
    return poses


def write_given(scene: Path, out: Path) -> None:
    """Write a capture with its own poses: those of COLMAP, or of one camera with the distortion of OpenCV."""
    import pycolmap

    if not (scene / "transforms.json").is_file():
        model = pycolmap.Reconstruction(next(p.parent for p in sorted(scene.rglob("cameras.*"))))
    else:
        given, model = json.loads((scene / "transforms.json").read_text(encoding="utf-8")), pycolmap.Reconstruction()
        lens = [given.get(name, 0.0) for name in ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "p1", "p2")]
        width, height = (int(given[name]) for name in "wh")
        model.add_camera_with_trivial_rig(pycolmap.Camera(camera_id=1, model="OPENCV", width=width, height=height, params=lens))
        for number, frame in enumerate(given["frames"], start=1):
            pose = np.linalg.inv(np.array(frame["transform_matrix"]) @ np.diag([1, -1, -1, 1]))
            image = pycolmap.Image(name=Path(frame["file_path"]).name, camera_id=1, image_id=number)
            model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose[:3]))
    stand_upright(model)
    with tempfile.TemporaryDirectory(dir=out.parent) as work:
        write_scene(model, scene / "images", Path(work), out)


def errors(found: list[np.ndarray], true: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return distances between centres in true units, and angles in degrees, after the best similarity (Umeyama, 1991)."""
    a, b = (np.stack([pose[:3, 3] for pose in poses]) for poses in (found, true))
    u, s, v = np.linalg.svd((b - b.mean(0)).T @ (a - a.mean(0)))
    signs = np.array([1, 1, np.linalg.det(u @ v)])
    rotation = u * signs @ v
    scale = (s * signs).sum() / ((a - a.mean(0)) ** 2).sum()
    moved = scale * (a - a.mean(0)) @ rotation.T + b.mean(0)
    turns = [np.trace((rotation @ x[:3, :3]).T @ y[:3, :3]) for x, y in zip(found, true, strict=True)]
    return np.linalg.norm(moved - b, axis=1), np.degrees(np.arccos(np.clip((np.array(turns) - 1) / 2, -1, 1)))


def make_video(folder: Path, video: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Write a video of the first `VIDEO_PHOTOS` of a folder; return their stems, them [H, W, 3], and them blurred."""
    shown = []
    for file in photo_files(folder)[:VIDEO_PHOTOS]:
        photo = cv2.imread(str(file))[..., ::-1]
        scale = VIDEO_SIZE / max(photo.shape)
        width, height = (2 * round(scale * side / 2) for side in photo.shape[1::-1])
        photo = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
        shown.append((file.stem, photo, cv2.blur(photo, (9, 9))))
    frames = [
        frame
        for k, (_, sharp, blurred) in enumerate(shown)
        for frame in (blurred, sharp, cv2.blur(sharp, (5, 5))) * (3 if k % 4 == 3 else 1)
    ]
    write_mp4(video, frames, shown[0][1].shape[1], shown[0][1].shape[0], 10)
    return shown


def shown_in(frame: Path, shown: list[tuple[str, np.ndarray, np.ndarray]]) -> tuple[str, bool]:
    """Return the photo that a frame shows, and whether it is nearer to the sharp one than to the blurred one."""
    picture = cv2.imread(str(frame))[..., ::-1].astype(int)
    stem, sharp, blurred = min(shown, key=lambda item: np.abs(picture - item[1]).mean())
    return stem, bool(np.abs(picture - sharp).mean() < np.abs(picture - blurred).mean())


def main() -> None:
    """Prepare all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rooms", type=int, nargs="*", default=[])
    parser.add_argument("--captures", type=Path, nargs="*", default=[])
    parser.add_argument("--given", type=Path, nargs="*", default=[])
    parser.add_argument("--videos", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for scene in args.given:
        write_given(scene, args.out / f"{scene.name}_given")
    rooms = [args.out / f"room{seed}" for seed in args.rooms]
    for seed, room in zip(args.rooms, rooms, strict=True):
        if not room.exists():
            make_scene(room, SceneSettings(seed=seed, width=640, height=480))
    rows = []
    scenes = [(scene, False) for scene in (*rooms, *args.captures)] + [(scene, True) for scene in args.videos]
    for scene, as_video in scenes:
        source, target = scene / "images", args.out / f"{scene.name}_prepared"
        if as_video:
            source, target = args.out / f"{scene.name}.mp4", args.out / f"{scene.name}_video_prepared"
            shown = make_video(scene / "images", source)
        start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
        outcome = prepare(source, target, Preparation())
        seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF)
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        true = true_poses(scene)
        if as_video:
            chosen = args.out / f"{scene.name}_frames"
            chosen.mkdir(exist_ok=True)
            write_frames(source, chosen, Preparation().frames, Preparation().max_image_size)
            found = {path.stem: shown_in(path, shown) for path in sorted(chosen.iterdir())}
            stems = {frame: stem for frame, (stem, _) in found.items()}
            sharp = sum(is_sharp for _, is_sharp in found.values())
            print(f"{scene.name}, video: {sharp} of {len(found)} frames are sharp, {len(set(stems.values()))} show another photo")
        else:
            files = photo_files(source)
            stems = {Path(name).stem: file.stem for name, file in zip(jpeg_names(files), files, strict=True)}
        poses = {stems[name]: pose for name, pose in true_poses(target).items()}
        both = sorted(poses.keys() & true.keys())
        distance, angle = errors([poses[name] for name in both], [true[name] for name in both])
        centres = np.stack([pose[:3, 3] for pose in true.values()])
        distance /= np.linalg.norm(np.ptp(centres, axis=0))
        name = target.name.removesuffix("_prepared")
        row = f"| {name} | {outcome.placed} of {outcome.photos} | {outcome.reprojection_error:.2f} |"
        row += "".join(f" {np.median(x):.{d}f} | {x.max():.{d}f} |" for x, d in ((100 * distance, 2), (angle, 2)))
        rows.append(f"{row} {processor:.0f} | {seconds:.0f} |")
        print(rows[-1], flush=True)
    head = ("scene", "placed", "reprojection, px", "position %, median", "max", "angle °, median", "max", "processor s", "s")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", *rows, sep="\n")


if __name__ == "__main__":
    main()
