"""``vlmgs query``: where things are that words describe, a place on a photo shows, or a picture looks like."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import ExitStack, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.folders import check_folder
from vlmgs_ns.words import query as words

if TYPE_CHECKING:
    from vlmgs_ns.pages.viewpoints import View

NOT_FOUND = 3
"""Exit status where a phrase is found nowhere."""


@dataclass
class Query:
    """Find what words describe in a trained scene, what a photo shows at a place, or what looks like a picture: pictures of
    relevancy, masks, boxes, and a place in space.

    Writes index.html, to look at first, query.json, and a folder of pictures for each phrase. Exits with 0 if every phrase was
    found, 3 if one was found in no view (the others are written all the same), 1 if a value or a file cannot be used.
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run, as ns-train wrote it: its folder, its config.yml, or its scene, for the newest of its runs."""
    phrases: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="PHRASE ...", help_behavior_hint="(or --at, --like)"),
    ]
    """What to look for: "red ball" "wooden table". Before any option that takes a list."""
    at: Annotated[str | None, tyro.conf.arg(metavar="PHOTO:X,Y", help_behavior_hint="")] = None
    """Instead of phrases: the thing that a photo shows at a pixel, --at frame_00003.png:160,120, in any run; or what it shows in
    a box, --at frame_00003.png:100,80,200,140."""
    width: float = 1.0
    """With --at and a pixel: how unlike that place the thing may look; more takes more."""
    like: Annotated[Path | None, tyro.conf.arg(metavar="PICTURE", help_behavior_hint="")] = None
    """Instead of phrases: what looks like a picture, such as one cut out of a photo, to the CLIP that looked at the scene."""
    negative: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="PHRASE ...", help_behavior_hint="")] = None
    """What it is not, beside the scene's own negatives: vlmgs query RUN "wooden table" --negative floor door"""
    threshold: float = words.THRESHOLD
    """Relevancy, from 0 to 1, above which a pixel or a Gaussian belongs to a phrase; at 0.5 it ties with the hardest negative."""
    parts: words.Parts = "clearest"
    """Where several things fit a phrase: the place in space is that of the one that the views show most clearly, or of all."""
    split: Annotated[Literal["train", "test", "all"] | None, tyro.conf.arg(metavar="{train,test,all}", help_behavior_hint="")] = (
        None
    )
    """Photos to look from; by default up to 12 of those held out."""
    views: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="")] = ()
    """Photos to look from, by name: --views frame_00003 frame_00017."""
    camera_path: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Look from the frames of a camera path instead, as the viewer saves it, and write a video for each phrase."""
    frames: tyro.conf.FlagCreatePairsOff[bool] = False
    """With --camera-path: write the pictures of every frame too."""
    raw: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write relevancy as numbers too: float32 [H, W] in .npy."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Folder to write; by default query in the run's folder. Files of an earlier query are replaced one by one."""
    as_json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(name="json")] = False
    """Print the answer as one JSON object on standard output, and all else on standard error."""

    def run(self) -> None:
        """Look, write and say what was found; what cannot work is refused before anything is loaded."""
        query, at = self._checked()
        from vlmgs_ns.method.finished_run import find_config, open_run

        with redirect_stdout(sys.stderr) if self.as_json else nullcontext():
            config = find_config(self.run_folder)
        from vlmgs_ns.pages.asked import Asked
        from vlmgs_ns.pages.query import PAGE, Request, answer
        from vlmgs_ns.pages.query_summary import summary
        from vlmgs_ns.pages.viewpoints import photo_views, read_camera_path
        from vlmgs_ns.system.console import kept_for_answer
        from vlmgs_ns.system.progress import say

        out = self.out or config.parent / "query"
        check_folder(out)
        with ExitStack() as stack:
            write = stack.enter_context(kept_for_answer()) if self.as_json else None
            path = None if self.camera_path is None else read_camera_path(self.camera_path)
            run = open_run(config)
            looked_from: list[View] = photo_views(run, self.split, self.views) if path is None else list(path.views)
            request = Request(
                asked=Asked(query, at, self.like, self.width),
                parts=self.parts,
                raw=self.raw,
                every_view=path is None or self.frames,
                fps=None if path is None else path.fps,
            )
            found: dict[str, Any] = answer(run, looked_from, request, out)
            for line in summary(found):
                say(line)
            say(f"Look at {out / PAGE}")
            first = next((one["phrase"] for one in found["phrases"] if one["gaussians"]), None)
            if self.phrases and first is not None:
                arguments = [str(config.parent), "--select", first, *self._stricter(query.negatives)]
                say(f"Next: vlmgs export {shlex.join(arguments)}")
            if write is not None:
                write(json.dumps(found, ensure_ascii=False))
        if not found["all_found"]:
            raise SystemExit(NOT_FOUND)

    def _stricter(self, negatives: tuple[str, ...]) -> list[str]:
        """Flags with which another command selects the same."""
        threshold = [] if self.threshold == words.THRESHOLD else ["--threshold", f"{self.threshold:g}"]
        return [*threshold, *(("--negative", *negatives) if negatives else ())]

    def _checked(self) -> tuple[words.Query, words.At | None]:
        """Return what is looked for, and the place of --at, after refusing flags that do not go together."""
        ways = [bool(self.phrases), self.at is not None, self.like is not None]
        if not any(ways):
            raise InputError('no phrase to look for; give some right after the run: vlmgs query RUN "red ball" "wooden table"')
        if sum(ways) > 1:
            raise InputError("phrases, --at and --like each say what to look for; give one of them")
        if self.negative is not None and not self.phrases:
            raise InputError("--negative is for phrases; leave it out with --at and --like")
        if self.width <= 0:
            raise InputError(f"--width {self.width:g} is out of range; give more than 0, 1 is usual")
        at = None if self.at is None else words.parse_at(self.at)
        if self.negative is not None and not self.negative:
            raise InputError("--negative has no phrase after it; say what it is not, such as --negative floor, or leave it out")
        fields = words.Fields("PHRASE", "--negative", "--threshold")
        named = self.phrases or [self.at or Path(str(self.like)).name]
        query = words.make_query(named, self.negative or (), self.threshold, fields=fields)
        if self.camera_path is not None and (self.views or self.split):
            raise InputError("--camera-path says where to look from; leave out --views and --split")
        if self.views and self.split:
            raise InputError("--views names the photos to look from; leave out --split")
        if self.frames and self.camera_path is None:
            raise InputError("--frames is about the frames of a --camera-path; give one, or leave it out")
        if self.like is not None and not self.like.is_file():
            raise InputError(f"--like {self.like} is not a file; give a picture, such as one cut out of a photo")
        return query, at
