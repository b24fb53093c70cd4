"""What is selected and hidden, and the way back."""

from __future__ import annotations

import random
import threading

import pytest
import torch
from torch import Tensor

from vlmgs_ns.viewer.history import STEPS, Selection


def of(*ids: int, count: int = 10) -> Tensor:
    mask = torch.zeros(count, dtype=torch.bool)
    mask[list(ids)] = True
    return mask


def ids(mask: Tensor) -> list[int]:
    return mask.nonzero()[:, 0].tolist()


def test_every_change_by_hand() -> None:
    selection = Selection(10)
    selection.replace(of(1, 2))
    selection.replace(of(2, 3))
    assert ids(selection.mask) == [2, 3]
    selection.hide()
    assert ids(selection.hidden) == [2, 3] and ids(selection.mask) == [2, 3]
    selection.invert()
    assert ids(selection.mask) == [0, 1, 4, 5, 6, 7, 8, 9]
    selection.replace(of(2, 5))
    selection.isolate()
    assert ids(selection.hidden) == [0, 1, 3, 4, 6, 7, 8, 9]  # 2 was hidden, and is shown
    selection.show_all()
    assert ids(selection.mask) == [2, 5] and not selection.hidden.any()


def test_undo_takes_back_every_step_and_says_when_there_is_none() -> None:
    """Against a slow twin: a list of all states."""
    selection, choose, g = Selection(37), random.Random(0), torch.Generator().manual_seed(0)
    assert selection.undo() is False
    states = [selection.state]
    for _ in range(50):
        name = choose.choice(["replace", "replace", "invert", "hide", "isolate", "show_all"])
        arguments = [torch.rand(37, generator=g) < 0.3] if name == "replace" else []
        getattr(selection, name)(*arguments)
        if not all(map(torch.equal, selection.state, states[-1])):
            states.append(selection.state)
    assert len(states) > 20
    for mask, hidden in reversed(states[:-1]):
        assert selection.undo() is True
        assert torch.equal(selection.mask, mask) and torch.equal(selection.hidden, hidden)
    assert selection.undo() is False


def test_what_changes_nothing_is_no_step() -> None:
    selection = Selection(10)
    selection.replace(of(4))
    selection.replace(of(4))
    selection.show_all()
    assert selection.undo() is True and not selection.mask.any() and selection.undo() is False


def test_history_is_bounded() -> None:
    selection = Selection(3)
    for _ in range(STEPS + 5):
        selection.invert()
    assert [selection.undo() for _ in range(STEPS + 1)] == [True] * STEPS + [False]
    assert selection.mask.all()  # the five oldest are forgotten


def test_a_mask_may_be_changed_afterwards() -> None:
    mask, selection = of(1), Selection(10)
    selection.replace(mask)
    mask[:] = True
    assert ids(selection.mask) == [1]


@pytest.mark.parametrize("mask", [torch.zeros(9, dtype=torch.bool), torch.zeros(10), torch.zeros(10, 1, dtype=torch.bool)])
def test_masks_of_another_scene_are_refused(mask: Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be \[10\]"):
        Selection(10).replace(mask)


def test_no_reader_sees_half_of_a_change() -> None:
    """Isolating keeps hidden the complement of the selection; undoing twice goes from one such state to another."""
    selection, stop, torn = Selection(50_000), threading.Event(), []
    selection.replace(torch.arange(50_000) % 2 == 0)
    selection.isolate()

    def read() -> None:
        while not stop.is_set():
            mask, hidden = selection.state
            torn.extend([1] if int(mask.sum()) not in (0, 25_000) or int(hidden.sum()) not in (0, 25_000) else [])

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(200):
        selection.undo()
        selection.isolate()
    stop.set()
    reader.join()
    assert not torn
