"""The tiny models that ship with the package: size, loading without a network, and what they know of a scene never trained on.

The seed of the scene below belongs neither to the training nor to the held-out seeds of `benchmarks/train_tiny_models.py`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.toy_phrases import SURFACES, object_phrases
from vlmgs_ns.guidance.backends.transformers import TransformersBackend
from vlmgs_ns.guidance.prompts import prompt
from vlmgs_ns.guidance.question import Phase, Question
from vlmgs_ns.guidance.reply import parse
from vlmgs_ns.semantics.embedded import EMBEDDED
from vlmgs_ns.semantics.encoders import DinoEncoder, OpenClipEncoder
from vlmgs_ns.semantics.hybrid import hybrid_map
from vlmgs_ns.semantics.relevancy import NEGATIVES, relevancy_from_scores
from vlmgs_ns.toy.light import bake
from vlmgs_ns.toy.raycast import photograph
from vlmgs_ns.toy.room import SceneObject
from vlmgs_ns.toy.scene import plan_scene
from vlmgs_ns.toy.tiny import tiny_clip_folder, tiny_dino_folder, tiny_vlm_folder
from vlmgs_ns.toy.viewpoints import Pinhole

MODELS = tiny_clip_folder().parent
SEED = 3001
LENS = Pinhole.wide(320, 240)
SMALLEST = 60  # pixels of an object that counts


@dataclass
class Scene:
    objects: tuple[SceneObject, ...]
    pictures: list[Tensor]  # [3, H, W] in [0, 1]
    instances: list[Tensor]  # [H, W], 0 for the room, otherwise 1 + index of the object

    def sightings(self) -> Iterator[tuple[int, int, Tensor, Tensor]]:
        """(picture, object, rows, columns) of everything large enough."""
        for n, instance in enumerate(self.instances):
            for k in range(len(self.objects)):
                rows, columns = torch.nonzero(instance == k + 1, as_tuple=True)
                if len(rows) >= SMALLEST:
                    yield n, k, rows, columns


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def scene() -> Scene:
    room, cameras = plan_scene(SEED, 30, 10)
    maps = bake(room)
    photos = [photograph(room, maps, LENS, camera) for camera in cameras if camera.held_out]
    pictures = [torch.from_numpy(photo.rgb).permute(2, 0, 1).float() / 255 for photo in photos]
    return Scene(room.objects, pictures, [torch.from_numpy(photo.instance.astype(np.int64)) for photo in photos])


@pytest.fixture(scope="module")
def clip() -> OpenClipEncoder:
    return OpenClipEncoder(str(tiny_clip_folder()), device="cpu")


@pytest.fixture(scope="module")
def untrained() -> torch.nn.Module:
    """The same architecture without its weights."""
    import open_clip

    torch.manual_seed(0)
    return open_clip.CLIP(**json.loads((tiny_clip_folder() / "open_clip_config.json").read_text())["model_cfg"]).eval()


@pytest.fixture(scope="module")
def crops(scene: Scene, clip: OpenClipEncoder) -> tuple[Tensor, Tensor]:
    """Square pictures of single objects [B, 3, S, S], the object in the middle, and which object [B]."""
    tiles, owners = [], []
    for n, k, rows, columns in scene.sightings():
        low, high = (torch.stack((rows, columns)).aminmax(dim=1)[edge] for edge in (0, 1))
        side = int((high - low + 1).amax().clamp(12, 120))
        corner = ((low + high - side) // 2).clamp(min=0)
        y, x = min(int(corner[0]), 240 - side), min(int(corner[1]), 320 - side)
        tile = scene.pictures[n][None, :, y : y + side, x : x + side]
        tiles.append(F.interpolate(tile, size=(clip.tile_size,) * 2, mode="bilinear", antialias=True).clamp(0, 1))
        owners.append(k)
    return torch.cat(tiles), torch.tensor(owners)


def names(scene: Scene) -> list[str]:
    return [item.name for item in scene.objects]


# --- files ---


def test_the_package_carries_at_most_nine_megabytes_and_no_pickle() -> None:
    files = [file for file in MODELS.rglob("*") if file.is_file()]
    assert 0 < sum(file.stat().st_size for file in files) <= 9_000_000
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".md", ".jinja"}


def test_the_model_card_states_what_was_measured() -> None:
    card = (MODELS / "MODEL_CARD.md").read_text(encoding="utf-8")
    for name in ("held_out.json", "held_out_vlm.json"):
        for what, value in json.loads((MODELS / name).read_text(encoding="utf-8")).items():
            assert f"| {what} | {100 * value['share']:.1f} % of {value['of']} |" in card, what


def test_the_files_are_package_data() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML by itself")
    root = Path(__file__).resolve().parents[2]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["vlmgs_ns.toy"]
    packed = {file for pattern in patterns for file in (root / "vlmgs_ns" / "toy").glob(pattern)}
    assert packed == {file for file in MODELS.rglob("*") if file.is_file()}


# --- loading ---


def test_open_clip_builds_the_model_from_its_files(clip: OpenClipEncoder, tmp_path: Path) -> None:
    import open_clip

    content = json.loads((tiny_clip_folder() / "open_clip_config.json").read_text())
    (tmp_path / "vlmgs-tiny-test.json").write_text(json.dumps(content["model_cfg"]))
    open_clip.add_model_config(tmp_path / "vlmgs-tiny-test.json")
    weights = str(tiny_clip_folder() / "open_clip_model.safetensors")
    model, _, transform = open_clip.create_model_and_transforms(
        "vlmgs-tiny-test", pretrained=weights, image_mean=(0.5,) * 3, image_std=(0.5,) * 3
    )
    assert type(model) is open_clip.CLIP
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (clip.tile_size, clip.tile_size, 3), dtype=np.uint8)
    with torch.no_grad():
        mine = model.eval().encode_image(transform(Image.fromarray(picture))[None], normalize=True)
    torch.testing.assert_close(clip.embed_images(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255), mine)


def test_transformers_loads_the_dino_whole() -> None:
    from transformers import AutoModel, Dinov2Model

    model, report = AutoModel.from_pretrained(tiny_dino_folder(), local_files_only=True, output_loading_info=True)
    assert isinstance(model, Dinov2Model) and model.dtype == torch.float32
    assert not report["missing_keys"] and not report["unexpected_keys"]


def test_the_same_bits_each_time(clip: OpenClipEncoder, scene: Scene) -> None:
    again = OpenClipEncoder(str(tiny_clip_folder()), device="cpu")
    tiles = torch.rand(5, 3, clip.tile_size, clip.tile_size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(clip.embed_images(tiles), again.embed_images(tiles))
    assert torch.equal(clip.embed_texts(names(scene)), again.embed_texts(names(scene)))
    one, two = (DinoEncoder(str(tiny_dino_folder()), device="cpu", shorter_side=120) for _ in range(2))
    assert torch.equal(one.embed(scene.pictures[0]), two.embed(scene.pictures[0]))


# --- words ---


def test_words_of_the_toy_world_are_single_tokens(scene: Scene) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_clip_folder(), local_files_only=True)
    texts = [phrase.text for item in scene.objects for phrase in object_phrases(item)]
    texts += [text for some in SURFACES.values() for text in some if "-" not in text]
    for text in [*texts, *NEGATIVES]:
        assert len(tokenizer(text).input_ids) == len(text.split()) + 2, text


def test_other_words_are_spelled_and_long_texts_keep_their_end(clip: OpenClipEncoder) -> None:
    different = clip.embed_texts(["zebra", "zebras", "Ünder", "日本", "red ball " * 40, ""])
    assert different.isfinite().all()
    assert ((different @ different.T).fill_diagonal_(0) < 0.9999).all()
    assert torch.equal(clip.embed_texts(["Red  BALL"]), clip.embed_texts(["red ball"]))


# --- what they know ---


def test_an_object_in_the_middle_finds_its_name(scene: Scene, clip: OpenClipEncoder, crops: tuple[Tensor, Tensor]) -> None:
    tiles, owners = crops
    scores = clip.embed_images(tiles) @ clip.embed_texts(names(scene)).T
    assert len(owners) >= 40
    right = (scores.argmax(dim=1) == owners).float().mean()
    assert right >= 0.5
    # Every name stands for the next object: what is left is chance, 1 of 11.
    assert (scores.roll(1, dims=1).argmax(dim=1) == owners).float().mean() <= 0.2


def test_without_training_it_is_chance(
    scene: Scene, clip: OpenClipEncoder, crops: tuple[Tensor, Tensor], untrained: torch.nn.Module
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_clip_folder(), local_files_only=True)
    tokens = tokenizer(names(scene), padding="max_length", max_length=24, return_tensors="pt").input_ids
    tiles, owners = crops
    with torch.no_grad():
        scores = F.normalize(untrained.encode_image(2 * tiles - 1), dim=-1) @ F.normalize(untrained.encode_text(tokens), dim=-1).T
    assert (scores.argmax(dim=1) == owners).float().mean() <= 0.3


def relevancy(features: Tensor, phrases: Tensor, negatives: Tensor) -> Tensor:  # [..., P]
    return relevancy_from_scores(features @ torch.cat([phrases, negatives]).T, len(phrases))


def test_a_phrase_beats_the_generic_ones_where_it_holds(
    scene: Scene, clip: OpenClipEncoder, crops: tuple[Tensor, Tensor]
) -> None:
    tiles, owners = crops
    seen, negatives = clip.embed_images(tiles), clip.embed_texts(NEGATIVES)
    found = relevancy(seen, clip.embed_texts(names(scene)), negatives) > 0.5
    own = torch.zeros_like(found).scatter_(1, owners[:, None], True)
    assert found[own].float().mean() >= 0.6
    assert found[~own].float().mean() <= 0.2
    unknown = relevancy(seen, clip.embed_texts(["elephant", "a cup of tea", "helicopter"]), negatives)
    assert (unknown > 0.5).float().mean() <= 0.1


def test_a_name_leads_to_its_object_in_whole_pictures(scene: Scene, clip: OpenClipEncoder) -> None:
    texts, negatives = clip.embed_texts(names(scene)), clip.embed_texts(NEGATIVES)
    maps = []
    for picture in scene.pictures[:3]:
        small = relevancy(hybrid_map(picture, clip.embed_images, clip.tile_size), texts, negatives)
        maps.append(F.interpolate(small.permute(2, 0, 1)[None], size=(240, 320), mode="bilinear")[0])

    def hits(shift: int) -> float:
        found = []
        for n, k, rows, columns in scene.sightings():
            if n < len(maps):
                y, x = divmod(int(maps[n][(k + shift) % len(scene.objects)].argmax()), 320)
                found.append(bool(rows.min() <= y <= rows.max() and columns.min() <= x <= columns.max()))
        return float(np.mean(found))

    assert hits(0) >= 0.6
    assert np.mean([hits(shift) for shift in (2, 5, 8)]) <= 0.35


def test_patches_of_one_thing_find_each_other_in_two_views(scene: Scene, tmp_path: Path) -> None:
    from transformers import AutoModel, Dinov2Model

    def found(folder: Path) -> float:
        """Mean over the objects and the room: patches whose nearest in another view is of the same one."""
        dino = DinoEncoder(str(folder), device="cpu", shorter_side=240)
        right = []
        for views in ((0, 1), (2, 3), (4, 5)):
            one, other = (F.normalize(dino.embed(scene.pictures[n]), dim=-1).flatten(0, 1) for n in views)
            labels, there = (scene.instances[n][4::8, 4::8].flatten() for n in views)
            hits = there[(one @ other.T).argmax(dim=1)] == labels
            right += [hits[labels == k].float().mean() for k in labels.unique() if (there == k).any()]
        return float(np.mean(right))

    torch.manual_seed(0)
    Dinov2Model(AutoModel.from_pretrained(tiny_dino_folder(), local_files_only=True).config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_bytes((tiny_dino_folder() / "preprocessor_config.json").read_bytes())
    assert found(tiny_dino_folder()) >= 0.65
    # Not chance: colours alone find some.
    assert found(tmp_path) <= 0.58


# --- the vision-language model ---


@pytest.fixture(scope="module")
def vlm() -> TransformersBackend:
    return TransformersBackend(EMBEDDED, device="cpu")


def boxes(vlm: TransformersBackend, phase: Phase, asked: list[tuple[Tensor, str]]) -> list[list[Tensor]]:
    """The boxes [4] in [0, 1] that the model answers for each picture and wish; its answers must be whole JSON."""
    questions = [
        Question(phase, prompt(phase, "thousandths", 320, 240, wish), ((255 * picture).byte().permute(1, 2, 0).numpy(),))
        for picture, wish in asked
    ]
    answers = vlm.ask(questions)
    assert all(isinstance(json.loads(answer.text or ""), list) for answer in answers)
    replies = [parse(answer.text or "", "thousandths", 320, 240) for answer in answers]
    return [[torch.tensor(box[:4]) for box in reply.boxes] for reply in replies]


def overlap(found: list[Tensor], true: Tensor) -> float:
    """IoU of the first box; 0 without one."""
    if not found:
        return 0.0
    inside = (torch.minimum(found[0][2:], true[2:]) - torch.maximum(found[0][:2], true[:2])).clamp(min=0).prod()
    union = (found[0][2:] - found[0][:2]).prod() + (true[2:] - true[:2]).prod() - inside
    return float(inside / union)


def test_the_vision_language_model_boxes_what_it_is_asked_for(scene: Scene, vlm: TransformersBackend) -> None:
    """In a room that it was not trained on; asked about another picture of the room, it is nearly always wrong."""
    asked, true = [], []
    for n, k, rows, columns in scene.sightings():
        if n < 3:
            asked.append((n, scene.objects[k].name))
            edges = [columns.min() / 320, rows.min() / 240, (columns.max() + 1) / 320, (rows.max() + 1) / 240]
            true.append(torch.tensor([float(edge) for edge in edges]))
    hits = []
    for other in (0, 5):
        found = boxes(vlm, "ground", [(scene.pictures[(n + other) % 10], name) for n, name in asked])
        hits.append(np.mean([overlap(some, box) > 0.5 for some, box in zip(found, true, strict=True)]))
    assert hits[0] >= 0.5 and hits[1] <= 0.25


def test_the_vision_language_model_answers_every_phase(scene: Scene, vlm: TransformersBackend) -> None:
    for phase in ("detail", "background", "novel"):
        found = boxes(vlm, phase, [(picture, "") for picture in scene.pictures[:3]])
        assert all(bool(((box >= 0) & (box <= 1)).all() and (box[2:] > box[:2]).all()) for some in found for box in some)
        if phase == "background":
            assert [len(some) for some in found] == [1, 1, 1], "one subject"


def test_no_word_of_the_prompts_is_spelled(vlm: TransformersBackend) -> None:
    """The model was trained on these very prompts; other words would be spelled in bytes and mean nothing to it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(tiny_vlm_folder()))
    for phase in ("detail", "background", "novel", "ground"):
        text = prompt(phase, "thousandths", 320, 240, "red marble ball")  # type: ignore[arg-type]
        assert len(tokenizer(text)["input_ids"]) <= 12, phase
