"""The CPU kernel that tells which Gaussians touch."""

from __future__ import annotations

import math

import numpy as np

from vlmgs_ns.rasterize.jit import kernel


@kernel("void(int64[::1], int64[:,::1], int32[::1], float64[:,::1], float64[:,:,::1], float64, boolean[:,::1])")
def touch_nearest(here, near, place, means, spreads, extent, out):  # type: ignore[no-untyped-def]
    """Which of its nearest Gaussians each of `here` touches. Numbers are the scene's.

    here [M]; near [M, K]; place [N]: row of `spreads`, −1 where a Gaussian is not in the graph; means [N, 3]; spreads [G, 3, 3];
    out [M, K].
    """
    apart = np.empty(3)
    for m in range(len(here)):
        i = here[m]
        for k in range(near.shape[1]):
            j = near[m, k]
            out[m, k] = False
            if i == j or place[j] < 0:
                continue
            for c in range(3):
                apart[c] = means[j, c] - means[i, c]
            reach = 0.0
            for g in (place[i], place[j]):
                square = 0.0
                for r in range(3):
                    along = spreads[g, r, 0] * apart[0] + spreads[g, r, 1] * apart[1] + spreads[g, r, 2] * apart[2]
                    square += along * along
                reach += extent * math.sqrt(square)
            # Both sides times the distance, which may be 0.
            out[m, k] = apart[0] * apart[0] + apart[1] * apart[1] + apart[2] * apart[2] <= reach
