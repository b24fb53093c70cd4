"""What words find in a scene: for each phrase the view that shows most of it, with its relevancy map and mask."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from vlmgs_ns.evaluation.overlays import Picture, overlay
from vlmgs_ns.evaluation.toy_labels import read_toy
from vlmgs_ns.method.finished_run import OpenRun
from vlmgs_ns.pages.embed import LONGER_SIDE
from vlmgs_ns.pages.held_out import to_bytes
from vlmgs_ns.pages.query_pictures import found_picture
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import bar
from vlmgs_ns.system.spacing import evenly_spaced
from vlmgs_ns.words.query import Query
from vlmgs_ns.words.question import Question, Survey, ask

MOST_VIEWS = 24
"""Held-out views among which the one to show is chosen."""
MOST_OF_SCENE = 6
"""Phrases taken from a scene's own labels."""


@dataclass(frozen=True)
class Find:
    """What one phrase finds in one view."""

    phrase: str
    view: str
    render: Picture
    relevancy: Picture
    """The render under the colours of the relevancy, 0 blue to 1 red."""
    mask: Picture
    """The render, dimmed outside the mask, with the box of each part."""
    greatest: float
    """Relevancy of the most relevant pixel, in [0, 1]."""
    share: float
    """Share of the picture that the mask covers, in [0, 1]."""


def phrases_of(run: OpenRun) -> tuple[list[str], str]:
    """Return the phrases to show a run with, and their source: its own prompt, else some of its scene's labels, else none."""
    if run.model.prompts:
        return list(run.model.prompts), "the phrases that the run was given (--prompt)"
    try:
        labels = read_toy(run.data)
    except (InputError, OSError):
        return [], ""
    # A box is a share of the picture.
    seen = dict.fromkeys(labels.phrases, 0.0)
    for view in labels.views:
        for thing in view.objects:
            seen[thing.phrase] += sum((right - left) * (bottom - top) for left, top, right, bottom in thing.boxes)
    by_size = sorted((phrase for phrase in seen if seen[phrase] > 0), key=lambda phrase: (-seen[phrase], phrase))
    chosen = [by_size[k] for k in evenly_spaced(len(by_size), MOST_OF_SCENE)]
    return chosen, f"{len(chosen)} of the {len(by_size)} objects that the scene's labels name, from the largest to the smallest"


@torch.no_grad()
def search(run: OpenRun, phrases: Sequence[str]) -> list[Find]:
    """Ask a run for phrases, each in the view that shows it most clearly (`Survey.clarity`).

    Views are held out from training where there are any, at most ``MOST_VIEWS`` of them.

    Raises:
        InputError: the run has no semantics, or the encoder of its texts is not on this machine.
    """
    cameras = _cameras(run)
    survey = Survey(ask(run.model, Query(tuple(phrases))))
    with bar("Looking", len(cameras)) as report:
        for number, (_, camera) in enumerate(cameras):
            survey.look(run.model.pinhole(camera))
            report(number + 1)
    best = [max(range(len(cameras)), key=row.__getitem__) for row in survey.clarity(survey.places())]
    return [_find(run, survey.question, k, *cameras[number]) for k, number in enumerate(best)]


def _cameras(run: OpenRun) -> list[tuple[str, Any]]:
    """Names and cameras of the views to choose from, their pictures no larger than the page shows them."""
    data = run.pipeline.datamanager
    dataset = data.eval_dataset if len(data.eval_dataset) else data.train_dataset
    chosen = []
    for index in evenly_spaced(len(dataset), MOST_VIEWS):
        camera = deepcopy(dataset.cameras[index : index + 1]).to(run.model.device)
        longest = max(int(camera.width.item()), int(camera.height.item()))
        if longest > LONGER_SIDE:
            camera.rescale_output_resolution(LONGER_SIDE / longest)
        chosen.append((dataset.image_filenames[index].name, camera))
    return chosen


def _find(run: OpenRun, question: Question, phrase: int, name: str, camera: Any) -> Find:
    outputs: Any = run.model.get_outputs(camera)
    look = question.look(run.model.pinhole(camera))
    sighting, render = look.sightings[phrase], to_bytes(outputs["rgb"])
    share = float(sighting.mask.mean())
    heat, found = overlay(render, look.relevancy[phrase]), found_picture(render, sighting)
    return Find(question.query.phrases[phrase], name, render, heat, found, sighting.peak, share)
