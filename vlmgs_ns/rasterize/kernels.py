"""The CPU kernels that work tile by tile: which Gaussians meet a 16x16 tile, blending them, and its gradient.

For each Gaussian of a tile the outer loop runs over pixel rows and the inner ones over the 16 pixels of a row, held in
contiguous float32 arrays, so that LLVM vectorises them without hints. Channels are taken four at a time, padded with zeros, the
first four in the loop that weighs: LLVM turns a loop over channels around one over pixels inside out, with gathers (measured:
1.6 times slower). What is inlined into a loop over pixels takes numbers: an array's reference count keeps the loop from being
vectorised. State of a tile (transmittance, colour) stays in the first-level cache. No atomics: the backward pass writes one
gradient row per tile intersection, and a second kernel adds them up per Gaussian in a fixed order, so results do not depend on
the number of threads.

Per Gaussian, `splats` holds x, y (pixels), the conic a, b, c, opacity, and q = 2·ln(255·opacity): alpha is at least 1/255 exactly
where the squared Mahalanobis distance a·dx² + 2b·dx·dy + c·dy² is at most q.
"""

from __future__ import annotations

import math

import numpy as np

from vlmgs_ns.rasterize.jit import device_function, kernel

TILE = 16
GROUP = 4  # channels blended at once
CHECK_EVERY = 32  # Gaussians between two looks at whether every pixel of the tile is opaque
SPLAT = 7  # columns of `splats`
SHAPE = 8  # columns of a gradient row before the colour's: x, y, |x|, |y|, a, b, c, opacity

F = np.float32
ZERO, HALF, ONE, NEVER, NONE = F(0), F(0.5), F(1), F(2), F(-1)
ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN = F(0.999), F(1 / 255), F(1e-4)
# exp(-s) on [0, 6] as (p(-s/8))⁸ with p of degree 6: relative error 4e-7. Beyond s = 6, alpha < 1/255 whatever the opacity.
POWER_MAX, EIGHTH = F(6), F(-0.125)
_nodes = 0.375 * np.cos(np.linspace(0, np.pi, 200)) - 0.375
E0, E1, E2, E3, E4, E5, E6 = (F(v) for v in np.polynomial.Polynomial.fit(_nodes, np.exp(_nodes), 6).convert().coef)
SLACK = 0.01  # pixels by which the reach of an ellipse is widened against rounding; costs nothing, changes no pixel


@device_function
def _exp_minus(s):  # type: ignore[no-untyped-def]
    t = min(s, POWER_MAX) * EIGHTH
    e = (((((E6 * t + E5) * t + E4) * t + E3) * t + E2) * t + E1) * t + E0
    e = e * e
    e = e * e
    return e * e


@device_function
def _reach(along, cross, across, q, low, high):  # type: ignore[no-untyped-def]
    """Range of v in the ellipse along·u² + 2·cross·u·v + across·v² <= q while u stays in [low, high]; empty: low > high."""
    det = max(along * across - cross * cross, 1e-30)
    extent = math.sqrt(q * across / det)  # of u
    low = max(low, -extent)
    high = min(high, extent)
    if low > high:
        return 1.0, 0.0
    top = math.sqrt(q * along / det)  # greatest v, reached at u = -cross / along · top
    u = min(max(-cross / along * top, low), high)
    upper = (-cross * u + math.sqrt(max(across * q - det * u * u, 0.0))) / across
    u = min(max(cross / along * top, low), high)
    lower = (-cross * u - math.sqrt(max(across * q - det * u * u, 0.0))) / across
    return lower - SLACK, upper + SLACK


@device_function
def _tile_row(splats, n, row, left, right, shrink):  # type: ignore[no-untyped-def]
    """First and one past the last tile of tile row `row`, within [left, right), with a pixel centre in the splat's ellipse."""
    low = row * TILE + 0.5 - float(splats[n, 1])
    first, last = _reach(
        float(splats[n, 4]), float(splats[n, 3]), float(splats[n, 2]), float(splats[n, 6]) * shrink,
        low - SLACK, low + TILE - 1 + SLACK,
    )  # fmt: skip
    if first > last:
        return 0, 0
    x = float(splats[n, 0])
    begin = max(left, math.floor(math.ceil(x + first - 0.5) / TILE))
    end = min(right, math.floor(math.floor(x + last - 0.5) / TILE) + 1)
    return int(begin), int(max(begin, end))


@device_function
def _box(splats, radii, n, tiles_x, tiles_y):  # type: ignore[no-untyped-def]
    """gsplat 1.4's tiles of a splat: those that meet the square of its radius. left, right, top, bottom; ends excluded."""
    r = radii[n] / TILE
    x = splats[n, 0] / TILE
    y = splats[n, 1] / TILE
    return (
        int(max(0, math.floor(x - r))),
        int(min(tiles_x, math.ceil(x + r))),
        int(max(0, math.floor(y - r))),
        int(min(tiles_y, math.ceil(y + r))),
    )


@kernel("void(int64, int64, int64, int32[::1], float32[:,::1], int32[::1], int64, int64, float64, int32[:,::1], int32[::1])")
def count_tiles(  # type: ignore[no-untyped-def]
    begin, end, grain, order, splats, radii, tiles_x, tiles_y, shrink, histogram, tiles_per_splat
):
    """Tiles met by each splat, and by each chunk of the depth order per tile: histogram [chunks, tiles]."""
    chunk = begin // grain
    for i in range(begin, end):
        n = order[i]
        left, right, top, bottom = _box(splats, radii, n, tiles_x, tiles_y)
        total = 0
        if splats[n, 6] > ZERO:
            for row in range(top, bottom):
                first, last = _tile_row(splats, n, row, left, right, shrink)
                for column in range(first, last):
                    histogram[chunk, row * tiles_x + column] += 1
                total += last - first
        tiles_per_splat[n] = total


@kernel(
    "void(int64, int64, int64, int32[::1], float32[:,::1], int32[::1], int64, int64, float64, int64[:,::1], int64[::1],"
    " int32, int32[::1], int64[::1])"
)
def fill_tiles(  # type: ignore[no-untyped-def]
    begin, end, grain, order, splats, radii, tiles_x, tiles_y, shrink, cursor, first_slot, base, flatten_ids, slots
):
    """Second pass: the counting sort. flatten_ids lists splats tile by tile, front to back; slots is its inverse by splat."""
    chunk = begin // grain
    for i in range(begin, end):
        n = order[i]
        if splats[n, 6] <= ZERO:
            continue
        left, right, top, bottom = _box(splats, radii, n, tiles_x, tiles_y)
        k = first_slot[n]
        for row in range(top, bottom):
            first, last = _tile_row(splats, n, row, left, right, shrink)
            for column in range(first, last):
                at = cursor[chunk, row * tiles_x + column]
                cursor[chunk, row * tiles_x + column] = at + 1
                flatten_ids[at] = base + n
                slots[k] = at
                k += 1


@device_function
def _rows(splats, g, x0, y0, rows):  # type: ignore[no-untyped-def]
    """Pixel rows of the tile at (x0, y0) that the splat can touch: first, and one past the last."""
    x = float(splats[g, 0])
    y = float(splats[g, 1])
    low = x0 + 0.5 - x
    first, last = _reach(
        float(splats[g, 2]), float(splats[g, 3]), float(splats[g, 4]), float(splats[g, 6]),
        low - SLACK, low + TILE - 1 + SLACK,
    )  # fmt: skip
    if first > last:
        return 0, 0
    begin = max(math.ceil(y + first - 0.5) - y0, 0)
    end = min(math.floor(y + last - 0.5) + 1 - y0, rows)
    return int(begin), int(end)


@device_function
def _open_row(S, r):  # type: ignore[no-untyped-def]
    """Nothing drawn yet in row r: transmittance, smallest alpha that counts (NEVER once the pixel is closed), last splat."""
    for k in range(TILE):
        S[r, 0, k] = ONE
        S[r, 1, k] = ALPHA_MIN
        S[r, 2, k] = NONE


@device_function
def _weigh(s, opacity, T, least):  # type: ignore[no-untyped-def]
    """A splat's weight alpha·T in a pixel at half the squared distance s; then the pixel's T, and the least alpha that counts.

    A pixel is closed when the next splat would bring T to 1e-4 or less; that splat and all behind it are left out.
    """
    alpha = min(ALPHA_MAX, opacity * _exp_minus(s))
    alpha = alpha if (alpha >= least) & (s >= ZERO) else ZERO
    T_next = T - T * alpha
    close = T_next <= TRANSMITTANCE_MIN
    return ZERO if close else T * alpha, T if close else T_next, NEVER if close else least


@device_function
def _padded(D):  # type: ignore[no-untyped-def]
    return (D + GROUP - 1) // GROUP * GROUP


@device_function
def _group(colors, g, c):  # type: ignore[no-untyped-def]
    """Channels c to c + 3 of a splat; 0 beyond the last."""
    D = colors.shape[1]
    return (
        colors[g, c],
        colors[g, c + 1] if c + 1 < D else ZERO,
        colors[g, c + 2] if c + 2 < D else ZERO,
        colors[g, c + 3] if c + 3 < D else ZERO,
    )


@device_function
def _all_closed(S, rows, columns):  # type: ignore[no-untyped-def]
    smallest = NEVER
    for r in range(rows):
        for k in range(columns):
            smallest = min(smallest, S[r, 1, k])
    return smallest == NEVER


@kernel(
    "void(int64, int64, int64, int64, int64, int64, int64[::1], int32[::1], float32[:,::1], float32[:,::1],"
    " float32[:,::1], float32[:,:,:,::1], float32[:,:,::1], int32[:,:,::1])"
)
def blend(  # type: ignore[no-untyped-def]
    begin, end, tiles_x, tiles_y, width, height, offsets, flatten_ids, splats, colors, background, image, alphas, last_ids
):
    """Front-to-back alpha blending of the tiles [begin, end) of all cameras (3DGS, eq. 3).

    image = Σ T·alpha·colour + T_end·background; alphas = 1 - T_end; last_ids = place in the tile's list of a pixel's last
    contributor, or -1.
    """
    D = colors.shape[1]
    P = _padded(D)
    S = np.empty((TILE, 3 + P, TILE), np.float32)  # per row: T, smallest alpha that counts, last contributor, colour
    w = np.empty(TILE, np.float32)
    px = np.empty(TILE, np.float32)
    for tile in range(begin, end):
        camera = tile // (tiles_x * tiles_y)
        x0 = tile % tiles_x * TILE
        y0 = tile // tiles_x % tiles_y * TILE
        rows = min(TILE, height - y0)
        columns = min(TILE, width - x0)
        for k in range(TILE):
            px[k] = F(x0 + k) + HALF
        for r in range(TILE):
            _open_row(S, r)
            for c in range(P):
                for k in range(TILE):
                    S[r, 3 + c, k] = ZERO
        i0 = offsets[tile]
        for i in range(i0, offsets[tile + 1]):
            g = flatten_ids[i]
            x, y, a, b, c2 = splats[g, 0], splats[g, 1], splats[g, 2] * HALF, splats[g, 3], splats[g, 4] * HALF
            opacity = splats[g, 5]
            place = F(i - i0)
            d0, d1, d2, d3 = _group(colors, g, 0)
            first, last = _rows(splats, g, x0, y0, rows)
            for r in range(first, last):
                dy = y - (F(y0 + r) + HALF)
                b_dy = b * dy
                c_dy = c2 * dy * dy
                for k in range(TILE):
                    dx = x - px[k]
                    weight, T, least = _weigh((a * dx + b_dy) * dx + c_dy, opacity, S[r, 0, k], S[r, 1, k])
                    contributor = S[r, 2, k]
                    S[r, 0, k] = T
                    S[r, 1, k] = least
                    S[r, 2, k] = place if weight > ZERO else contributor
                    w[k] = weight
                    S[r, 3, k] += weight * d0
                    S[r, 4, k] += weight * d1
                    S[r, 5, k] += weight * d2
                    S[r, 6, k] += weight * d3
                for c in range(GROUP, D, GROUP):
                    e0, e1, e2, e3 = _group(colors, g, c)
                    for k in range(TILE):
                        S[r, 3 + c, k] += w[k] * e0
                        S[r, 4 + c, k] += w[k] * e1
                        S[r, 5 + c, k] += w[k] * e2
                        S[r, 6 + c, k] += w[k] * e3
            if (i - i0) % CHECK_EVERY == CHECK_EVERY - 1 and _all_closed(S, rows, columns):
                break
        for r in range(rows):
            for k in range(columns):
                alphas[camera, y0 + r, x0 + k] = ONE - S[r, 0, k]
                last_ids[camera, y0 + r, x0 + k] = np.int32(S[r, 2, k])
                for c in range(D):
                    image[camera, y0 + r, x0 + k, c] = S[r, 3 + c, k] + S[r, 0, k] * background[camera, c]


@kernel(
    "void(int64, int64, int64, int64, int64, int64, int64[::1], int32[::1], float32[:,::1], float32[:,::1],"
    " float32[:,::1], float32[:,:,::1], int32[:,:,::1], float32[:,:,:,::1], float32[:,:,::1], float32[:,::1])"
)
def blend_backward(  # type: ignore[no-untyped-def]
    begin, end, tiles_x, tiles_y, width, height, offsets, flatten_ids, splats, colors, background, alphas, last_ids,
    v_image, v_alphas, rows_out,
):  # fmt: skip
    """Gradient of `blend`, back to front from each pixel's last contributor; rows_out [intersections, 8 + D].

    With g_i = colour_i · v_image, w_i = T_i·alpha_i and B_i = Σ_{j behind i} w_j g_j - T_end (v_alpha - background·v_image):
    v_alpha_i = T_i·g_i - B_i / (1 - alpha_i).
    """
    D = colors.shape[1]
    P = _padded(D)
    S = np.empty((TILE, 3 + P, TILE), np.float32)  # per row: T, B, last contributor, v_image
    A = np.empty((SHAPE + P, TILE), np.float32)
    w = np.empty(TILE, np.float32)
    g_dot = np.zeros(TILE, np.float32)
    px = np.empty(TILE, np.float32)
    for tile in range(begin, end):
        camera = tile // (tiles_x * tiles_y)
        x0 = tile % tiles_x * TILE
        y0 = tile // tiles_x % tiles_y * TILE
        rows = min(TILE, height - y0)
        columns = min(TILE, width - x0)
        S[:] = ZERO
        S[:, 2, :] = NONE
        deepest = -1
        for k in range(TILE):
            px[k] = F(x0 + k) + HALF
        for r in range(rows):
            for k in range(columns):
                T = ONE - alphas[camera, y0 + r, x0 + k]
                v_end = v_alphas[camera, y0 + r, x0 + k]
                for c in range(D):
                    S[r, 3 + c, k] = v_image[camera, y0 + r, x0 + k, c]
                    v_end -= background[camera, c] * S[r, 3 + c, k]
                S[r, 0, k] = T
                S[r, 1, k] = -T * v_end
                S[r, 2, k] = F(last_ids[camera, y0 + r, x0 + k])
                deepest = max(deepest, last_ids[camera, y0 + r, x0 + k])
        i0 = offsets[tile]
        for i in range(i0 + deepest + 1, offsets[tile + 1]):
            for j in range(SHAPE + D):
                rows_out[i, j] = ZERO
        for i in range(i0 + deepest, i0 - 1, -1):
            g = flatten_ids[i]
            x, y, a, b, c2 = splats[g, 0], splats[g, 1], splats[g, 2], splats[g, 3], splats[g, 4]
            a_half = a * HALF
            opacity = splats[g, 5]
            place = F(i - i0)
            d0, d1, d2, d3 = _group(colors, g, 0)
            for j in range(SHAPE + P):
                for k in range(TILE):
                    A[j, k] = ZERO
            first, last = _rows(splats, g, x0, y0, rows)
            for r in range(first, last):
                dy = y - (F(y0 + r) + HALF)
                b_dy = b * dy
                c_dy = c2 * dy
                c_dy2 = c2 * HALF * dy * dy
                if D > GROUP:
                    for k in range(TILE):
                        g_dot[k] = ZERO
                for c in range(GROUP, D, GROUP):
                    e0, e1, e2, e3 = _group(colors, g, c)
                    for k in range(TILE):
                        g_dot[k] += S[r, 3 + c, k] * e0 + S[r, 4 + c, k] * e1 + S[r, 5 + c, k] * e2 + S[r, 6 + c, k] * e3
                for k in range(TILE):
                    dx = x - px[k]
                    v0, v1, v2, v3 = S[r, 3, k], S[r, 4, k], S[r, 5, k], S[r, 6, k]
                    dot = d0 * v0 + d1 * v1 + d2 * v2 + d3 * v3 + g_dot[k]
                    s = (a_half * dx + b_dy) * dx + c_dy2
                    raw = opacity * _exp_minus(s)
                    alpha = min(ALPHA_MAX, raw)
                    on = (alpha >= ALPHA_MIN) & (s >= ZERO) & (place <= S[r, 2, k])
                    alpha = alpha if on else ZERO
                    inverse = ONE / (ONE - alpha)
                    T = S[r, 0, k] * inverse
                    behind = S[r, 1, k]
                    v_alpha = T * dot - inverse * behind
                    weight = T * alpha
                    S[r, 0, k] = T
                    S[r, 1, k] = behind + weight * dot
                    w[k] = weight
                    v_s = -raw * v_alpha if on & (raw <= ALPHA_MAX) else ZERO
                    v_x = v_s * (a * dx + b_dy)
                    v_y = v_s * (b * dx + c_dy)
                    v_s_dx = v_s * dx
                    A[0, k] += v_x
                    A[1, k] += v_y
                    A[2, k] += abs(v_x)
                    A[3, k] += abs(v_y)
                    A[4, k] += v_s_dx * dx
                    A[5, k] += v_s_dx * dy
                    A[6, k] += v_s * dy * dy
                    A[7, k] += v_s
                    A[SHAPE, k] += weight * v0
                    A[SHAPE + 1, k] += weight * v1
                    A[SHAPE + 2, k] += weight * v2
                    A[SHAPE + 3, k] += weight * v3
                for c in range(GROUP, D, GROUP):
                    for k in range(TILE):
                        A[SHAPE + c, k] += w[k] * S[r, 3 + c, k]
                        A[SHAPE + c + 1, k] += w[k] * S[r, 4 + c, k]
                        A[SHAPE + c + 2, k] += w[k] * S[r, 5 + c, k]
                        A[SHAPE + c + 3, k] += w[k] * S[r, 6 + c, k]
            for j in range(SHAPE + D):
                total = ZERO
                for k in range(TILE):
                    total += A[j, k]
                rows_out[i, j] = total
            rows_out[i, 4] *= HALF
            rows_out[i, 6] *= HALF
            rows_out[i, 7] /= -opacity


@kernel("void(int64, int64, int64[::1], int64[::1], float32[:,::1], float32[:,::1])")
def sum_rows(begin, end, first_slot, slots, rows_in, sums):  # type: ignore[no-untyped-def]
    """sums[n] = Σ of the gradient rows of splat n, in the order of its tiles."""
    for n in range(begin, end):
        for j in range(rows_in.shape[1]):
            sums[n, j] = ZERO
        for k in range(first_slot[n], first_slot[n + 1]):
            row = slots[k]
            for j in range(rows_in.shape[1]):
                sums[n, j] += rows_in[row, j]


@kernel(
    "void(int64, int64, int64, int64, int64, int64, int64[::1], int32[::1], float32[:,::1], float32[:,:,:,::1], boolean,"
    " float32[:,::1])"
)
def gather(  # type: ignore[no-untyped-def]
    begin, end, tiles_x, tiles_y, width, height, offsets, flatten_ids, splats, maps, counting, rows_out
):
    """The adjoint of `blend` in the colours: rows_out[i, c] = Σ over the tile's pixels of T·alpha·maps[..., c].

    With `counting`, each contribution weighs 1 instead of T·alpha: exact counts of masked pixels.
    """
    D = maps.shape[3]
    P = _padded(D)
    S = np.empty((TILE, 3 + P, TILE), np.float32)
    A = np.empty((P, TILE), np.float32)
    w = np.empty(TILE, np.float32)
    px = np.empty(TILE, np.float32)
    for tile in range(begin, end):
        camera = tile // (tiles_x * tiles_y)
        x0 = tile % tiles_x * TILE
        y0 = tile // tiles_x % tiles_y * TILE
        rows = min(TILE, height - y0)
        columns = min(TILE, width - x0)
        S[:] = ZERO
        for k in range(TILE):
            px[k] = F(x0 + k) + HALF
        for r in range(TILE):
            _open_row(S, r)
            if r < rows:
                for k in range(columns):
                    for c in range(D):
                        S[r, 3 + c, k] = maps[camera, y0 + r, x0 + k, c]
        i0 = offsets[tile]
        closed = False
        for i in range(i0, offsets[tile + 1]):
            for c in range(D):
                rows_out[i, c] = ZERO
            if closed:
                continue
            g = flatten_ids[i]
            x, y, a, b, c2 = splats[g, 0], splats[g, 1], splats[g, 2] * HALF, splats[g, 3], splats[g, 4] * HALF
            opacity = splats[g, 5]
            A[:] = ZERO
            first, last = _rows(splats, g, x0, y0, rows)
            for r in range(first, last):
                dy = y - (F(y0 + r) + HALF)
                b_dy = b * dy
                c_dy = c2 * dy * dy
                for k in range(TILE):
                    dx = x - px[k]
                    weight, T, least = _weigh((a * dx + b_dy) * dx + c_dy, opacity, S[r, 0, k], S[r, 1, k])
                    S[r, 0, k] = T
                    S[r, 1, k] = least
                    if counting:
                        weight = ONE if weight > ZERO else ZERO
                    w[k] = weight
                    A[0, k] += weight * S[r, 3, k]
                    A[1, k] += weight * S[r, 4, k]
                    A[2, k] += weight * S[r, 5, k]
                    A[3, k] += weight * S[r, 6, k]
                for c in range(GROUP, D, GROUP):
                    for k in range(TILE):
                        A[c, k] += w[k] * S[r, 3 + c, k]
                        A[c + 1, k] += w[k] * S[r, 4 + c, k]
                        A[c + 2, k] += w[k] * S[r, 5 + c, k]
                        A[c + 3, k] += w[k] * S[r, 6 + c, k]
            for c in range(D):
                total = ZERO
                for k in range(TILE):
                    total += A[c, k]
                rows_out[i, c] = total
            if (i - i0) % CHECK_EVERY == CHECK_EVERY - 1:
                closed = _all_closed(S, rows, columns)
