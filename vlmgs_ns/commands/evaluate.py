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
        from vlmgs_ns.evaluation import protocols
        from vlmgs_ns.progress import bar, say
        from vlmgs_ns.runs import open_run

        if not 0 <= self.threshold < 1 or not 0 < self.least_alpha <= 1:
            raise InputError(
                f"--threshold {self.threshold}, --least-alpha {self.least_alpha}: give numbers from 0 to 1, or leave them out"
            )
        run = open_run(self.run_folder)
        scene = self._read(self.folder or run.data)
        query = _Query(run)
        settings: dict[str, str | int | float | None] = {"run": str(run.folder), **query.settings()}
        with bar("Evaluating", len(scene.views)) as report:
            seen: list[str] = []

            def told(view: LabelledView) -> None:
                if view.image not in seen:
                    seen.append(view.image)
                    report(len(seen))

            found: Report
            if self.protocol == "A":
                found = protocols.protocol_a(scene, _telling(query.maps, told), settings=settings)
            elif self.protocol == "B":
                # Where labels cover the picture, or say what the rest is called, every pixel is somebody's.
                floor = None if scene.background or self.labels == "3d-ovs" else self.threshold
                found = protocols.protocol_b(
                    scene, _telling(query.maps, told), threshold=self.threshold, argmax_floor=floor, settings=settings
                )
            else:
                found = protocols.protocol_c(
                    scene,
                    _telling(lambda view, phrase: query.silhouette(view, phrase, self.threshold, self.least_alpha), told),
                    threshold=self.threshold,
                    least_alpha=self.least_alpha,
                    settings=settings,
                )
        path = self.output or run.folder / f"eval_{self.protocol}.json"
        found.write(path)
        say(f"{found.title}: {len(found.rows)} pairs of view and phrase, {sum(row.missing for row in found.rows)} not rendered")
        for name, value in found.scores.items():
            say(f"  {name}: {value:.3f}")
        say(f"Wrote {path}")

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
