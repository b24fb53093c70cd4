"""``vlmgs export``: what words find in a trained scene as a .ply of its own, or the scene without it."""

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
    from vlmgs_ns.words.find import Found

Phrases = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="PHRASE [PHRASE ...]")]


@dataclass
class Export:
    """Write the Gaussians that phrases select, or all but those, as a .ply that viewers of Gaussian splats open."""

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run, as ns-train wrote it: its folder, its config.yml, or its scene, for the newest of its runs."""
    select: Phrases = ()
    """What to export; with several phrases, what any of them selects. By default the whole scene."""
    invert: bool = False
    """Export everything but that, and but its rim and its faint Gaussians, which would stay as a ghost."""
    negative: Phrases = ()
    """What it is not, beside the scene's own negatives: --select "wooden table" --negative floor"""
    threshold: float = words.THRESHOLD
    """Relevancy above which a Gaussian is selected. At 0.5 it ties with the hardest negative; more is stricter."""
    average: bool = True
    """Average the relevancy of Gaussians that touch, which closes holes; else each counts for itself."""
    least_opacity: float = 0.1
    """Leave out selected Gaussians of less opacity; 0: none."""
    least_share: float = 0.1
    """Leave out selected parts that are apart from the heaviest part and weigh less than this share of it; 0: none."""
    coordinates: Literal["run", "data"] = "run"
    """run: as ns-export gaussian-splat writes; data: those of the scene's own cameras, COLMAP's say."""
    out: Path | None = None
    """Folder for the files; by default exports in the run's folder. Files of the same name are replaced."""
    features: bool = False
    """Write a .safetensors beside the .ply: each Gaussian's CLIP feature, relevancy and phrase."""
    compressed: bool = False
    """Write a .compressed.ply beside it too, a quarter of the size, as PlayCanvas and SuperSplat read it (pip install gsply)."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object about the result to the standard output, and nothing else there."""

    def run(self) -> None:
        """Select, write, and say what was written."""
        from vlmgs_ns.method.finished_run import find_config, open_run
        from vlmgs_ns.system.errors import InputError

        query = self._checked()
        with contextlib.redirect_stdout(sys.stderr) if self.as_json else contextlib.nullcontext():
            config = find_config(self.run_folder)
        folder = self.out or config.parent / "exports"
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--out {folder} is a file; give a folder")
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
        for flag, given in (("--invert", self.invert), ("--negative", bool(self.negative))):
            if given and not phrases:
                raise InputError(f"{flag} needs a phrase to select; add one, such as --select 'red ball'")
        fields = words.Fields("--select", "--negative", "--threshold")
        query = words.make_query(phrases, negatives, self.threshold, fields=fields)
        for flag, value in (("--least-opacity", self.least_opacity), ("--least-share", self.least_share)):
            if not 0 <= value <= 1:
                raise InputError(f"{flag} {value:g} is out of range; give a number from 0 to 1, or leave it out")
        if self.compressed and importlib.util.find_spec("gsply") is None:
            raise InputError("--compressed needs gsply, which is not installed here: pip install gsply, or leave the flag out")
        return query

    def _search(self, run: OpenRun, query: words.Query) -> Found | None:
        from vlmgs_ns.words.find import REACH_TO_REMOVE
        from vlmgs_ns.words.question import ask

        if not query.phrases and not self.features:
            return None
        found = ask(run.model, query).select(
            average=self.average, least_opacity=self.least_opacity, least_share=self.least_share,
            reach=REACH_TO_REMOVE if self.invert else 0.0,
        )  # fmt: skip
        self._require(found, query)
        return found

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

        from vlmgs_ns.splats.ply import in_data_coordinates, write_compressed_ply, write_ply
        from vlmgs_ns.system.atomic import replacing
        from vlmgs_ns.system.errors import InputError
        from vlmgs_ns.words.feature_export import write_features

        model = run.model
        gaussians = model.gaussians()
        wanted: Tensor = torch.ones(len(gaussians), dtype=torch.bool)
        if found is not None and query.phrases:
            wanted = ~found.mask if self.invert else found.mask
        chosen = torch.nonzero(wanted & gaussians.drawn())[:, 0]
        if len(chosen) == 0:
            raise InputError(
                "nothing is left to export: the phrases select every Gaussian that can be seen; take a higher --threshold"
                if self.invert
                else f"{run.folder} has no Gaussian that can be seen; train it for longer"
            )
        written = gaussians[chosen]
        if self.coordinates == "data":
            written = in_data_coordinates(written, run.folder / "dataparser_transforms.json")

        folder.mkdir(parents=True, exist_ok=True)
        stem = ("without-" if self.invert else "") + words.file_stem(query.phrases) if query.phrases else "scene"
        ply, features, small = (folder / f"{stem}{suffix}" for suffix in (".ply", ".safetensors", ".compressed.ply"))
        with contextlib.ExitStack() as files:
            write_ply(files.enter_context(replacing(ply)), written)
            if self.compressed:
                write_compressed_ply(files.enter_context(replacing(small)), written)
            if found is not None and self.features:
                assert model.semantics is not None
                beside = files.enter_context(replacing(features))
                write_features(beside, model.semantics, model.means.detach(), chosen, query.phrases, query.negatives, found)
        return {
            "ply": str(ply),
            "features": str(features) if self.features else None,
            "compressed": str(small) if self.compressed else None,
            "gaussians": len(chosen),
            "of": len(gaussians),
            "bytes": ply.stat().st_size,
            "coordinates": self.coordinates,
            "inverted": self.invert,
            "phrases": {} if found is None else _figures(query.phrases, found),
            "caution": run.caution if query.phrases else "",
            "dropped": {
                "faint": 0 if found is None else found.faint,
                "apart": 0 if found is None else found.apart,
                "outside": 0 if found is None else found.outside,
                "invisible": int(wanted.sum()) - len(chosen),
            },
        }

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
        size = result["bytes"] / 1e6
        say(f"Wrote {result['ply']}: {result['gaussians']:,} of {result['of']:,} Gaussians, {size:.1f} MB")
        if result["features"]:
            say(f"Wrote {result['features']}: their features, relevancy and phrases")
        if result["compressed"]:
            say(f"Wrote {result['compressed']}: the same, {Path(result['compressed']).stat().st_size / 1e6:.1f} MB")
        say("Open the .ply in any viewer of Gaussian splats; https://superspl.at/editor takes it dropped on the page.")
        if result["phrases"]:
            more, less = ("goes", "stays") if self.invert else ("comes along", "is missing")
            say(f"If too much {more}: name it with --negative, or raise --threshold. If a part {less}: lower --threshold.")


def _figures(phrases: tuple[str, ...], found: Found) -> dict[str, dict[str, float]]:
    counts, highest = found.masks.sum(dim=0).tolist(), found.relevancy.amax(dim=0).tolist()
    return {
        phrase: {"gaussians": count, "highest_relevancy": round(value, 4)}
        for phrase, count, value in zip(phrases, counts, highest, strict=True)
    }
