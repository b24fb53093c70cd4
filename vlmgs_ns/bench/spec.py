"""Specification of a benchmark, read from a YAML file: scenes, methods with overrides, seeds, and what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from vlmgs_ns.system.strict import StrictModel, Text, fault, read_yaml

Item = TypeVar("Item")


def _unique(values: tuple[Item, ...]) -> tuple[Item, ...]:
    for value in values:
        if values.count(value) > 1:
            raise fault(f"{value!r} is there twice", "Keep one of them.")
    return values


def _start(value: Any) -> str:
    if value == "points":
        return "points"
    number = value["random"] if isinstance(value, dict) and list(value) == ["random"] else None
    if type(number) is not int or number < 1:
        raise fault("a start is points, the scene's own, or a number of random ones", "Write points, or {random: 100}.")
    return f"random {number}"


def _name(name: str) -> str:
    if set(name) & set(",=/\\\n"):
        raise fault("has a comma, an equals sign or a slash", "Choose another name.")
    return name


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise fault("must be a number from 0 to 1")
    return value


def _setting(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    if not all(entry is None or isinstance(entry, (bool, int, float, str)) for entry in values):
        raise fault("a setting is text, a number, true, false, null, or a list of these", "Write out.its.path: value.")
    return value


Whole = Annotated[int, Field(strict=True, ge=0)]
Positive = Annotated[int, Field(strict=True, ge=1)]
Share = Annotated[float, Field(strict=True), AfterValidator(_share)]
Point = tuple[float, float, float]
Name = Annotated[Text, AfterValidator(_name)]
Starts = Annotated[tuple[Annotated[str, BeforeValidator(_start)], ...], Field(min_length=1), AfterValidator(_unique)]
"""Points to start from: ``points``, the scene's own, or ``random N``."""
Protocols = Annotated[tuple[Literal["A", "B", "B-langsplat", "C", "C-find"], ...], AfterValidator(_unique)]
Overrides = Annotated[
    dict[Text, Annotated[Any, BeforeValidator(_setting)]],
    AfterValidator(lambda settings: {path.replace("-", "_"): value for path, value in settings.items()}),
]
"""Dotted paths below the trainer's config to plain values. Whether there is such a setting is for `configure` to check."""


Marks = Literal["none", "words", "boxes", "shuffled boxes", "moved boxes", "whole photos"]


class Published(StrictModel):
    """Figures that others measured. They stand beside ours, never among them."""

    what: Text
    figures: Text
    source: Text


class About(StrictModel):
    """What a reader must know of the data before comparing figures."""

    title: Text
    data: Text
    """Where the data comes from."""
    licence: Text
    published: tuple[Published, ...] = ()


class Toy(StrictModel):
    """The embedded scene, as `vlmgs scene` writes it."""

    seed: Whole = 0
    views: Whole = 60
    held_out: Whole = 12
    arc: bool = False
    width: Whole = 320
    height: Whole = 240
    points: Whole = 10_000


class Labels(StrictModel):
    """Where a scene's labels are."""

    format: Literal["toy", "lerf", "lerf-ovs", "3d-ovs"]
    folder: Text | None = None
    """Below the data root; None: the scene's own folder."""


class SceneSpec(StrictModel):
    """One scene."""

    path: Text | None = None
    """Folder of the scene below the data root; None for an embedded one."""
    toy: Toy | None = None
    dataparser: Literal["auto", "nerfstudio", "colmap"] = "auto"
    labels: Labels | None = None
    protocols: Protocols = ()
    """By default those of the benchmark, where the scene has labels."""
    starts: Starts = ("points",)
    """By default those of the benchmark."""
    resolution: Whole = 0
    """Longest side of a photo in pixels, 0: its own; by default that of the benchmark."""
    overrides: Overrides = Field(default_factory=dict)
    masks: Text | None = None
    """Folder of instance masks below the scene's, PNGs named as the photos, 0 where no object is: held-out PSNR inside and
    outside of them is measured too. An embedded scene brings its own."""
    object: Whole | None = None
    """Value of the masks that inside is; None: all but 0."""
    box: tuple[Point, Point] | None = None
    """Instead of masks: two opposite corners of a box around an object, along the axes of the trained scene, as the viewer has
    them. Inside is what it covers in a photo, whatever stands before it."""
    get: Text = ""
    """Where to get the scene and where to put it."""

    @field_validator("protocols")
    @classmethod
    def _labels_to_measure_by(cls, protocols: Protocols, info: ValidationInfo) -> Protocols:
        if protocols and info.data.get("labels") is None and info.data.get("toy") is None:
            raise fault("the scene has no labels to measure by", "Add labels: {format: …}.")
        return protocols

    @model_validator(mode="after")
    def _path_or_toy(self) -> SceneSpec:
        if (self.path is None) == (self.toy is None):
            raise fault("a scene has either a path or toy settings", "Write {path: FOLDER} or {toy: {seed: 0}}.")
        if self.box is not None and (self.masks is not None or self.toy is not None):
            raise fault("a scene has either masks or a box", "Remove one of them.")
        return self


class MethodSpec(StrictModel):
    """One method: a method of ns-train with overrides."""

    base: Literal["vlm-fastgs", "vlm-fastgs-big", "vlm-fastgs-cpu", "vlm-fastgs-lite", "fastgs"]
    overrides: Overrides = Field(default_factory=dict)
    marks: Marks = "none"
    """What the user wants in detail: the scene's `object` by its name in an embedded scene, or by boxes around it; as controls,
    boxes of other photos, boxes of their size anywhere, or whole photos."""


class Thresholds(StrictModel):
    """Fixed for all scenes, never searched for."""

    relevancy: Share = 0.5
    """B and C: from which a pixel or a Gaussian belongs to a phrase. 0.5 is a tie with the hardest negative."""
    least_alpha: Share = 0.5
    """C: opacity from which a pixel counts as covered."""


class Spec(StrictModel):
    """A whole benchmark."""

    about: About
    seeds: Annotated[tuple[Whole, ...], Field(min_length=1), AfterValidator(_unique)]
    iterations: Positive
    checks: Positive = 6
    """Points of the curves: evaluations along a run."""
    resolution: Whole
    starts: Starts = ("points",)
    protocols: Protocols = ()
    thresholds: Thresholds = Thresholds()
    methods: Annotated[dict[Name, MethodSpec], Field(min_length=1)]
    scenes: Annotated[dict[Name, SceneSpec], Field(min_length=1)]
    _path: Path = PrivateAttr(default=Path())

    @field_validator("checks")
    @classmethod
    def _checks_fit(cls, checks: int, info: ValidationInfo) -> int:
        if checks > info.data.get("iterations", checks):
            raise fault(f"there are only {info.data['iterations']} iterations")
        return checks

    @property
    def path(self) -> Path:
        """The file it was read from."""
        return self._path

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem


def read_spec(path: Path) -> Spec:
    """Read and check a specification; what is common to all scenes is filled in.

    Raises:
        InputError: the file cannot be read, or anything in it is missing, unknown or out of range; names the place and the fix.
    """
    spec = read_yaml(path, Spec)
    spec._path = path
    return spec.model_copy(update={"scenes": {name: _filled(scene, spec) for name, scene in spec.scenes.items()}})


def _filled(scene: SceneSpec, spec: Spec) -> SceneSpec:
    """Return the scene with what it leaves to the benchmark, and what an embedded one brings."""
    common: dict[str, Any] = {"resolution": spec.resolution, "starts": spec.starts}
    if scene.toy is not None:
        common |= {"labels": Labels(format="toy"), "masks": "masks_instance"}
    if scene.labels is not None or scene.toy is not None:
        common["protocols"] = spec.protocols
    return scene.model_copy(update={name: value for name, value in common.items() if name not in scene.model_fields_set})
