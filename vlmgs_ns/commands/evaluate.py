"""``vlmgs eval``: how well words find things in a trained scene, by one of the protocols."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from vlmgs_ns.evaluation.labels import LabelledScene, LabelledView

THRESHOLD = 0.5
"""A tie with the hardest negative."""


@dataclass
class Evaluate:
    """Measure how well words find things in a trained scene, against labels. Figures of two protocols never compare."""

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run, as ns-train wrote it: its folder, its config.yml, or its scene, for the newest of its runs."""
    protocol: Literal["A", "B", "B-langsplat", "C", "C-find"] = "A"
    """A: is the greatest pixel of the relevancy map in a box of the phrase (LERF), or in its mask where labels have no boxes?
    B: IoU of the map above a threshold, and of the arg max over the label set (LERF-OVS 2-D, 3D-OVS). B-langsplat: IoU as
    LangSplat's published code measures it, for comparison with its table alone. C: IoU of the silhouette of the Gaussians above
    the threshold; C-find: of those that export and the viewer select."""
    labels: Literal["auto", "toy", "lerf", "lerf-ovs", "3d-ovs"] = "auto"
    """Format of the labels; auto: toy where there is a labels.json, else give it."""
    folder: Path | None = None
    """Folder of the labels; by default the scene's own."""
    threshold: float = THRESHOLD
    """B, C and C-find: relevancy above which a pixel or a Gaussian belongs to a phrase; one for all scenes."""
    least_alpha: float = 0.5
    """C and C-find: opacity from which a pixel counts as covered."""
    output: Path | None = None
    """Where to write the report; by default eval_A.json (or B, C) in the run's folder."""

    def run(self) -> None:
        """Measure, print the means and write the report."""
        from vlmgs_ns.method.finished_run import find_config, open_run
        from vlmgs_ns.system.errors import InputError
        from vlmgs_ns.system.progress import bar, say

        if not 0 <= self.threshold < 1:
            raise InputError(f"--threshold {self.threshold}: relevancy is from 0 to 1; give 0 or more and less than 1")
        if not 0 < self.least_alpha <= 1:
            raise InputError(f"--least-alpha {self.least_alpha}: opacity is from 0 to 1; give more than 0 and at most 1")
        config = find_config(self.run_folder)
        from vlmgs_ns.evaluation.trained import Trained

        # Errors in the labels are reported before the run is loaded, where they can be known.
        scene = None if self.folder is None else self._read(self.folder)
        run = open_run(config)
        if scene is None:
            scene = self._read(run.data)
        trained = Trained(run)
        if not trained.knows(scene):
            raise InputError(
                f"none of the {len(scene.views)} labelled pictures ({scene.views[0].image}, …) is a photo of this run; give "
                "labels of its photos, under their names"
            )
        seen: dict[str, None] = {}
        with bar("Evaluating", len(scene.views)) as report:

            def measured(view: LabelledView) -> None:
                seen[view.image] = None
                report(len(seen))

            try:
                found = trained.measure(
                    scene, self.protocol, threshold=self.threshold, least_alpha=self.least_alpha, report=measured,
                    run=str(run.folder),
                )  # fmt: skip
            except ValueError as error:
                # Labels in another shape than the photos, or that show nothing.
                raise error if isinstance(error, InputError) else InputError(str(error)) from None
        path = self.output or run.folder / f"eval_{self.protocol}.json"
        found.write(path)
        say(
            f"{found.title}: {len(found.rows)} pairs of view and phrase, {sum(row.missing for row in found.rows)} not rendered; "
            f"{found.trained_on} of {len({row.view for row in found.rows})} views were trained on"
        )
        for name, value in found.scores.items():
            say(f"  {name}: {value:.3f}")
        say(f"Wrote {path}")

    def _read(self, folder: Path) -> LabelledScene:
        from vlmgs_ns.evaluation.trained import read_labels
        from vlmgs_ns.system.errors import InputError

        if self.labels != "auto":
            return read_labels(self.labels, folder, [self.protocol])
        if (folder / "labels.json").is_file():
            return read_labels("toy", folder, [self.protocol])
        raise InputError(f"{folder} has no labels.json; say where the labels are and whose: --folder FOLDER --labels lerf-ovs")
