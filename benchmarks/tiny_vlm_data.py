"""What the tiny Qwen3-VL is trained on: pictures of rooms, what each part of them shows, and questions with their answers.

Photos are rendered by the ray caster. Renders of unfinished rooms come from vlm-fastgs-lite itself; the regions in them that show
detail or are wrong are those that the residual backend names once it is given the photo, which the model never sees.
"""

from __future__ import annotations

import json
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tiny_vlm_model import (
    CELL,
    COLOURS,
    DEFECT_LABEL,
    DETAIL_LABEL,
    KINDS,
    MATTERS,
    SEEN,
    SITES,
    SUBJECT_LABEL,
    SYNONYMS,
    prompt_of,
)
from torch import Tensor
from torch.nn import functional as F
from toy_phrases import MATERIALS, PLACE_WORDS, SURFACES
from train_tiny_models import NAMES, UNKNOWN, repainted, surfaces

from vlmgs_ns.toy.furniture import ADJECTIVES, PLACES
from vlmgs_ns.toy.layout import draw_room
from vlmgs_ns.toy.light import bake
from vlmgs_ns.toy.raycast import photograph
from vlmgs_ns.toy.room import Room
from vlmgs_ns.toy.scene import plan_scene
from vlmgs_ns.toy.viewpoints import Pinhole, Viewpoint, draw_viewpoints

Array = NDArray[Any]
Regions = tuple[Array, Array]
"""Boxes of detail and of defects, [N, 4] each, normalised."""

WIDTH, HEIGHT = 320, 240
ROOMS, CAMERAS = 100, 14
"""Training rooms, seeds from 1000 on, and photos of each, in another painting each."""
STAGE_SEEDS, STAGE_HELD_OUT = (1500, 1501), 1502
"""Rooms seen in reconstruction, and one to measure on."""
STAGE_STEPS, STAGE_AT = 600, (12, 36, 75, 130, 210, 330, 450)
"""Iterations of a run of vlm-fastgs-lite, and those after which it is looked at."""
STAGE_VIEWS, STAGE_NEW, STAGE_SIZE = 36, 12, (300, 225)
SMALLEST = 30
"""Pixels of a thing that is asked for, of 256 x 192."""


def facts(room: Room) -> Array:  # [12 + objects, 4]
    """Return kind, colour, material and place of every part of the room and every object, as indices."""
    rows = [(k, 0, 0, 0) for k in range(len(NAMES))]
    for thing in room.objects:
        material = "shiny" if thing.parts[0].material.gloss else ADJECTIVES[thing.texture] or "plain"
        place = SITES.index(PLACES[thing.place])
        rows.append((KINDS.index(thing.noun), COLOURS.index(thing.colour), MATTERS.index(material), place))
    return np.array(rows, np.int64)


def shot(room: Room, maps: Any, lens: Pinhole, camera: Viewpoint) -> tuple[Array, Array]:
    """Return a photo [H, W, 3] and the thing that every pixel shows, as a row of `facts`, [H, W]."""
    photo = photograph(room, maps, lens, camera)
    instance = photo.instance.astype(np.int64)
    things = np.where(instance > 0, len(NAMES) - 1 + instance, surfaces(room, lens, camera))
    return photo.rgb, things.astype(np.uint8)


def render_rooms(file: Path) -> None:
    """Write the photos of the training rooms."""
    rng, lens = np.random.default_rng(0), Pinhole.wide(WIDTH, HEIGHT)
    pictures, things, tables = [], [], []
    for seed in range(1000, 1500):
        own = np.random.default_rng([seed, 0])
        try:
            room = draw_room(own)
            cameras, maps = draw_viewpoints(own, room, CAMERAS, 4), bake(room)
            painted = [repainted(room, rng) for _ in cameras]
            shots = [shot(other, maps, lens, camera) for other, camera in zip(painted, cameras, strict=True)]
        except (ValueError, IndexError, FloatingPointError):  # a ray exactly along an axis is more than the ray caster survives
            continue
        pictures += [picture for picture, _ in shots]
        things += [thing for _, thing in shots]
        tables += [facts(other) for other in painted]
        if len(pictures) >= ROOMS * CAMERAS:
            break
    np.savez(file, pictures=np.stack(pictures), things=np.stack(things), facts=np.stack(tables))


def render_stages(file: Path) -> None:
    """Write renders of rooms in reconstruction, and their regions."""
    kept: list[tuple[Any, ...]] = []
    for seed in (*STAGE_SEEDS, STAGE_HELD_OUT):
        last: dict[int, Array] = {}
        for view, step, render, photo, things, table in reconstruct(seed, file.parent / f"stage-{seed}"):
            padded = np.full((2, 8, 4), np.nan)
            for k, boxes in enumerate(taught_regions(render, photo, last.get(view))):
                padded[k, : len(boxes)] = boxes[:8]
            last[view] = render
            kept.append((render, things, table, padded, step, seed))
        print(f"room {seed} in reconstruction: {len(kept)} renders, {time.process_time():.0f} s", flush=True)
    names = ("renders", "things", "facts", "regions", "step", "room")
    np.savez(file, **{name: np.array([row[k] for row in kept]) for k, name in enumerate(names)})


def reconstruct(seed: int, folder: Path) -> list[tuple[int, int, Array, Array, Array, Array]]:
    """Train on a room and return (view, iteration, render, photo, things, facts) for all of its views."""
    from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation

    from vlmgs_ns.config import vlm_fastgs_lite
    from vlmgs_ns.guidance.questions import pixels
    from vlmgs_ns.guidance.training_scene import Viewpoint as TrainingViewpoint
    from vlmgs_ns.method.guided_scene import GuidedScene
    from vlmgs_ns.method.trainer import VlmFastGSTrainer
    from vlmgs_ns.toy.scene import write_scene

    write_scene(folder / "scene", overwrite=True, seed=seed, views=STAGE_VIEWS, held_out=STAGE_NEW)
    room, cameras = plan_scene(seed, STAGE_VIEWS, STAGE_NEW)
    config: Any = deepcopy(vlm_fastgs_lite.config)
    config.max_num_iterations = config.pipeline.model.run_length = STAGE_STEPS
    config.pipeline.model.semantics.enabled = False
    config.pipeline.model.guidance.backend = "residual"
    config.data = config.pipeline.datamanager.data = folder / "scene"
    config.pipeline.datamanager.dataparser.load_3D_points = seed % 2 == 0
    config.output_dir = folder / "outputs"
    config.experiment_name, config.vis = "scene", "tensorboard"
    config.viewer.quit_on_train_completion = True
    config.steps_per_eval_image = config.steps_per_eval_all_images = 0
    config.set_timestamp()
    torch.manual_seed(seed)
    trainer: Any = VlmFastGSTrainer(config)
    trainer.setup()
    manager, model = trainer.pipeline.datamanager, trainer.pipeline.model
    scene, lens, maps, table = GuidedScene(model, manager, max(STAGE_SIZE)), Pinhole.wide(*STAGE_SIZE), bake(room), facts(room)
    views = []
    for dataset in (manager.train_dataset, manager.eval_dataset):
        poses, intrinsics = dataset.cameras.camera_to_worlds, dataset.cameras.get_intrinsics_matrices()
        for k, path in enumerate(dataset.image_filenames):
            width, height = int(dataset.cameras.width[k]), int(dataset.cameras.height[k])
            point = TrainingViewpoint(poses[k], intrinsics[k], width, height).within(max(STAGE_SIZE))
            views.append((point, *shot(room, maps, lens, cameras[int(path.stem.split("_")[1]) - 1])))
    found: list[tuple[int, int, Array, Array, Array, Array]] = []

    def after_step(step: int) -> None:
        if step + 1 in STAGE_AT:
            for k, (point, photo, things) in enumerate(views):
                found.append((k, step + 1, pixels(scene.render(point).rgb), photo, things, table))

    trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], after_step))
    trainer.train()
    return found


def taught_regions(render: Array, photo: Array, earlier: Array | None) -> Regions:
    """Return what the residual backend says that is shown the photo: where detail emerges, and where the render is wrong."""
    from vlmgs_ns.guidance.backends.residual import ResidualBackend
    from vlmgs_ns.guidance.question import Evidence, Question
    from vlmgs_ns.guidance.reply import parse

    now, true = render.astype(np.float32) / 255, photo.astype(np.float32) / 255
    before = None if earlier is None else earlier.astype(np.float32) / 255
    questions = [
        Question("detail", "", (render,), Evidence(photo=true, earlier=before)),
        Question("novel", "", (render,), Evidence(disagreement=np.abs(now - true).mean(axis=2))),
    ]
    replies = [parse(answer.text or "", "thousandths", 1000, 1000).boxes for answer in ResidualBackend().ask(questions)]
    detail, defects = (np.array([box[:4] for box in boxes]).reshape(-1, 4) for boxes in replies)
    return detail, defects


@dataclass
class Targets:
    """What a picture shows, for each merged token and as a whole."""

    facts: Tensor  # [T, 4] kind, colour, material, place
    boxes: Tensor  # [T, 4, 4] thousandths: of the thing, the subject, the region of detail and that of defects
    known: Tensor  # [T, 4] how much each box counts
    flags: Tensor  # [T, 3]
    weight: Tensor  # [T]
    boxes_of: dict[int, list[int]]
    """Thing → box of its visible pixels, thousandths."""
    pixels: dict[int, int]
    subject: list[int] | None


def targets_of(
    things: Array,  # [H, W], whole cells
    table: Array,  # [12 + objects, 4]
    regions: Regions | None = None,
) -> Targets:
    """Return the targets of a picture. A token shows the object that fills most of it, if that is a quarter at least.

    The subject is the table with what stands on it.
    """
    h, w = things.shape
    rows, columns = h // CELL, w // CELL
    cells = things.reshape(rows, CELL, columns, CELL).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    shares = np.stack([(cells == k).mean(1) for k in range(len(table))], 1)  # [T, 12 + objects]
    of_objects = shares.copy()
    of_objects[:, : len(NAMES)] = 0
    shown = np.where(of_objects.max(1) >= 0.25, of_objects.argmax(1), shares.argmax(1))
    boxes_of, pixels = {}, {}
    for k in np.unique(things).tolist():
        inside = things == k
        ys, xs = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        boxes_of[k] = [round(1000 * edge) for edge in (xs[0] / w, ys[0] / h, (xs[-1] + 1) / w, (ys[-1] + 1) / h)]
        pixels[k] = int(inside.sum())
    count = len(shown)
    boxes, known, flags = np.zeros((count, 4, 4)), np.zeros((count, 4)), np.zeros((count, 3))
    is_object = shown >= len(NAMES)
    boxes[:, 0] = [boxes_of.get(int(k), [0, 0, 0, 0]) for k in shown]
    known[:, 0] = np.where(is_object, 1.0, 0.15)
    table_kind, on_table = KINDS.index("table"), SITES.index(PLACES["table"])
    members = [k for k in boxes_of if k >= len(NAMES) and (table[k, 0] == table_kind or table[k, 3] == on_table)]
    subject = None
    if sum(pixels[k] for k in members) >= 0.004 * things.size:
        corners = np.array([boxes_of[k] for k in members])
        subject = [int(edge) for edge in (*corners[:, :2].min(0), *corners[:, 2:].max(0))]
        boxes[:, 1], known[:, 1] = subject, np.where(np.isin(shown, members), 0.6, 0.15)
        flags[:, 0] = np.isin(shown, members)
    if regions is not None:
        y, x = np.divmod(np.arange(count), columns)
        x, y = (x + 0.5) / columns, (y + 0.5) / rows
        dx, dy = 0.3 / columns, 0.3 / rows
        for which, some in enumerate(regions, 1):
            for left, top, right, bottom in sorted(some.tolist(), key=lambda b: -(b[2] - b[0]) * (b[3] - b[1])):  # small ones win
                inside = (x > left - dx) & (x < right + dx) & (y > top - dy) & (y < bottom + dy)
                boxes[inside, 1 + which] = np.round(1000 * np.array([left, top, right, bottom]))
                known[inside, 1 + which], flags[inside, which] = 0.5, 1
    # A small object counts as much as a table that fills half of the picture would with the root of its tokens.
    share = np.sqrt(count / np.bincount(shown)[shown]) / 4
    known[:, 0] *= np.where(is_object, share, 1.0)
    weight = np.where(is_object, share, 0.3)
    of_tokens = [torch.from_numpy(values).float() for values in (boxes, known, flags, weight)]
    return Targets(torch.from_numpy(table[shown]), *of_tokens, boxes_of, pixels, subject)


def resized(things: Array, width: int, height: int) -> Array:
    """Scale a map of things to a size, nearest neighbour."""
    rows, columns = ((np.arange(new) + 0.5) * old / new for new, old in zip((height, width), things.shape, strict=True))
    return things[rows.astype(int)][:, columns.astype(int)]


def mirrored(regions: Regions) -> Regions:
    """Return the regions of the picture's mirror image."""
    one, other = (np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1) for boxes in regions)
    return one, other


@dataclass
class Sample:
    """A picture with everything that is known of it."""

    picture: Tensor  # [3, H, W] in [0, 1]
    things: Array  # [H, W]
    facts: Array
    regions: Regions | None
    """None: unknown."""

    def scaled(self, width: int, height: int, rng: np.random.Generator) -> Sample:
        """Return it in another size, mirrored by chance."""
        picture = F.interpolate(self.picture[None], size=(height, width), mode="bilinear", antialias=True, align_corners=False)[0]
        things, regions = resized(self.things, width, height), self.regions
        if rng.random() < 0.5:
            picture, things = picture.flip(-1), np.ascontiguousarray(things[:, ::-1])
            regions = None if regions is None else mirrored(regions)
        return Sample(picture.clamp(0, 1), things, self.facts, regions)

    def disturbed(self, rng: np.random.Generator) -> Sample:
        """Return it in other light and, where nothing is known about regions, by chance as soft as a render."""
        picture, (height, width) = self.picture[None], self.things.shape
        if self.regions is None and rng.random() < 0.3:
            side = int(rng.integers(2, 5))
            small = F.interpolate(picture, size=(height // side, width // side), mode="area")
            soft = F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)
            picture = torch.lerp(picture, soft, float(rng.uniform(0.3, 1)))
        light = torch.tensor(rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3), dtype=torch.float32)
        return Sample((picture[0] * light[:, None, None]).clamp(0, 1), self.things, self.facts, self.regions)

    def targets(self) -> Targets:
        return targets_of(self.things, self.facts, self.regions)


class Pictures:
    """The training pictures, drawn by a random generator."""

    def __init__(self, work: Path) -> None:
        rooms, stages = np.load(work / "rooms.npz"), np.load(work / "stages.npz")
        self.photos, self.things, self.facts = rooms["pictures"], rooms["things"], rooms["facts"]
        mine = np.isin(stages["room"], STAGE_SEEDS)
        self.renders, self.render_things = stages["renders"][mine], stages["things"][mine]
        self.render_facts, self.regions = stages["facts"][mine], stages["regions"][mine]

    def cut(self, n: int, width: int, height: int, rng: np.random.Generator) -> Sample:
        """Return a part of a photo."""
        x, y = int(rng.integers(WIDTH - width + 1)), int(rng.integers(HEIGHT - height + 1))
        part = slice(y, y + height), slice(x, x + width)
        picture = torch.from_numpy(self.photos[n][part]).permute(2, 0, 1).float() / 255
        return Sample(picture, self.things[n][part], self.facts[n], None)

    def crop(self, rng: np.random.Generator) -> Sample:
        """Return about a quarter of a photo, a little larger or smaller than the model will see it, most often with objects."""
        n, width, height = int(rng.integers(len(self.photos))), SEEN[0] // 2, SEEN[1] // 2
        zoom = float(np.exp(rng.uniform(np.log(0.75), np.log(1.5))))
        size = (min(int(side * WIDTH / SEEN[0] / zoom), end) for side, end in ((width, WIDTH), (height, HEIGHT)))
        cut_width, cut_height = size
        for _ in range(3):
            sample = self.cut(n, cut_width, cut_height, rng)
            if (sample.things >= len(NAMES)).mean() > 0.08:
                break
        return sample.scaled(width, height, rng).disturbed(rng)

    def whole(self, rng: np.random.Generator, renders: float = 0.5) -> Sample:
        """Return a render of an unfinished room, or a photo, in which nothing is unfinished."""
        if rng.random() < renders:
            n = int(rng.integers(len(self.renders)))
            detail, defects = (boxes[~np.isnan(boxes[:, 0])] for boxes in self.regions[n])
            picture = torch.from_numpy(self.renders[n]).permute(2, 0, 1).float() / 255
            sample = Sample(picture, self.render_things[n], self.render_facts[n], (detail, defects))
        else:
            n, zoom = int(rng.integers(len(self.photos))), rng.uniform(0.7, 1.0) if rng.random() < 0.5 else 1.0
            sample = self.cut(n, int(WIDTH * zoom), int(HEIGHT * zoom), rng)
            sample.regions = np.zeros((0, 4)), np.zeros((0, 4))
        return sample.scaled(*SEEN, rng)

    def imagined(self, rng: np.random.Generator, cells: tuple[int, int]) -> Sample:
        """Return a part of a photo of so many rows and columns of tokens, the facts of its objects exchanged and its regions from
        nowhere: only its targets are of use."""
        rows, columns = cells
        n = int(rng.integers(len(self.photos)))
        zoom = rng.uniform(0.4, 0.7) if columns * CELL < SEEN[0] else rng.uniform(0.6, 1.0)
        sample = self.cut(n, int(WIDTH * zoom), int(HEIGHT * zoom), rng)
        table = sample.facts.copy()
        objects = table[len(NAMES) + 1 :]  # the table stays one
        objects[:, 0], objects[:, 2] = rng.permutation(objects[:, 0]), rng.permutation(objects[:, 2])
        strange = rng.random() < 0.5
        objects[:, 1] = rng.integers(1, len(COLOURS), len(objects)) if strange else rng.permutation(objects[:, 1])
        sample.facts, sample.regions = table, (_random_boxes(rng), _random_boxes(rng))
        return sample.scaled(columns * CELL, rows * CELL, rng)


def _random_boxes(rng: np.random.Generator) -> Array:  # [N, 4]
    boxes: list[tuple[float, ...]] = []
    for _ in range(int(rng.integers(5))):
        width, height = np.exp(rng.uniform(np.log(0.06), np.log(0.45), 2))
        x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
        if all(x > right or left > x + width or y > bottom or top > y + height for left, top, right, bottom in boxes):
            boxes.append((x, y, x + width, y + height))
    return np.array(boxes).reshape(-1, 4)


def questions_about(sample: Sample, targets: Targets, rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Return prompts and replies about a picture: what to find, for the most part, the subject, and one kind of regions."""
    out = []
    for _ in range(count - 2):
        wishes = dict(_wish(targets, sample.facts, rng) for _ in range(2 if rng.random() < 0.15 else 1))
        out.append((prompt_of("ground", "; ".join(wishes)), reply([(box, words) for words, box in wishes.items() if box])))
    out.append((prompt_of("background"), reply([(targets.subject, SUBJECT_LABEL)] if targets.subject else [])))
    if sample.regions is not None:
        which = int(rng.integers(2))
        label = (DETAIL_LABEL, DEFECT_LABEL)[which]
        largest = sorted(sample.regions[which].tolist(), key=lambda b: -(b[2] - b[0]) * (b[3] - b[1]))[:4]
        boxes = [[1000 * edge for edge in box] for box in sorted(largest)]  # from left to right
        out.append((prompt_of("novel" if which else "detail"), reply([(box, label) for box in boxes])))
    return out


def reply(found: list[tuple[Any, str]]) -> str:
    """Return boxes in thousandths with their labels as Qwen3-VL writes them."""
    return json.dumps([{"bbox_2d": [min(max(round(edge), 0), 1000) for edge in box], "label": label} for box, label in found])


def _wish(targets: Targets, table: Array, rng: np.random.Generator) -> tuple[str, list[int] | None]:
    """A phrase that is true of exactly one thing in the picture, with its box, or, less often, of nothing there."""
    visible = [k for k, pixels in targets.pixels.items() if pixels >= SMALLEST]
    objects = [k for k in visible if k >= len(NAMES)]
    chance = rng.random()
    for _ in range(20):
        if chance < 0.15:
            if rng.random() < 0.3:
                break
            row = [len(NAMES) + int(rng.integers(len(KINDS) - len(NAMES)))]
            row += [int(rng.integers(1, len(names))) for names in (COLOURS, MATTERS, SITES)]
            words, claims = _phrase(row, rng)
            if len(claims) > 1 and not any(all(table[k][c] == v for c, v in claims) for k in targets.pixels):
                return words, None
            continue
        pool = objects if objects and chance < 0.9 else visible
        k = pool[int(rng.integers(len(pool)))]
        words, claims = _phrase(table[k].tolist(), rng)
        if sum(all(table[j][c] == v for c, v in claims) for j in targets.pixels) == 1:
            return words, targets.boxes_of[k]
    word = str(rng.choice(UNKNOWN))
    return word if rng.random() < 0.5 else f"{rng.choice(COLOURS[1:])} {word}", None


def _phrase(row: list[int], rng: np.random.Generator) -> tuple[str, list[tuple[int, int]]]:
    """Words for a thing of these facts, and what they claim as (column, value)."""
    kind, colour, matter, site = row
    name = KINDS[kind]
    if not colour:
        return str(rng.choice(SURFACES[name])), [(0, kind)]
    noun = str(rng.choice([*[name] * 4, *[SYNONYMS[name]] * 2, "thing"]))
    words, claims = [noun], [] if noun == "thing" else [(0, kind)]
    if rng.random() < 0.85 or not claims:
        looks = [COLOURS[colour]]
        claims.append((1, colour))
        if rng.random() < 0.4:
            looks.insert(int(rng.random() < 0.7), str(rng.choice(MATERIALS[MATTERS[matter]])))
            claims.append((2, matter))
        words = [*looks, *words]
    if rng.random() < 0.2:
        words.append(str(rng.choice(PLACE_WORDS[SITES[site]])))
        claims.append((3, site))
    return {0: "the ", 1: "a "}.get(int(rng.integers(8)), "") + " ".join(words), claims


def held_out_photos(seeds: range, views: int) -> list[tuple[Array, Array, Room]]:
    """Return held-out photos of the scenes that `write_scene` would write, their things and their rooms."""
    out, lens = [], Pinhole.wide(WIDTH, HEIGHT)
    for seed in seeds:
        room, cameras = plan_scene(seed, 60, 12)
        maps = bake(room)
        out += [(*shot(room, maps, lens, camera), room) for camera in [c for c in cameras if c.held_out][:: 12 // views]]
    return out
