"""Maps of all photos, with encoders that count what they are asked: plumbing alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vlmgs_ns.semantics.cache import FeatureCache, format_size
from vlmgs_ns.semantics.encoders import DenseEncoder, ImageTextEncoder
from vlmgs_ns.semantics.features import FeatureMaps, feature_maps
from vlmgs_ns.semantics.hybrid import hybrid_map
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import bar


class Clip(ImageTextEncoder):
    name, dimension, tile_size = "clip", 3, 4

    def __init__(self, fingerprint: str = "clip 1") -> None:
        self.fingerprint = fingerprint
        self.calls = self.released = 0

    def embed_images(self, pictures: Tensor) -> Tensor:
        self.calls += 1
        return torch.nn.functional.normalize(pictures.mean(dim=(2, 3)) + 0.1, dim=-1)

    def embed_texts(self, phrases: Sequence[str]) -> Tensor:
        return torch.ones(len(phrases), 3)

    def release(self) -> None:
        self.released += 1


class Dino(DenseEncoder):
    name, fingerprint, dimension = "dino", "dino 1", 3

    def __init__(self, stop_after: int = 1000) -> None:
        self.stop_after = stop_after
        self.calls = self.released = 0

    def embed(self, picture: Tensor) -> Tensor:
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        return picture.permute(1, 2, 0)

    def release(self) -> None:
        self.released += 1


class Album(list):
    def photo(self, index: int) -> Any:
        return self[index]


def photos(count: int) -> Album:
    return Album(np.random.default_rng(0).integers(0, 256, (count, 20, 30, 3), dtype=np.uint8))


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


def test_maps_come_by_photo_and_only_once_each(cache: FeatureCache, capsys: pytest.CaptureFixture[str]) -> None:
    clip, dino = Clip(), Dino()
    scene = photos(3)
    with bar("Looking at photos", 3) as report:
        maps = feature_maps(scene, clip, dino, cache, report)
    assert isinstance(maps, FeatureMaps) and len(maps) == 3 and (clip.released, dino.released) == (1, 1)
    for k, photo in enumerate(scene):
        picture = torch.from_numpy(photo).permute(2, 0, 1) / 255
        expected = hybrid_map(picture, Clip().embed_images, 4)
        torch.testing.assert_close(torch.from_numpy(maps[k].clip), expected, atol=4e-3, rtol=0)
        np.testing.assert_allclose(maps[k].dino, photo / 255, atol=4e-3)
    said = capsys.readouterr().out
    assert "3/3" in said and "3 new" in said and f"{format_size(cache.size())} on disk" in said
    again = Clip()
    with bar("Looking at photos", 3) as report:
        feature_maps(Album(map(torch.from_numpy, scene)), again, Dino(0), cache, report)  # tensors are the same photos
    assert again.calls == 0 and "0 new" in capsys.readouterr().out


def test_only_what_changed_is_made_again(cache: FeatureCache) -> None:
    scene = photos(3)
    feature_maps(scene, Clip(), Dino(), cache)
    scene[1] = scene[1] ^ 1
    dino = Dino()
    feature_maps(scene, Clip(), dino, cache)
    assert dino.calls == 1
    clip, dino = Clip("clip 2"), Dino()
    feature_maps(scene, clip, dino, cache)
    assert clip.calls > 0 and dino.calls == 0
    clip.tile_sizes = 2
    maps = feature_maps(scene, clip, dino, cache)
    assert dino.calls == 0
    picture = torch.from_numpy(scene[0]).permute(2, 0, 1) / 255
    expected = hybrid_map(picture, Clip().embed_images, 4, scales=2, largest=0.125)
    torch.testing.assert_close(torch.from_numpy(maps[0].clip), expected, atol=4e-3, rtol=0)


def test_an_interruption_loses_nothing_that_was_made(cache: FeatureCache) -> None:
    scene, clip, stopped = photos(5), Clip(), Dino(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        feature_maps(scene, clip, stopped, cache)
    assert (clip.released, stopped.released) == (1, 1)
    resumed, seen = Dino(), []
    feature_maps(scene, Clip(), resumed, cache, progress=lambda done, note="": seen.append((done, note.partition(",")[0])))
    assert resumed.calls == 2
    assert seen == [(1, "0 new"), (2, "0 new"), (3, "0 new"), (4, "1 new"), (5, "2 new")]


def test_photos_are_asked_for_one_at_a_time(cache: FeatureCache) -> None:
    class Lazy:
        def __init__(self) -> None:
            self.asked: list[int] = []

        def __len__(self) -> int:
            return 4

        def photo(self, index: int) -> np.ndarray:
            self.asked.append(index)
            return photos(4)[index]

    lazy = Lazy()
    feature_maps(lazy, Clip(), None, cache)
    assert lazy.asked == [0, 1, 2, 3]


def test_without_a_dense_encoder_there_are_no_dense_maps(cache: FeatureCache) -> None:
    maps = feature_maps(photos(1), Clip(), None, cache)
    assert maps[0].dino is None and [entry.photos for entry in cache.entries()] == [1]


def test_floating_photos_are_taken_as_they_are(cache: FeatureCache) -> None:
    scene = Album(photo.astype(np.float32) / 255 for photo in photos(1))
    np.testing.assert_allclose(feature_maps(scene, Clip(), Dino(), cache)[0].dino, scene[0], atol=4e-3)


def test_maps_removed_while_in_use_are_one_error(cache: FeatureCache) -> None:
    maps = feature_maps(photos(1), Clip(), None, cache)
    cache.clear()
    with pytest.raises(InputError, match="removed or damaged while in use"):
        maps[0]


def test_a_photo_with_alpha_is_refused(cache: FeatureCache) -> None:
    with pytest.raises(ValueError, match=r"photo 0 has shape \[2, 2, 4\]"):
        feature_maps(Album([np.zeros((2, 2, 4), np.uint8)]), Clip(), None, cache)


def test_a_damaged_map_is_told_once_and_made_again(cache: FeatureCache, capsys: pytest.CaptureFixture[str]) -> None:
    feature_maps(photos(1), Clip(), Dino(), cache)
    for path in cache.folder.rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:-1])
    capsys.readouterr()
    maps = feature_maps(photos(1), Clip(), Dino(), cache)
    assert capsys.readouterr().out.count("); it is computed again.") == 2  # two maps
    np.testing.assert_allclose(maps[0].dino, photos(1)[0] / 255, atol=4e-3)
