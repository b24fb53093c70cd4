"""The CPU kernel of the plane sweep: what a pixel's patch costs at each depth, compared with neighbouring photos.

The point that a pixel shows at z-depth z projects to (a·z + b) of a neighbour, so a patch's path through a photo is nine lines of
depths. Each pixel is worked on by itself: results do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np

from vlmgs_ns.rasterize.jit import kernel

F, U = np.float32, np.uintp
ZERO, HALF, ONE, INFINITE = F(0), F(0.5), F(1), F(np.inf)
NEAREST = F(1e-6)  # z-depth in a neighbour from which a point lies in front of it


@kernel(
    "void(int64, int64, float32[:,:,::1], float32[:,:,::1], float32[:,::1], float32[:,::1], int64[:,::1], float32[:,:,::1],"
    " int64, float32[:,::1])"
)
def patch_costs(begin, end, rays, wanted, depths, photos, places, projections, agreeing, out):  # type: ignore[no-untyped-def]
    """Mean colour difference of the pixels [begin, end) at their depths, over the neighbours that match best; infinite unseen.

    rays [P, 9, 2]: x and y of the patch's rays at z = 1; wanted [P, 9, 4]: its colours, and 0; depths [P or 1, D]; photos [T, 4]:
    pixels of all neighbours, colour and 0; places [K, 3]: first pixel, height, width; projections [K, 3, 4]: from the pixels'
    camera to a neighbour's pixels.
    """
    patch, D, K = rays.shape[1], depths.shape[1], len(places)
    u = np.empty(D, np.float32)
    v = np.empty(D, np.float32)
    seen = np.empty(D, np.float32)
    sums = np.empty(D, np.float32)
    best = np.empty((agreeing, D), np.float32)
    share = ONE / F(3 * patch)
    for p in range(begin, end):
        at = p if len(depths) > 1 else 0
        for i in range(agreeing):
            for d in range(D):
                best[i, d] = INFINITE
        for k in range(K):
            first, height, width = places[k, 0], places[k, 1], places[k, 2]
            right, bottom = F(width) - HALF, F(height) - HALF
            last_column, last_row = F(width - 1), F(height - 1)
            b0, b1, b2 = projections[k, 0, 3], projections[k, 1, 3], projections[k, 2, 3]
            for d in range(D):
                seen[d] = ONE
                sums[d] = ZERO
            for j in range(patch):
                x, y = rays[p, j, 0], rays[p, j, 1]
                a0 = projections[k, 0, 0] * x + projections[k, 0, 1] * y + projections[k, 0, 2]
                a1 = projections[k, 1, 0] * x + projections[k, 1, 1] * y + projections[k, 1, 2]
                a2 = projections[k, 2, 0] * x + projections[k, 2, 1] * y + projections[k, 2, 2]
                for d in range(D):
                    z = depths[at, d]
                    w = a2 * z + b2
                    inverse = ONE / max(w, NEAREST)
                    column = (a0 * z + b0) * inverse - HALF
                    row = (a1 * z + b1) * inverse - HALF
                    inside = (w > NEAREST) & (column > -HALF) & (column < right) & (row > -HALF) & (row < bottom)
                    seen[d] = seen[d] if inside else ZERO
                    u[d] = min(max(column, ZERO), last_column)
                    v[d] = min(max(row, ZERO), last_row)
                c0, c1, c2, c3 = wanted[p, j, 0], wanted[p, j, 1], wanted[p, j, 2], wanted[p, j, 3]
                for d in range(D):
                    if seen[d] > ZERO:
                        column, row = int(u[d]), int(v[d])
                        s, t = u[d] - F(column), v[d] - F(row)
                        n00 = U(first + row * width + column)
                        n01 = n00 + (U(1) if column + 1 < width else U(0))
                        n10 = n00 + (U(width) if row + 1 < height else U(0))
                        n11 = n10 + n01 - n00
                        w11 = s * t
                        w01, w10 = s - w11, t - w11
                        w00 = ONE - s - w10
                        e0 = w00 * photos[n00, 0] + w01 * photos[n01, 0] + w10 * photos[n10, 0] + w11 * photos[n11, 0] - c0
                        e1 = w00 * photos[n00, 1] + w01 * photos[n01, 1] + w10 * photos[n10, 1] + w11 * photos[n11, 1] - c1
                        e2 = w00 * photos[n00, 2] + w01 * photos[n01, 2] + w10 * photos[n10, 2] + w11 * photos[n11, 2] - c2
                        e3 = w00 * photos[n00, 3] + w01 * photos[n01, 3] + w10 * photos[n10, 3] + w11 * photos[n11, 3] - c3
                        sums[d] += abs(e0) + abs(e1) + abs(e2) + abs(e3)
            for d in range(D):
                cost = sums[d] * share if seen[d] > ZERO else INFINITE
                for i in range(agreeing):
                    if cost < best[i, d]:
                        best[i, d], cost = cost, best[i, d]
        for d in range(D):
            total = ZERO
            for i in range(agreeing):
                total += best[i, d]
            out[p, d] = total / F(agreeing)
