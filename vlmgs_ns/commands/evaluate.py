"""``vlmgs eval``: how well words find things in a trained scene, by one of the three protocols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from vlmgs_ns.evaluation.labels import LabelledScene, LabelledView
    from vlmgs_ns.evaluation.report import Report
    from vlmgs_ns.runs import OpenRun

THRESHOLD = 0.5
"""A tie with the hardest negative."""


@dataclass
class Evaluate:
    """Measure how well words find things in a trained scene, against labels. Figures of two protocols never compare."""

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run, as ns-train wrote it: its folder or its config.yml."""
    protocol: Literal["A", "B", "C"] = "A"
    """A: is the greatest pixel of the relevancy map in a box of the phrase (LERF)? B: IoU of the map above a threshold, and of
    the arg max over the label set (LERF-OVS 2-D, 3D-OVS). C: IoU of the silhouette of the Gaussians that the phrase selects."""
    labels: Literal["auto", "toy", "lerf", "lerf-ovs", "3d-ovs"] = "auto"
    """Whose format the labels have; auto: toy where there is a labels.json, else it must be said."""
    folder: Path | None = None
    """Folder of the labels; by default the scene's own."""
    threshold: float = THRESHOLD
    """B and C: relevancy above which a pixel or a Gaussian belongs to a phrase; one for all scenes."""
    least_alpha: float = 0.5
    """C: opacity from which a pixel counts as covered."""
    output: Path | None = None
    """Where to write the report; by default eval_A.json (or B, C) in the run's folder."""

    def run(self) -> None:
        """Measure, print the means and write the report."""
        from vlmgs_ns.errors import InputError
        from vlmgs_ns.progress import say
        from vlmgs_ns.runs import find_config, open_run

        if not 0 <= self.threshold < 1:
            raise InputError(f"--threshold {self.threshold}: relevancy is from 0 to 1; give 0 or more and less than 1")
        if not 0 < self.least_alpha <= 1:
            raise InputError(f"--least-alpha {self.least_alpha}: opacity is from 0 to 1; give more than 0 and at most 1")
        find_config(self.run_folder)
        # What is wrong with the labels is told before the run is loaded, where that can be known.
        scene = None if self.folder is None else self._read(self.folder)
        run = open_run(self.run_folder)
        if scene is None:
            scene = self._read(run.data)
        self._check(scene)
        query = _Query(run)
        if not any(view.stem in query.cameras for view in scene.views):
            raise InputError(
                f"none of the {len(scene.views)} labelled pictures ({scene.views[0].image}, …) is a photo of this run; give "
                "labels of its photos, under their names"
            )
        try:
            found = self._measure(scene, query, run)
        except ValueError as error:
            # Labels in another shape than the photos, or that show nothing.
            raise error if isinstance(error, InputError) else InputError(str(error)) from None
        path = self.output or run.folder / f"eval_{self.protocol}.json"
        found.write(path)
        say(f"{found.title}: {len(found.rows)} pairs of view and phrase, {sum(row.missing for row in found.rows)} not rendered")
        for name, value in found.scores.items():
            say(f"  {name}: {value:.3f}")
        say(f"Wrote {path}")

    def _check(self, scene: LabelledScene) -> None:
        """Raise InputError for labels of which the protocol can make nothing."""
        from vlmgs_ns.errors import InputError

        things = [thing for view in scene.views for thing in view.objects]
        if self.protocol == "A" and not all(thing.boxes for thing in things):
            raise InputError("--protocol A asks whether a pixel is in a box, but these labels are masks alone; ask for B or C")
        if self.protocol != "A" and any(thing.mask is None for thing in things):
            raise InputError(f"--protocol {self.protocol} compares masks, but these labels are boxes alone; ask for A")

    def _measure(self, scene: LabelledScene, query: _Query, run: OpenRun) -> Report:
        from vlmgs_ns.evaluation import protocols
        from vlmgs_ns.progress import bar

        settings: dict[str, str | int | float | None] = {"run": str(run.folder), **query.settings()}
        with bar("Evaluating", len(scene.views)) as report:
            seen: list[str] = []

            def told(view: LabelledView) -> None:
                if view.image not in seen:
                    seen.append(view.image)
                    report(len(seen))

            if self.protocol == "A":
                return protocols.protocol_a(scene, _telling(query.maps, told), settings=settings)
            if self.protocol == "B":
                # Where labels cover the picture, or say what the rest is called, every pixel is somebody's.
                floor = None if scene.background or self.labels == "3d-ovs" else self.threshold
                return protocols.protocol_b(
                    scene, _telling(query.maps, told), threshold=self.threshold, argmax_floor=floor, settings=settings
                )
            return protocols.protocol_c(
                scene,
                _telling(lambda view, phrase: query.silhouette(view, phrase, self.threshold, self.least_alpha), told),
                threshold=self.threshold,
                least_alpha=self.least_alpha,
                settings=settings,
            )

    def _read(self, folder: Path) -> LabelledScene:
        from vlmgs_ns.errors import InputError
        from vlmgs_ns.evaluation.lerf import read_lerf
        from vlmgs_ns.evaluation.lerf_ovs import read_lerf_ovs
        from vlmgs_ns.evaluation.threed_ovs import read_3d_ovs
        from vlmgs_ns.evaluation.toy_labels import read_toy

        readers: dict[str, Callable[[Path], LabelledScene]] = {
            "toy": read_toy,
            "lerf": read_lerf,
            "lerf-ovs": read_lerf_ovs,
            "3d-ovs": read_3d_ovs,
        }
        if self.labels != "auto":
            return readers[self.labels](folder)
        if (folder / "labels.json").is_file():
            return read_toy(folder)
        raise InputError(f"{folder} has no labels.json; say where the labels are and whose: --folder FOLDER --labels lerf-ovs")


def _telling(ask: Callable[[LabelledView, Any], Any], told: Callable[[LabelledView], None]) -> Callable[[LabelledView, Any], Any]:
    def asked(view: LabelledView, what: Any) -> Any:
        answer = ask(view, what)
        told(view)
        return answer

    return asked


class _Query:
    """A trained model, asked by the names of photos."""

    def __init__(self, run: OpenRun) -> None:
        self.model = run.model
        self.model.set_prompts([])
        self.cameras = {file.stem: camera for file, camera in run.photos()}

    def settings(self) -> dict[str, str]:
        """What the report says of the model."""
        assert self.model.semantics is not None  # or there were no prompts to set
        about = self.model.semantics.about
        return {"mode": about.mode, "encoder": about.clip_fingerprint, "negatives": "; ".join(about.negatives)}

    def maps(self, view: LabelledView, phrases: Any) -> Any:  # [P, H, W]
        """Relevancy; None where no photo of the run has the view's name."""
        camera = self.cameras.get(view.stem)
        return None if camera is None else self.model.relevancy_of(camera, list(phrases)).cpu()

    def silhouette(self, view: LabelledView, phrase: str, threshold: float, least_alpha: float) -> Any:  # [H, W] bool
        """Of the selected Gaussians rendered alone; None where no photo of the run has the view's name."""
        from vlmgs_ns.semantics.blend import blend
        from vlmgs_ns.semantics.query import select

        camera = self.cameras.get(view.stem)
        if camera is None:
            return None
        splats = self.model.splats()
        chosen = splats[select(self.model.gaussian_relevancy([phrase])[:, 0], threshold)]
        _, alpha = blend(chosen, self.model.pinhole(camera), chosen.means.new_zeros(len(chosen), 1))
        return (alpha >= least_alpha).cpu()
