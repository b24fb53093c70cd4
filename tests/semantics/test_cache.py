"""The cache of feature maps: real files, real processes, real kills."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.semantics import cache_workers as workers
from vlmgs_ns.semantics.cache import FeatureCache, caches_of, default_cache, format_size, photo_digest
from vlmgs_ns.system.errors import InputError

KEY = "encoder abc, 7 tile sizes"
PHOTO = photo_digest(np.zeros((2, 2, 3), np.uint8))


def some_map(seed: int = 0) -> Tensor:
    return torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(seed))


def never() -> Tensor:
    raise AssertionError("computed again")


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def assert_map(got: np.ndarray | None, seed: int = 0) -> None:
    """Equal to a map but for half a step of the 127 to a cell's greatest value."""
    expected = some_map(seed).numpy()
    assert got is not None and got.shape == expected.shape
    assert (np.abs(got - expected) <= 1.001 * np.abs(expected).max(axis=2, keepdims=True) / 254).all()


def test_a_map_is_computed_once_and_read_again(cache: FeatureCache) -> None:
    assert cache.find(PHOTO, KEY) is None
    first = cache.get(PHOTO, KEY, some_map)
    again = FeatureCache(cache.folder).get(PHOTO, KEY, never)
    assert_map(first)
    np.testing.assert_array_equal(first, again)
    assert names(cache.folder) == [f"{PHOTO.hex()}.npy", "manifest.json"]


def test_what_changed_is_noticed(cache: FeatureCache) -> None:
    photo = np.zeros((2, 2, 3), np.uint8)
    cache.get(photo_digest(photo), KEY, lambda: some_map(1))
    cache.get(photo_digest(photo.copy()), KEY, never)
    changed = photo_digest(photo + 1)
    got = cache.get(changed, KEY, lambda: some_map(2))
    assert_map(got, 2)
    got = cache.get(changed, KEY + " more", lambda: some_map(3))
    assert_map(got, 3)


def test_digests_tell_pixels_shapes_and_types_apart() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    other = pixels.copy()
    other[1, 2, 0] += 1
    digests = {photo_digest(array) for array in (pixels, other, pixels.reshape(4, 2, 3), pixels.view(np.int8))}
    assert len(digests) == 4
    assert photo_digest(np.asfortranarray(pixels)) == photo_digest(pixels)


def test_entries_sizes_and_clear(cache: FeatureCache) -> None:
    assert cache.entries() == [] and cache.size() == 0 and cache.clear() == 0
    for seed in range(3):
        cache.get(photo_digest(np.full((1, 1, 3), seed)), "b", some_map)
    path = cache.path(PHOTO, "a")
    cache.get(PHOTO, "a", some_map)
    assert [(entry.key, entry.photos) for entry in cache.entries()] == [("a", 1), ("b", 3)]
    assert cache.entries()[0].size == path.stat().st_size == 128 + 4 * 5 * (6 + 4)
    assert cache.size() == 4 * path.stat().st_size
    assert cache.clear() > cache.size() == 0
    assert not cache.folder.exists()


def test_clear_removes_only_what_the_cache_wrote(cache: FeatureCache) -> None:
    cache.get(PHOTO, KEY, some_map)
    inside = cache.path(PHOTO, KEY).with_name("thesis.txt")
    for mine in (inside, cache.folder / "thesis.npy", cache.folder / "mine" / f"{PHOTO.hex()}.npy"):
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("years of work")
    cache.clear()
    assert names(cache.folder) == sorted(["thesis.txt", "thesis.npy", f"{PHOTO.hex()}.npy"])


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "truncated": content[:-7],
            "cut in its header": content[:40],
            "longer": content + b"x",
            "not ours": b"PK\x03\x04" + content,
            "pickled": b"\x80\x04K\x01.",
            "header": content[:10] + b"{'descr': '|i1', 'fortran_order': False, 'shape': (4, 5, 10" + content[70:],
            "other type": content.replace(b"|i1", b"|u1"),
            "one bit": content[:200] + bytes([content[200] ^ 1]) + content[201:],
            "other shape": content.replace(b"(4, 5, 10), }", b"(20, 10), }  "),
        }[how]
    )


@pytest.mark.parametrize(
    "how",
    [
        "empty",
        "truncated",
        "cut in its header",
        "longer",
        "not ours",
        "pickled",
        "header",
        "other type",
        "other shape",
        "one bit",
    ],
)
def test_a_damaged_file_is_reported_and_computed_again(cache: FeatureCache, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    cache.get(PHOTO, KEY, some_map)
    path = cache.path(PHOTO, KEY)
    damage(path, how)
    got = cache.get(PHOTO, KEY, lambda: some_map(1))
    said = capsys.readouterr().out
    assert "damaged" in said and str(path) in said
    assert_map(got, 1)
    cache.get(PHOTO, KEY, never)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(cache: FeatureCache, value: float) -> None:
    with pytest.raises(ValueError, match=r"not finite.*float32"):
        cache.get(PHOTO, KEY, lambda: torch.full((2, 2, 2), value))
    with pytest.raises(ValueError, match=r"\[h, w, D\].*\[2, 2\]"):
        cache.get(PHOTO, KEY, lambda: torch.zeros(2, 2))
    assert names(cache.folder) == []


def test_a_failure_to_compute_leaves_nothing(cache: FeatureCache) -> None:
    with pytest.raises(AssertionError, match="computed again"):
        cache.get(PHOTO, KEY, never)
    assert names(cache.folder) == []


def test_threads_get_the_same_map(cache: FeatureCache) -> None:
    with ThreadPoolExecutor(8) as pool:
        maps = list(pool.map(lambda _: np.array(cache.get(PHOTO, KEY, some_map)), range(32)))
    for got in maps:
        assert_map(got)
    assert names(cache.folder) == [f"{PHOTO.hex()}.npy", "manifest.json"]


def test_processes_that_make_the_same_maps_at_once(cache: FeatureCache) -> None:
    started = [workers.start(workers.compete, cache.folder) for _ in range(3)]
    assert [pipe.recv() for _, pipe in started] == ["ready"] * 3
    for _, pipe in started:
        pipe.send("go")
    assert [pipe.recv() for _, pipe in started] == [0, 0, 0]
    for process, _ in started:
        process.join(60)
        assert process.exitcode == 0
    assert [entry.photos for entry in cache.entries()] == [100]
    assert len(names(cache.folder)) == 101  # no partial file is left


def test_after_a_kill_every_map_is_whole(cache: FeatureCache, capsys: pytest.CaptureFixture[str]) -> None:
    process, _ = workers.start(workers.write_many, cache.folder)
    deadline = time.monotonic() + 60
    while cache.size() < 5 * 680_000:
        assert process.is_alive() and time.monotonic() < deadline
    process.kill()
    process.join()
    (entry,) = cache.entries()
    for k in range(entry.photos):
        found = cache.find(workers.photo(k), "key")
        assert found is not None and np.allclose(found, k % 100, rtol=1e-3)
    assert capsys.readouterr().out == ""


def test_what_a_kill_left_is_no_map_and_is_cleared(cache: FeatureCache) -> None:
    cache.get(PHOTO, KEY, some_map)
    left = cache.path(PHOTO, KEY).with_name(f".{PHOTO.hex()}.123.partial.npy")
    left.write_bytes(b"\x93NUMPY")
    assert [entry.photos for entry in cache.entries()] == [1]
    cache.clear()
    assert not left.exists() and not cache.folder.exists()


def test_no_room_is_one_error_and_leaves_no_half_file(cache: FeatureCache) -> None:
    _, pipe = workers.start(workers.write_too_much, cache.folder, 100_000)
    said = pipe.recv()
    assert str(cache.folder) in said and "File too large" in said and "630 kB" in said and "vlmgs cache" in said
    assert names(cache.folder) == ["manifest.json"] and cache.entries() == []


@pytest.mark.parametrize("writable", [True, False])
def test_maps_lie_beside_the_data_or_with_the_user_where_it_is_read_only(
    tmp_path: Path, writable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, home = tmp_path / "my data", tmp_path / "home"
    for folder in (data, home):
        folder.mkdir()
    user = None
    if os.getuid() == 0:  # may write anywhere
        user = 65534
        # pytest's own folders: one more level where tests run in several processes
        for folder in (tmp_path, *(one for one in tmp_path.parents if one.name.startswith(("pytest-", "popen-")))):
            folder.chmod(0o755)
        for folder in (data, home):
            os.chown(folder, user, user)
    data.chmod(0o755 if writable else 0o555)
    _, pipe = workers.start(workers.use_default, data, home, user)
    said = pipe.recv()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    (cache,) = caches_of(data)
    assert [entry.photos for entry in cache.entries()] == [1]
    if writable:
        assert cache.folder == data / ".vlmgs_cache" / "features" and said == ""
    else:
        assert cache.folder.is_relative_to(home / "vlmgs_ns" / "features")
        assert "Permission denied" in said and str(cache.folder) in said
    data.chmod(0o755)


def test_the_default_place_of_a_file_is_its_folder(tmp_path: Path) -> None:
    (tmp_path / "transforms.json").write_text("{}")
    assert (
        default_cache(tmp_path / "transforms.json").folder == default_cache(tmp_path).folder == tmp_path / ".vlmgs_cache/features"
    )


def test_no_place_to_write_at_all_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".vlmgs_cache").write_text("in the way")
    (tmp_path / "home").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with pytest.raises(InputError, match=r"neither in .*\.vlmgs_cache.* nor in .*home.*XDG_CACHE_HOME"):
        default_cache(tmp_path)
    with pytest.raises(InputError, match=r"nowhere does not exist; give the folder of a scene"):
        default_cache(tmp_path / "nowhere")


def test_sizes_in_words() -> None:
    assert [format_size(size) for size in (0, 999, 3_940_000, 240_000_000, 1_500_000_000, 2 * 10**12)] == [
        *("0 bytes", "999 bytes", "3.9 MB", "240 MB", "1.5 GB", "2.0 TB"),
    ]


def test_a_map_of_an_earlier_version_is_not_read(cache: FeatureCache, capsys: pytest.CaptureFixture[str]) -> None:
    cache.get(PHOTO, KEY, some_map)
    np.save(cache.path(PHOTO, KEY), some_map(1).half().numpy())
    assert cache.find(PHOTO, KEY) is None and "damaged" in capsys.readouterr().out
    assert_map(cache.get(PHOTO, KEY, some_map))


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-4, 1.0, 1e9])
def test_vectors_of_any_length_keep_their_direction(cache: FeatureCache, size: float) -> None:
    values = size * torch.nn.functional.normalize(torch.randn(7, 9, 384, generator=torch.Generator().manual_seed(0)), dim=-1)
    got = torch.from_numpy(cache.get(PHOTO, KEY, lambda: values))
    assert torch.allclose(got.norm(dim=-1), values.norm(dim=-1), rtol=5e-3)
    if size:
        assert torch.cosine_similarity(got / size, values / size, dim=-1).min() > 0.9998  # cos 1°


def test_a_folder_in_a_maps_place_is_one_line(cache: FeatureCache) -> None:
    cache.path(PHOTO, KEY).mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be written"):
        cache.get(PHOTO, KEY, some_map)


def test_numpy_reads_a_map_as_any_other_array(cache: FeatureCache) -> None:
    cache.get(PHOTO, KEY, some_map)
    codes = np.load(cache.path(PHOTO, KEY))
    assert_map(codes[..., :-4] * np.ascontiguousarray(codes[..., -4:]).view(np.float32))
