"""What a benchmark consists of, as a YAML file says it: scenes, methods with overrides, seeds, and what is measured.

Plain data, read with a safe loader. A key that is not known is an error that names the nearest one, never passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from vlmgs_ns.bench.place import Place

BASES = ("vlm-fastgs", "vlm-fastgs-big", "vlm-fastgs-lite", "fastgs")
"""Methods of ns-train that a method of a benchmark builds on."""
DATAPARSERS = ("auto", "nerfstudio", "colmap")
LABELS = ("toy", "lerf", "lerf-ovs", "3d-ovs")
PROTOCOLS = ("A", "B", "C")
POINTS = "points"


@dataclass(frozen=True)
class Published:
    """Figures that others measured. They stand beside ours, never among them."""

    what: str
    figures: str
    source: str


@dataclass(frozen=True)
class About:
    """What a reader must know of the data before he compares figures."""

    title: str
    data: str
    """Where the data comes from."""
    licence: str
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Toy:
    """The embedded scene, as `vlmgs scene` writes it."""

    seed: int = 0
    views: int = 60
    held_out: int = 12
    width: int = 320
    height: int = 240
    points: int = 10_000


@dataclass(frozen=True)
class Labels:
    """Where a scene's labels are."""

    format: str
    """One of :data:`LABELS`."""
    folder: str | None = None
    """Below the data root; None: the scene's own folder."""


@dataclass(frozen=True)
class SceneSpec:
    """One scene."""

    path: str | None = None
    """Folder of the scene below the data root; None for an embedded one."""
    toy: Toy | None = None
    dataparser: str = "auto"
    labels: Labels | None = None
    protocols: tuple[str, ...] = ()
    """Those of the benchmark, or the scene's own; none without labels."""
    starts: tuple[str, ...] = (POINTS,)
    resolution: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    masks: str | None = None
    """Folder of instance masks below the scene's, PNGs named as the photos, 0 where no object is: held-out PSNR over the
    background is measured too. An embedded scene brings its own."""
    get: str = ""
    """Where to get the scene and where to put it."""


@dataclass(frozen=True)
class MethodSpec:
    """One method: a method of ns-train with overrides, dotted paths below the trainer's config to values."""

    base: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Thresholds:
    """Fixed for all scenes, never searched for."""

    relevancy: float = 0.5
    """B and C: from which a pixel or a Gaussian belongs to a phrase. 0.5 is a tie with the hardest negative."""
    least_alpha: float = 0.5
    """C: opacity from which a pixel counts as covered."""


@dataclass(frozen=True)
class Spec:
    """A whole benchmark."""

    path: Path
    about: About
    scenes: Mapping[str, SceneSpec]
    methods: Mapping[str, MethodSpec]
    seeds: tuple[int, ...]
    iterations: int
    checks: int
    """Points of the curves: evaluations along a run."""
    thresholds: Thresholds

    @property
    def name(self) -> str:
        """Of the file, without its suffix."""
        return self.path.stem


def read_spec(path: Path) -> Spec:
    """Read and check a specification.

    Raises:
        InputError: the file cannot be read, or anything in it is missing, unknown or out of range; names the place and the fix.
    """
    place = Place.read(path)
    entries = place.fields(
        ("about", "scenes", "methods", "seeds", "iterations", "resolution", "starts", "protocols", "thresholds", "checks"),
        needed=("about", "scenes", "methods", "seeds", "iterations", "resolution"),
    )
    iterations = entries["iterations"].whole(1)
    checks = entries["checks"].whole(1) if "checks" in entries else 6
    if checks > iterations:
        entries["checks"].refuse(f"there are only {iterations} iterations")
    common = {
        "resolution": entries["resolution"].whole(0),
        "starts": _starts(entries["starts"]) if "starts" in entries else (POINTS,),
        "protocols": _protocols(entries["protocols"]) if "protocols" in entries else (),
    }
    seeds = tuple(seed.whole(0) for seed in entries["seeds"].items())
    entries["seeds"].no_twins(seeds)
    return Spec(
        path=path,
        about=_about(entries["about"]),
        scenes={_name(scene, name): _scene(scene, common) for name, scene in _some(entries["scenes"]).items()},
        methods={_name(method, name): _method(method) for name, method in _some(entries["methods"]).items()},
        seeds=seeds,
        iterations=iterations,
        checks=checks,
        thresholds=_thresholds(entries["thresholds"]) if "thresholds" in entries else Thresholds(),
    )


def _some(place: Place) -> dict[str, Place]:
    entries = place.entries()
    return entries if entries else place.refuse("must have something in it", "Add an entry.")


def _name(place: Place, name: str) -> str:
    if set(name) & set(",=/\\\n"):
        place.refuse(f"its name {name!r} has a comma, an equals sign or a slash", "Choose another name.")
    return name


def _about(place: Place) -> About:
    entries = place.fields(("title", "data", "licence", "published"), needed=("title", "data", "licence"))
    keys = ("what", "figures", "source")
    published = entries["published"].items() if "published" in entries else []
    rows = [{key: value.text() for key, value in row.fields(keys, needed=keys).items()} for row in published]
    return About(
        **{key: entries[key].text() for key in ("title", "data", "licence")}, published=tuple(Published(**r) for r in rows)
    )


def _starts(place: Place) -> tuple[str, ...]:
    starts = []
    for item in place.items():
        if item.content == POINTS:
            starts.append(POINTS)
        elif isinstance(item.content, dict):
            starts.append(f"random {item.fields(('random',), needed=('random',))['random'].whole(1)}")
        else:
            item.refuse("a start is points, the scene's own, or a number of random ones", "Write points, or {random: 100}.")
    place.no_twins(starts)
    return tuple(starts)


def _protocols(place: Place) -> tuple[str, ...]:
    if place.content == []:
        return ()
    chosen = tuple(item.choice(PROTOCOLS) for item in place.items())
    place.no_twins(chosen)
    return chosen


def _scene(place: Place, common: Mapping[str, Any]) -> SceneSpec:
    entries = place.fields([entry.name for entry in fields(SceneSpec)])
    if ("path" in entries) == ("toy" in entries):
        place.refuse("a scene has either a path or toy settings", "Write {path: FOLDER} or {toy: {seed: 0}}.")
    toy = _toy(entries["toy"]) if "toy" in entries else None
    labels = Labels("toy") if toy is not None else None
    if "labels" in entries:
        keys = entries["labels"].fields(("format", "folder"), needed=("format",))
        labels = Labels(keys["format"].choice(LABELS), keys["folder"].text() if "folder" in keys else None)
    protocols = _protocols(entries["protocols"]) if "protocols" in entries else common["protocols"]
    if "protocols" in entries and protocols and labels is None:
        entries["protocols"].refuse("the scene has no labels to measure by", "Add labels: {format: …}.")
    return SceneSpec(
        path=entries["path"].text() if "path" in entries else None,
        toy=toy,
        dataparser=entries["dataparser"].choice(DATAPARSERS) if "dataparser" in entries else "auto",
        labels=labels,
        protocols=protocols if labels is not None else (),
        starts=_starts(entries["starts"]) if "starts" in entries else common["starts"],
        resolution=entries["resolution"].whole(0) if "resolution" in entries else common["resolution"],
        overrides=_overrides(entries["overrides"]) if "overrides" in entries else {},
        masks=entries["masks"].text() if "masks" in entries else "masks_instance" if toy is not None else None,
        get=entries["get"].text() if "get" in entries else "",
    )


def _toy(place: Place) -> Toy:
    keys = [entry.name for entry in fields(Toy)]
    return Toy(**{key: value.whole(0) for key, value in place.fields(keys).items()})


def _method(place: Place) -> MethodSpec:
    entries = place.fields(("base", "overrides"), needed=("base",))
    return MethodSpec(entries["base"].choice(BASES), _overrides(entries["overrides"]) if "overrides" in entries else {})


def _overrides(place: Place) -> dict[str, Any]:
    """Paths, with underscores as in Python, to plain values. Whether there is such a setting is for `configure` to say."""
    found = {}
    for key, value in place.entries().items():
        values = value.content if isinstance(value.content, list) else [value.content]
        if not all(entry is None or isinstance(entry, (bool, int, float, str)) for entry in values):
            value.refuse("a setting is text, a number, true, false, null, or a list of these", "Write out.its.path: value.")
        found[key.replace("-", "_")] = value.content
    return found


def _thresholds(place: Place) -> Thresholds:
    return Thresholds(**{key: value.fraction() for key, value in place.fields(("relevancy", "least_alpha")).items()})
