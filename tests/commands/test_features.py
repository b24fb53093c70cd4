"""`vlmgs features` through its console script, on the embedded models: the maps are those that training would make, made once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.bench.conftest import VLMGS, bench_fork, environment
from tests.console.forks import ForkServer
from vlmgs_ns.toy.scene import write_scene

TINY = ("--method", "vlm-fastgs-lite", "--clip", "embedded", "--dino", "embedded")


def features(data: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """The console script itself."""
    argv = [VLMGS, "features", str(data), *map(str, args)]
    return subprocess.run(argv, env=environment(data.parent), capture_output=True, text=True, timeout=600, check=False)


def features_fork(server: ForkServer, data: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """The same, faster."""
    return server.run(["vlmgs", "features", str(data), *map(str, args)], data.parent, environment(data.parent))


def maps(data: Path) -> dict[str, bytes]:
    folder = data / ".vlmgs_cache" / "features"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/*.npy")}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photos to train on and one held out."""
    path = tmp_path_factory.mktemp("features") / "room"
    write_scene(path, views=6, held_out=1, width=48, height=36, points=100, supersample=1)
    return path


def test_made_once_and_the_same_on_ray(scene: Path, tmp_path: Path, fork_server: ForkServer) -> None:
    first = features_fork(fork_server, scene, *TINY)
    assert first.returncode == 0 and "5 photos have their feature maps" in first.stdout, first.stderr
    made = maps(scene)
    assert len(made) == 5 and "5 new: OpenCLIP" in first.stdout, "lift needs no DINO maps"
    again = features_fork(fork_server, scene, *TINY)
    assert again.returncode == 0 and "nothing was left to do" in again.stdout and maps(scene) == made

    pytest.importorskip("ray")
    other = tmp_path / "room"
    write_scene(other, views=6, held_out=1, width=48, height=36, points=100, supersample=1)
    done = features(other, *TINY, "--executor", "ray", "--jobs", "2", "--batch", "3")
    assert done.returncode == 0, done.stderr
    assert "5 new: OpenCLIP" in done.stdout and maps(other) == made


def test_maps_are_of_the_photos_that_training_sees(scene: Path, fork_server: ForkServer) -> None:
    """A run of the lite method on photos of this size finds every map that it needs."""
    features_fork(fork_server, scene, *TINY, "--max-image-size", 40)
    made = maps(scene)
    text = (
        "about: {title: t, data: d, licence: l}\n"
        "scenes: {room: {path: room, labels: {format: toy}}}\n"
        "methods: {lite: {base: vlm-fastgs-lite, overrides: {pipeline.model.semantics.clip: embedded,"
        " pipeline.model.semantics.dino: embedded, pipeline.model.guidance.backend: residual}}}\n"
        "seeds: [0]\niterations: 2\nchecks: 1\nresolution: 40\nprotocols: [A]\n"
    )
    (scene.parent / "t.yaml").write_text(text, encoding="utf-8")
    done = bench_fork(fork_server, scene.parent, "t.yaml", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert maps(scene) == made


@pytest.mark.parametrize(
    ("args", "part"),
    [(("--batch", 0), "--batch 0"), (("--max-image-size", -1), "is not a size"), (("--address", "x"), "add --executor ray")],
)
def test_bad_input_is_one_line(scene: Path, args: tuple[object, ...], part: str) -> None:
    done = features(scene, *args)
    assert done.returncode == 1 and part in done.stderr and done.stderr.count("\n") == 1


def test_no_scene_is_one_line(tmp_path: Path) -> None:
    done = features(tmp_path / "none")
    assert done.returncode == 1 and "does not exist; give the folder of a scene" in done.stderr and done.stderr.count("\n") == 1
