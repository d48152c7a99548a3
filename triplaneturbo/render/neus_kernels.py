"""The loops that march rays through an sdf on a lattice, forward and backward, compiled by numba.

What they compute is stated, and written in plain torch, in lattice.py. What makes them quick: a ray leaps
over blocks of cells that are all farther from the surface than `reach`, where the logistic function counts as
one; it ends where next to nothing shines through; and the backward pass walks forward again instead of
keeping anything: with L = sum w v the share of the samples still ahead is L less what has been passed.

Arrays are float32 and contiguous; index b is the item, r the ray. Constants are float32 as well, so that
nothing is computed in double precision by accident.
"""

from __future__ import annotations

import math

import numpy as np

from triplaneturbo.utils.kernels import kernel

BLOCK = 4  # cells along each side of a block

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
# Unsigned, so that numba need not ask whether an index counts from the end.
_FIRST, _SECOND, _THIRD, _NEXT = np.uintp(0), np.uintp(1), np.uintp(2), np.uintp(1)
_MOST = np.float32(80)  # the exponential of more overflows
_FAINT = np.float32(1e-7)  # a weight too small to look up a normal for


@kernel
def block_minima(sdf):
    """The least sdf [B, R, R, R] on and around each block of cells, [B, K, K, K]."""
    batch, size = sdf.shape[0], sdf.shape[1]
    blocks = (size - 1 + BLOCK - 1) // BLOCK
    out = np.empty((batch, blocks, blocks, blocks), np.float32)
    for b in range(batch):
        for i in range(blocks):
            for j in range(blocks):
                for k in range(blocks):
                    least = np.float32(np.inf)
                    for x in range(i * BLOCK, min(i * BLOCK + BLOCK + 1, size)):
                        for y in range(j * BLOCK, min(j * BLOCK + BLOCK + 1, size)):
                            for z in range(k * BLOCK, min(k * BLOCK + BLOCK + 1, size)):
                                least = min(least, sdf[b, x, y, z])
                    out[b, i, j, k] = least
    return out


@kernel
def _side(origin, direction, enter, leave):
    """Narrow [enter, leave] along a ray to the part between the planes -1 and 1 of one axis."""
    if direction == _ZERO:
        if origin < -_ONE or origin > _ONE:
            return _ONE, -_ONE
        return enter, leave
    one, other = (-_ONE - origin) / direction, (_ONE - origin) / direction
    return max(enter, min(one, other)), min(leave, max(one, other))


@kernel
def _span(ox, oy, oz, dx, dy, dz):
    """Where a ray, from its origin on, enters and leaves [-1, 1]^3; leave <= enter if it misses it."""
    enter, leave = _side(ox, dx, _ZERO, np.float32(np.inf))
    enter, leave = _side(oy, dy, enter, leave)
    return _side(oz, dz, enter, leave)


@kernel
def _edge(index, enter, leave, step, shift):
    """Distance of a ray's edge: the first lies where it enters, the last where it leaves."""
    if index == 0:
        return enter
    return min(enter + (np.float32(index - 1) + shift) * step, leave)


@kernel
def _cell(at, last):
    """The cell of coordinate `at`, in cells, and where in it (0 to 1); the last cell is number last - 1."""
    at = min(max(at, _ZERO), np.float32(last))
    low = min(int(at), last - 1)
    return low, at - np.float32(low)


@kernel
def _exit(index, at, slope, leave):
    """How far it is, along one axis, to the end of the block that holds cell `index`."""
    start = index // BLOCK * BLOCK
    if slope > _ZERO:
        return min(leave, (np.float32(start + BLOCK) - at) / slope)
    if slope < _ZERO:
        return min(leave, (np.float32(start) - at) / slope)
    return leave


@kernel
def _after(index, far, enter, step, shift):
    """The first edge, from `index` on, that lies beyond distance `far`."""
    return max(index, int((far - enter) / step - shift + _ONE) + 1)


@kernel
def _interpolate(grid, at, dy, dx, fx, fy, fz):
    """Trilinear interpolation of grid [R^3] in the cell with lowest node `at`; dy and dx are R and R^2."""
    gx, gy, gz = _ONE - fx, _ONE - fy, _ONE - fz
    low = gy * (gz * grid[at] + fz * grid[at + _NEXT])
    low += fy * (gz * grid[at + dy] + fz * grid[at + dy + _NEXT])
    at += dx
    high = gy * (gz * grid[at] + fz * grid[at + _NEXT])
    high += fy * (gz * grid[at + dy] + fz * grid[at + dy + _NEXT])
    return gx * low + fx * high


@kernel
def _scatter(grid, value, at, dy, dx, fx, fy, fz):
    """Add the gradient of an interpolated value to grid [R^3]."""
    low, high = value * (_ONE - fx), value * fx
    ll, lh, hl, hh = low * (_ONE - fy), low * fy, high * (_ONE - fy), high * fy
    gz = _ONE - fz
    grid[at] += ll * gz
    grid[at + _NEXT] += ll * fz
    grid[at + dy] += lh * gz
    grid[at + dy + _NEXT] += lh * fz
    at += dx
    grid[at] += hl * gz
    grid[at + _NEXT] += hl * fz
    grid[at + dy] += hh * gz
    grid[at + dy + _NEXT] += hh * fz


@kernel
def _interpolate_vector(grid, at, dy, dx, fx, fy, fz):
    """Trilinear interpolation of grid [R^3, 3] in a cell: three numbers."""
    u, v, w = _ZERO, _ZERO, _ZERO
    for corner in range(8):
        weight, node = _corner(corner, at, dy, dx, fx, fy, fz)
        u += weight * grid[node, _FIRST]
        v += weight * grid[node, _SECOND]
        w += weight * grid[node, _THIRD]
    return u, v, w


@kernel
def _scatter_vector(grid, u, v, w, at, dy, dx, fx, fy, fz):
    """Add the gradient (u, v, w) of an interpolated vector to grid [R^3, 3]."""
    for corner in range(8):
        weight, node = _corner(corner, at, dy, dx, fx, fy, fz)
        grid[node, _FIRST] += weight * u
        grid[node, _SECOND] += weight * v
        grid[node, _THIRD] += weight * w


@kernel
def _corner(corner, at, dy, dx, fx, fy, fz):
    """Weight and node of one of a cell's eight corners, numbered 4 x + 2 y + z."""
    weight = fx if corner & 4 else _ONE - fx
    weight *= fy if corner & 2 else _ONE - fy
    weight *= fz if corner & 1 else _ONE - fz
    node = at
    if corner & 4:
        node += dx
    if corner & 2:
        node += dy
    if corner & 1:
        node += _NEXT
    return weight, node


@kernel
def forward(sdf, normals, blocks, origins, directions, shifts, step, sharpness, reach, cut, out):
    """Render rays.

    Args:
        sdf: [B, R, R, R]; normals: [B, R, R, R, 3], at the nodes.
        blocks: `nearest_of_blocks(sdf)`.
        origins, directions: [B, N, 3]; shifts: where the first edge lies, in steps [B, N], 0 to 1.
        step: between edges, in world units.
        sharpness, reach, cut: see `lattice.render_lattice`.
        out: opacity, depth and normal of each ray, written here [B, N, 5].
    """
    size = sdf.shape[1]
    last = size - 1
    dy, dx = np.uintp(size), np.uintp(size * size)
    scale = np.float32(last) * _HALF
    for b in range(sdf.shape[0]):
        values, vectors, near = sdf[b].reshape(-1), normals[b].reshape(-1, 3), blocks[b]
        for r in range(origins.shape[1]):
            opacity, depth, nx, ny, nz = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
            ox, oy, oz = origins[b, r, 0], origins[b, r, 1], origins[b, r, 2]
            sx, sy, sz = directions[b, r, 0], directions[b, r, 1], directions[b, r, 2]
            enter, leave = _span(ox, oy, oz, sx, sy, sz)
            ax, ay, az = (ox + _ONE) * scale, (oy + _ONE) * scale, (oz + _ONE) * scale
            sx, sy, sz = sx * scale, sy * scale, sz * scale
            shift = shifts[b, r]
            through, before, t = _ONE, _ZERO, _ZERO  # before, now: odds of being inside, (1 - P) / P
            index = 0
            while enter < leave and t < leave:
                t = _edge(index, enter, leave, step, shift)
                x, fx = _cell(ax + t * sx, last)
                y, fy = _cell(ay + t * sy, last)
                z, fz = _cell(az + t * sz, last)
                value = _interpolate(values, np.uintp((x * size + y) * size + z), dy, dx, fx, fy, fz)
                index += 1
                if value > reach:
                    before = _ZERO
                    if near[x // BLOCK, y // BLOCK, z // BLOCK] > reach:
                        far = _exit(x, ax, sx, _exit(y, ay, sy, _exit(z, az, sz, leave)))
                        index = _after(index, far, enter, step, shift)
                    continue
                now = math.exp(min(-sharpness * value, _MOST))
                if now > before:
                    left = through * ((_ONE + before) / (_ONE + now))
                    weight = through - left
                    middle = _HALF * (t + _edge(max(index - 2, 0), enter, leave, step, shift))
                    opacity += weight
                    depth += weight * middle
                    if weight > _FAINT:
                        x, fx = _cell(ax + middle * sx, last)
                        y, fy = _cell(ay + middle * sy, last)
                        z, fz = _cell(az + middle * sz, last)
                        at = np.uintp((x * size + y) * size + z)
                        u, v, w = _interpolate_vector(vectors, at, dy, dx, fx, fy, fz)
                        nx += weight * u
                        ny += weight * v
                        nz += weight * w
                    through = left
                    if through < cut:
                        break
                before = now
            out[b, r, 0] = opacity
            out[b, r, 1] = depth
            out[b, r, 2] = nx
            out[b, r, 3] = ny
            out[b, r, 4] = nz


@kernel
def backward(sdf, normals, blocks, origins, directions, shifts, step, sharpness, reach, cut, out, given,
             to_sdf, to_normals):  # fmt: skip
    """Gradients of what `forward` made.

    Its arguments, `out` as it left it, and:

    Args:
        given: gradient with respect to `out` [B, N, 5].
        to_sdf, to_normals: gradients are added here, shaped as sdf and normals.
    """
    size = sdf.shape[1]
    last = size - 1
    dy, dx = np.uintp(size), np.uintp(size * size)
    scale = np.float32(last) * _HALF
    for b in range(sdf.shape[0]):
        values, vectors, near = sdf[b].reshape(-1), normals[b].reshape(-1, 3), blocks[b]
        to_values, to_vectors = to_sdf[b].reshape(-1), to_normals[b].reshape(-1, 3)
        for r in range(origins.shape[1]):
            to_opacity, to_depth = given[b, r, 0], given[b, r, 1]
            to_x, to_y, to_z = given[b, r, 2], given[b, r, 3], given[b, r, 4]
            turned = to_x != _ZERO or to_y != _ZERO or to_z != _ZERO
            if (to_opacity == _ZERO and to_depth == _ZERO and not turned) or out[b, r, 0] == _ZERO:
                continue
            ahead = to_opacity * out[b, r, 0] + to_depth * out[b, r, 1]
            ahead += to_x * out[b, r, 2] + to_y * out[b, r, 3] + to_z * out[b, r, 4]
            ox, oy, oz = origins[b, r, 0], origins[b, r, 1], origins[b, r, 2]
            sx, sy, sz = directions[b, r, 0], directions[b, r, 1], directions[b, r, 2]
            enter, leave = _span(ox, oy, oz, sx, sy, sz)
            ax, ay, az = (ox + _ONE) * scale, (oy + _ONE) * scale, (oz + _ONE) * scale
            sx, sy, sz = sx * scale, sy * scale, sz * scale
            shift = shifts[b, r]
            through, before, t = _ONE, _ZERO, _ZERO  # before, now: odds of being inside, (1 - P) / P
            # The edge before: its gradient is complete only when its second interval is known.
            held, hold, hx, hy, hz = _ZERO, _NEXT, _ZERO, _ZERO, _ZERO
            index = 0
            while enter < leave and t < leave:
                t = _edge(index, enter, leave, step, shift)
                x, fx = _cell(ax + t * sx, last)
                y, fy = _cell(ay + t * sy, last)
                z, fz = _cell(az + t * sz, last)
                at = np.uintp((x * size + y) * size + z)
                value = _interpolate(values, at, dy, dx, fx, fy, fz)
                index += 1
                if value > reach:
                    if before > _ZERO:
                        slope = held * sharpness * (before / (_ONE + before))
                        _scatter(to_values, slope, hold, dy, dx, hx, hy, hz)
                    before = _ZERO
                    if near[x // BLOCK, y // BLOCK, z // BLOCK] > reach:
                        far = _exit(x, ax, sx, _exit(y, ay, sy, _exit(z, az, sz, leave)))
                        index = _after(index, far, enter, step, shift)
                    continue
                now, share = math.exp(min(-sharpness * value, _MOST)), _ZERO
                if now > before:
                    left = through * ((_ONE + before) / (_ONE + now))
                    weight = through - left
                    middle = _HALF * (t + _edge(max(index - 2, 0), enter, leave, step, shift))
                    worth = to_opacity + to_depth * middle
                    if turned:
                        mx, mfx = _cell(ax + middle * sx, last)
                        my, mfy = _cell(ay + middle * sy, last)
                        mz, mfz = _cell(az + middle * sz, last)
                        mid = np.uintp((mx * size + my) * size + mz)
                        u, v, w = _interpolate_vector(vectors, mid, dy, dx, mfx, mfy, mfz)
                        worth += to_x * u + to_y * v + to_z * w
                        if weight > _FAINT:
                            u, v, w = weight * to_x, weight * to_y, weight * to_z
                            _scatter_vector(to_vectors, u, v, w, mid, dy, dx, mfx, mfy, mfz)
                    ahead -= weight * worth
                    share = ahead - left * worth  # d L / d log(left / through)
                    through = left
                if before > _ZERO:
                    slope = (held - share) * sharpness * (before / (_ONE + before))
                    _scatter(to_values, slope, hold, dy, dx, hx, hy, hz)
                before = now
                held, hold, hx, hy, hz = share, at, fx, fy, fz
                if through < cut:
                    break
            if before > _ZERO:  # the last edge has no second interval
                slope = held * sharpness * (before / (_ONE + before))
                _scatter(to_values, slope, hold, dy, dx, hx, hy, hz)
