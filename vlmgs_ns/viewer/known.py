"""What can be looked for in a scene: the phrases that belong to it, and what stands in the way of words."""

from __future__ import annotations

from pathlib import Path

from vlmgs_ns.semantics.embedded import caution, things_in
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.viewer import rounds
from vlmgs_ns.viewer.scene import ShownScene
from vlmgs_ns.viewer.worker import error_message


def can_search(scene: ShownScene) -> bool:
    """Whether the scene's semantics are complete."""
    return scene.semantics is not None and scene.semantics.complete


def phrases_of(scene: ShownScene, run: Path, photos: Path) -> list[str]:
    """Return the phrases to offer: labels of guidance, the run's own phrases, and the names of the things in an embedded room.

    Args:
        run, photos: folders of the run and of the scene that it was trained on.
    """
    found = [*rounds.labels(run), *scene.prompts]
    if scene.semantics is not None:
        found += [text for text in scene.semantics.texts if text not in scene.semantics.about.negatives]
        found += things_in(photos)
    return list(dict.fromkeys(found))


def hint(scene: ShownScene, run: Path, photos: Path, training: bool) -> str:
    """Return why words find nothing, or nothing but noise, with what mends it; "" where they find things."""
    if can_search(scene):
        assert scene.semantics is not None
        return caution(scene.semantics.about.clip, photos, run)
    if training and scene.has_semantic_stage:
        return "Training: this scene can be searched with words after the last iteration."
    try:
        scene.searchable()
    except InputError as error:
        return error_message(error)
    return ""
