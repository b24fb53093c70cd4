"""What is said of photos that cannot be placed; `tests/commands/test_prepare.py` has those that can."""

from __future__ import annotations

import pytest

from vlmgs_ns.prepare.motion import Motion, PhotoMatches
from vlmgs_ns.prepare.outcome import judge
from vlmgs_ns.system.errors import InputError


@pytest.mark.parametrize(
    ("photo", "turned", "said"),
    [
        (PhotoMatches(20, 0), False, r"none of 4 photos .*no photo has more than 20 features\. Take more photos, sharp"),
        (PhotoMatches(3000, 12), False, r"no two photos share more than 12 features"),
        (PhotoMatches(3000, 400), True, r"the camera was turned on the spot, which shows no depth\. Walk around"),
        (PhotoMatches(3000, 400), False, r"no camera positions explain them"),
    ],
)
def test_no_scene_is_one_error_with_its_cause_and_the_fix(photo: PhotoMatches, turned: bool, said: str) -> None:
    motion = Motion([], {f"{k}.jpg": photo for k in range(4)}, turned)
    with pytest.raises(InputError, match=said):
        judge(motion, {})
