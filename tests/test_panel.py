"""The last round of guidance in the viewer."""

from __future__ import annotations

import torch

from tests.test_model import build, camera, cloud
from vlmgs_ns.densify.strategy import Round as Densification
from vlmgs_ns.guidance.question import Answer
from vlmgs_ns.guidance.reply import Box
from vlmgs_ns.guidance.round import Round, ViewRegions
from vlmgs_ns.panel import GuidancePanel


def test_it_tells_what_was_asked_and_what_came_of_it() -> None:
    panel = GuidancePanel()
    regions = [ViewRegions(Answer("[]"), (Box(0, 0, 0.5, 0.5), Box(0.5, 0, 1, 1))), ViewRegions(Answer(None, "dead"))]
    panel.tell(Round("detail", 500, [], regions=regions), Densification(520, focused=40, doomed=3))
    assert panel.last_round.value == "detail, step 500: 2 regions, 40 added, 3 pruned"


def test_focus_is_an_output_only_where_it_is_asked_for() -> None:
    model = build(cloud()).eval()
    assert "focus" not in model.get_outputs_for_camera(camera())
    model.panel = GuidancePanel()
    model.panel.show_focus.value = True
    assert "focus" not in model.get_outputs_for_camera(camera()), "there was no round yet"
    model.strategy_state["guided"] = (model.means[:, 0] > 0).float()
    focus = model.get_outputs_for_camera(camera())["focus"]
    assert focus.shape[-1] == 1 and float(focus.min()) >= 0 and float(focus.max()) <= 1 and focus.max() > 0.3
    # all of it in focus: as much as the scene covers
    model.strategy_state["guided"] = torch.ones(len(model.means))
    outputs = model.get_outputs_for_camera(camera())
    torch.testing.assert_close(outputs["focus"], outputs["accumulation"], atol=1e-4, rtol=0)
