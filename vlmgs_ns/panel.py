"""What the viewer shows beside the scene: the last round of guidance."""

from __future__ import annotations

from nerfstudio.viewer.viewer_elements import ViewerCheckbox, ViewerText

from vlmgs_ns.densify.strategy import Round as Densification
from vlmgs_ns.guidance.round import Round


class GuidancePanel:
    """Elements that nerfstudio's viewer finds by itself; cheap to read, and nothing here can raise."""

    def __init__(self) -> None:
        self.last_round = ViewerText("Last round", "none yet", disabled=True, hint="What was asked last, and what came of it")
        self.show_focus = ViewerCheckbox("Show focus", False, hint='Adds the output type "focus": what the last round chose')

    def tell(self, asked: Round, done: Densification) -> None:
        """Show a round and the densification that used it."""
        boxes = sum(len(view.boxes) for view in asked.regions or [])
        self.last_round.value = f"{asked.phase}, step {asked.step}: {boxes} regions, {done.focused} added, {done.doomed} pruned"
