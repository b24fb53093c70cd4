"""``vlmgs export``: a trained scene, what words find in it, or the scene without that, as a file that viewers open."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vlmgs_ns.words import query as words

if TYPE_CHECKING:
    from torch import Tensor

    from vlmgs_ns.method.finished_run import OpenRun
    from vlmgs_ns.splats.ply import Gaussians
    from vlmgs_ns.words.find import Found

Phrases = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="PHRASE [PHRASE ...]")]

NEED_GSPLY = ("compressed.ply", "spz")
"""Formats that gsply writes, an optional dependency."""


@dataclass
class Export:
    """Write a scene, the Gaussians that phrases select, or all but those, as a file that viewers of Gaussian splats open."""

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run, as ns-train wrote it: its folder, its config.yml, or its scene, for the newest of its runs."""
    select: Phrases = ()
    """What to export; with several phrases, what any of them selects. By default the whole scene."""
    invert: bool = False
    """Export everything but that, and but its rim and its faint Gaussians, which would stay as a ghost."""
    negative: Phrases = ()
    """What it is not, beside the scene's own negatives: --select "wooden table" --negative floor"""
    parts: words.Parts = "all"
    """Where several things fit a phrase: all of them, or the one that training photos show most clearly."""
    threshold: float = words.THRESHOLD
    """Relevancy above which a Gaussian is selected. At 0.5 it ties with the hardest negative; more is stricter."""
    average: bool = True
    """Average the relevancy of Gaussians that touch, which closes holes; else each counts for itself."""
    least_opacity: float = 0.1
    """Leave out selected Gaussians of less opacity; 0: none."""
    least_share: float = 0.1
    """Leave out selected parts that are apart from the heaviest part and weigh less than this share of it; 0: none."""
    crop: bool = False
    """Leave out what fewer than two training photos show, as vlmgs share does."""
    drop_floaters: bool = False
    """Leave out what hangs apart from the rest: faint Gaussians, and parts that weigh little."""
    coordinates: Literal["run", "data", "viewer"] = "run"
    """run: as ns-export gaussian-splat writes; data: those of the scene's own cameras, COLMAP's say; viewer: y up, as
    viewers made with three.js take it, the origin where the photos look."""
    format: Literal["ply", "compressed.ply", "spz", "splat", "html"] = "ply"
    """compressed.ply (PlayCanvas, SuperSplat) is a quarter of the size, spz a seventh; both need gsply. splat has no harmonics.
    html is the page of vlmgs share."""
    out: Path | None = None
    """Folder for the file; by default exports in the run's folder. A file of the same name is replaced."""
    features: bool = False
    """Write a .safetensors beside it: each Gaussian's CLIP feature, relevancy and phrase."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object about the result to the standard output, and nothing else there."""

    def run(self) -> None:
        """Select, write, and say what was written."""
        from vlmgs_ns.method.finished_run import find_config, open_run
        from vlmgs_ns.system.errors import InputError
        from vlmgs_ns.system.folders import check_folder

        query = self._checked()
        with contextlib.redirect_stdout(sys.stderr) if self.as_json else contextlib.nullcontext():
            config = find_config(self.run_folder)
        folder = self.out or config.parent / "exports"
        check_folder(folder)
        # What nerfstudio says while it loads would spoil the object.
        with contextlib.redirect_stdout(sys.stderr) if self.as_json else contextlib.nullcontext():
            run = open_run(config)
            found = self._search(run, query)
            try:
                result = self._write(run, folder, query, found)
            except OSError as error:
                raise InputError(
                    f"{folder} cannot be written to: {error.strerror or error}; make room there, or give another folder, --out"
                ) from None
        if self.as_json:
            sys.stdout.write(json.dumps(result) + "\n")
        else:
            self._print(result)

    def _checked(self) -> words.Query:
        """Return what is looked for, before anything slow begins."""
        from vlmgs_ns.system.errors import InputError

        phrases, negatives = list(itertools.chain(*self.select)), list(itertools.chain(*self.negative))
        if self.select and not phrases:
            raise InputError(
                "--select has no phrase after it; describe what to export, such as --select 'red ball', or leave it out"
            )
        for flag, given in (
            ("--invert", self.invert), ("--negative", bool(self.negative)), ("--parts clearest", self.parts == "clearest"),
        ):  # fmt: skip
            if given and not phrases:
                raise InputError(f"{flag} needs a phrase to select; add one, such as --select 'red ball'")
        fields = words.Fields("--select", "--negative", "--threshold")
        query = words.make_query(phrases, negatives, self.threshold, fields=fields)
        for flag, value in (("--least-opacity", self.least_opacity), ("--least-share", self.least_share)):
            if not 0 <= value <= 1:
                raise InputError(f"{flag} {value:g} is out of range; give a number from 0 to 1, or leave it out")
        if self.format in NEED_GSPLY and importlib.util.find_spec("gsply") is None:
            raise InputError(
                f"--format {self.format} needs gsply, which is not installed here: pip install gsply, or take another"
            )
        for flag, given, why in (
            (f"--coordinates {self.coordinates}", self.coordinates != "run", "a page has its own, with up at the top"),
            ("--features", self.features, "a page has its Gaussians in an order of its own, which the features would not match"),
        ):
            if given and self.format == "html":
                raise InputError(f"{flag} cannot be used with --format html: {why}; leave {flag} out, or take another format")
        return query

    def _search(self, run: OpenRun, query: words.Query) -> Found | None:
        from vlmgs_ns.words.find import REACH_TO_REMOVE
        from vlmgs_ns.words.question import ask

        if not query.phrases and not self.features:
            return None
        question = ask(run.model, query)
        found = question.select(
            average=self.average, least_opacity=self.least_opacity, least_share=self.least_share,
            reach=REACH_TO_REMOVE if self.invert else 0.0,
        )  # fmt: skip
        self._require(found, query)
        return question.clearest(found) if query.phrases and self.parts == "clearest" else found

    def _require(self, found: Found, query: words.Query) -> None:
        """Raise an InputError for a phrase that selects nothing."""
        from vlmgs_ns.system.errors import InputError

        for k, phrase in enumerate(query.phrases):
            if found.above[k] == 0:
                # Rounded down, so that what is advised is below it.
                value = float(found.relevancy[:, k].max())
                highest = int(value * 100) / 100
                lower = f"take a lower one, --threshold {highest - 0.05:.2f} say, or " if highest >= 0.05 else ""
                raise InputError(
                    f"{phrase!r} finds nothing: the highest relevancy of any Gaussian is {words.apart(value, query.threshold)}, "
                    f"the threshold {query.threshold:g}; {lower}describe it in other words"
                )
            if not found.masks[:, k].any():
                raise InputError(
                    f"{phrase!r} finds {found.above[k]} Gaussians, all fainter than --least-opacity {self.least_opacity:g}, or "
                    "shown by photos where the words do not fit; take a lower one, or a lower --threshold"
                )

    def _write(self, run: OpenRun, folder: Path, query: words.Query, found: Found | None) -> dict[str, Any]:
        """Write the files, all or none, and return what to say about them."""
        import torch

        from vlmgs_ns.pages.share import share_page
        from vlmgs_ns.splats.formats import WRITERS
        from vlmgs_ns.system.atomic import replacing
        from vlmgs_ns.system.errors import InputError
        from vlmgs_ns.words.feature_export import write_features

        model = run.model
        gaussians = model.gaussians()
        wanted: Tensor = torch.ones(len(gaussians), dtype=torch.bool)
        if found is not None and query.phrases:
            wanted = ~found.mask if self.invert else found.mask
        drawn = wanted & gaussians.drawn()
        kept = drawn & self._kept(run)
        chosen = torch.nonzero(kept)[:, 0]
        if drawn.any() and not kept.any():
            raise InputError("nothing is left to export by --crop and --drop-floaters; leave one of them out")
        if len(chosen) == 0:
            raise InputError(
                "nothing is left to export: the phrases select every Gaussian that can be seen; take a higher --threshold"
                if self.invert
                else f"{run.folder} has no Gaussian that can be seen; train it for longer"
            )
        page = share_page(run, among=kept) if self.format == "html" else None
        written = self._moved(gaussians[chosen], run)

        folder.mkdir(parents=True, exist_ok=True)
        stem = ("without-" if self.invert else "") + words.file_stem(query.phrases) if query.phrases else "scene"
        file, features = folder / f"{stem}.{self.format}", folder / f"{stem}.safetensors"
        with contextlib.ExitStack() as files:
            partial = files.enter_context(replacing(file))
            if page is None:
                WRITERS[self.format](partial, written)
            else:
                partial.write_bytes(page.content)
            if found is not None and self.features:
                assert model.semantics is not None
                beside = files.enter_context(replacing(features))
                write_features(beside, model.semantics, model.means.detach(), chosen, query.phrases, query.negatives, found)
        return {
            "file": str(file),
            "features": str(features) if self.features else None,
            "gaussians": page.gaussians if page else len(chosen),
            "of": len(gaussians),
            "bytes": file.stat().st_size,
            "coordinates": self.coordinates,
            "inverted": self.invert,
            "phrases": {} if found is None else _figures(query.phrases, found),
            "caution": run.caution if query.phrases else "",
            "dropped": {
                "faint": 0 if found is None else found.faint,
                "apart": 0 if found is None else found.apart,
                "outside": 0 if found is None else found.outside,
                "invisible": int((wanted & ~drawn).sum()),
                "floating": int((drawn & ~kept).sum()),
            },
        }

    def _kept(self, run: OpenRun) -> Tensor:  # [N] bool
        """Return which Gaussians --crop and --drop-floaters leave."""
        import torch

        from vlmgs_ns.pages.viewpoints import training_views
        from vlmgs_ns.semantics.visibility import visibility
        from vlmgs_ns.splats.connect import Neighbours
        from vlmgs_ns.words.clean import without_floaters

        splats = run.model.splats()
        kept = torch.ones(len(splats), dtype=torch.bool)
        if self.crop:
            kept &= visibility(splats, [run.model.pinhole(view.camera) for view in training_views(run)]).photographed
        if self.drop_floaters:
            kept &= without_floaters(splats, Neighbours(splats))
        return kept

    def _moved(self, gaussians: Gaussians, run: OpenRun) -> Gaussians:
        """Return the Gaussians in the coordinates that are wanted."""
        from vlmgs_ns.splats.coordinates import in_data_coordinates, in_viewer_coordinates

        if self.coordinates == "data":
            return in_data_coordinates(gaussians, run.folder / "dataparser_transforms.json")
        if self.coordinates == "viewer":
            return in_viewer_coordinates(gaussians, run.pipeline.datamanager.train_dataset.cameras.camera_to_worlds)
        return gaussians

    def _print(self, result: dict[str, Any]) -> None:
        from vlmgs_ns.system.progress import say

        if result["caution"]:
            say(result["caution"])
        for phrase, figures in result["phrases"].items():
            say(f"{phrase}: {figures['gaussians']:,} Gaussians, relevancy up to {figures['highest_relevancy']:.2f}")
        dropped = result["dropped"]
        if dropped["faint"] or dropped["apart"] or dropped["outside"]:
            say(
                f"Left out of the selection: {dropped['outside']:,} that photos show where the words do not fit, "
                f"{dropped['faint']:,} for their opacity, {dropped['apart']:,} apart from the rest"
            )
        if dropped["floating"]:
            say(f"Left out of the rest: {dropped['floating']:,} that float about")
        size = result["bytes"] / 1e6
        say(f"Wrote {result['file']}: {result['gaussians']:,} of {result['of']:,} Gaussians, {size:.1f} MB")
        if result["features"]:
            say(f"Wrote {result['features']}: their features, relevancy and phrases")
        if self.format == "html":
            say("Open it in a browser.")
        elif self.coordinates == "viewer":
            say("Open it in a viewer that takes y for up, such as Spark; SuperSplat takes it for down.")
        else:
            say("Open it in any viewer of Gaussian splats; https://superspl.at/editor takes it dropped on the page.")
        if result["phrases"]:
            more, less = ("goes", "stays") if self.invert else ("comes along", "is missing")
            say(f"If too much {more}: name it with --negative, or raise --threshold. If a part {less}: lower --threshold.")


def _figures(phrases: tuple[str, ...], found: Found) -> dict[str, dict[str, float]]:
    counts, highest = found.masks.sum(dim=0).tolist(), found.relevancy.amax(dim=0).tolist()
    return {
        phrase: {"gaussians": count, "highest_relevancy": round(value, 4)}
        for phrase, count, value in zip(phrases, counts, highest, strict=True)
    }
