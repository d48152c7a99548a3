"""Numba kernels of the grid volume renderer: NeuS ray marching, forward and backward.

The readable torch version is in grid_renderer.py. Three things make the kernels fast: rays skip blocks of
cells whose SDF is above `reach` everywhere, where the logistic function is treated as one; rays terminate at
a minimum transmittance; and the backward pass marches forward again instead of storing samples. With the loss
L = sum w v, the contribution of the remaining samples is L minus that of the samples passed so far.

Arrays are float32 and contiguous; b is the batch index, r the ray index. Constants are float32, too, to avoid
double precision.
"""

from __future__ import annotations

import math

import numpy as np

from triplaneturbo.utils.kernels import kernel

BLOCK = 4  # cells along each side of a block

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
# Unsigned, so that numba generates no code for negative indices.
_FIRST, _SECOND, _THIRD, _NEXT = np.uintp(0), np.uintp(1), np.uintp(2), np.uintp(1)
_MAX_EXPONENT = np.float32(80)  # larger exponents overflow
_MIN_WEIGHT = np.float32(1e-7)  # normals are ignored below this weight


@kernel
def block_minima(sdf):
    """Return the minimum of sdf [B, R, R, R] over the nodes of each block of cells, [B, K, K, K]."""
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
    """Intersect the interval [enter, leave] of a ray with the slab between -1 and 1 along one axis."""
    if direction == _ZERO:
        if origin < -_ONE or origin > _ONE:
            return _ONE, -_ONE
        return enter, leave
    one, other = (-_ONE - origin) / direction, (_ONE - origin) / direction
    return max(enter, min(one, other)), min(leave, max(one, other))


@kernel
def _span(ox, oy, oz, dx, dy, dz):
    """Return the distances at which a ray enters and leaves [-1, 1]^3; leave <= enter on a miss."""
    enter, leave = _side(ox, dx, _ZERO, np.float32(np.inf))
    enter, leave = _side(oy, dy, enter, leave)
    return _side(oz, dz, enter, leave)


@kernel
def _edge(index, enter, leave, step, shift):
    """Return the distance of an edge; the first is at `enter`, the last at `leave`."""
    if index == 0:
        return enter
    return min(enter + (np.float32(index - 1) + shift) * step, leave)


@kernel
def _cell(at, last):
    """Return the cell (0 to last - 1) of coordinate `at`, in cells, and the position in it (0 to 1)."""
    at = min(max(at, _ZERO), np.float32(last))
    low = min(int(at), last - 1)
    return low, at - np.float32(low)


@kernel
def _exit(index, at, slope, leave):
    """Return the distance at which a ray leaves the block of cell `index` along one axis."""
    start = index // BLOCK * BLOCK
    if slope > _ZERO:
        return min(leave, (np.float32(start + BLOCK) - at) / slope)
    if slope < _ZERO:
        return min(leave, (np.float32(start) - at) / slope)
    return leave


@kernel
def _after(index, far, enter, step, shift):
    """Return the index of the first edge, from `index` on, beyond distance `far`."""
    return max(index, int((far - enter) / step - shift + _ONE) + 1)


@kernel
def _interpolate(grid, at, dy, dx, fx, fy, fz):
    """Interpolate grid [R^3] trilinearly in the cell with lowest node `at`; dy and dx are R and R^2."""
    gx, gy, gz = _ONE - fx, _ONE - fy, _ONE - fz
    low = gy * (gz * grid[at] + fz * grid[at + _NEXT])
    low += fy * (gz * grid[at + dy] + fz * grid[at + dy + _NEXT])
    at += dx
    high = gy * (gz * grid[at] + fz * grid[at + _NEXT])
    high += fy * (gz * grid[at + dy] + fz * grid[at + dy + _NEXT])
    return gx * low + fx * high


@kernel
def _scatter(grid, value, at, dy, dx, fx, fy, fz):
    """Add the gradient of `_interpolate` to grid [R^3]."""
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
    """Interpolate grid [R^3, 3] trilinearly: three numbers."""
    u, v, w = _ZERO, _ZERO, _ZERO
    for corner in range(8):
        weight, node = _corner(corner, at, dy, dx, fx, fy, fz)
        u += weight * grid[node, _FIRST]
        v += weight * grid[node, _SECOND]
        w += weight * grid[node, _THIRD]
    return u, v, w


@kernel
def _scatter_vector(grid, u, v, w, at, dy, dx, fx, fy, fz):
    """Add the gradient (u, v, w) of `_interpolate_vector` to grid [R^3, 3]."""
    for corner in range(8):
        weight, node = _corner(corner, at, dy, dx, fx, fy, fz)
        grid[node, _FIRST] += weight * u
        grid[node, _SECOND] += weight * v
        grid[node, _THIRD] += weight * w


@kernel
def _corner(corner, at, dy, dx, fx, fy, fz):
    """Return the weight and node of a corner of a cell; corners are numbered 4 x + 2 y + z."""
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
        sdf: SDF at the nodes [B, R, R, R].
        normals: normals at the nodes [B, R, R, R, 3].
        blocks: `block_minima(sdf)`.
        origins, directions: rays [B, N, 3].
        shifts: offset of the first edge after `enter`, in steps, 0 to 1 [B, N].
        step: distance between edges, in world units.
        sharpness: s in sigmoid(s * sdf).
        reach: SDF above which space is treated as empty.
        cut: minimum transmittance, at which a ray terminates.
        out: output, opacity, depth and normal of each ray [B, N, 5].
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
            transmittance, before, t = _ONE, _ZERO, _ZERO  # before, now: odds of being inside, (1 - P) / P
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
                now = math.exp(min(-sharpness * value, _MAX_EXPONENT))
                if now > before:
                    left = transmittance * ((_ONE + before) / (_ONE + now))
                    weight = transmittance - left
                    middle = _HALF * (t + _edge(max(index - 2, 0), enter, leave, step, shift))
                    opacity += weight
                    depth += weight * middle
                    if weight > _MIN_WEIGHT:
                        x, fx = _cell(ax + middle * sx, last)
                        y, fy = _cell(ay + middle * sy, last)
                        z, fz = _cell(az + middle * sz, last)
                        at = np.uintp((x * size + y) * size + z)
                        u, v, w = _interpolate_vector(vectors, at, dy, dx, fx, fy, fz)
                        nx += weight * u
                        ny += weight * v
                        nz += weight * w
                    transmittance = left
                    if transmittance < cut:
                        break
                before = now
            out[b, r, 0] = opacity
            out[b, r, 1] = depth
            out[b, r, 2] = nx
            out[b, r, 3] = ny
            out[b, r, 4] = nz


@kernel
def backward(sdf, normals, blocks, origins, directions, shifts, step, sharpness, reach, cut, out, grad_out,
             grad_sdf, grad_normals):  # fmt: skip
    """Backward pass of `forward`, with its arguments, its output in `out`, and three more.

    Args:
        grad_out: gradient with respect to `out` [B, N, 5].
        grad_sdf, grad_normals: gradients are added to these, shaped as sdf and normals.
    """
    size = sdf.shape[1]
    last = size - 1
    dy, dx = np.uintp(size), np.uintp(size * size)
    scale = np.float32(last) * _HALF
    for b in range(sdf.shape[0]):
        values, vectors, near = sdf[b].reshape(-1), normals[b].reshape(-1, 3), blocks[b]
        to_values, to_vectors = grad_sdf[b].reshape(-1), grad_normals[b].reshape(-1, 3)
        for r in range(origins.shape[1]):
            to_opacity, to_depth = grad_out[b, r, 0], grad_out[b, r, 1]
            to_x, to_y, to_z = grad_out[b, r, 2], grad_out[b, r, 3], grad_out[b, r, 4]
            has_normal_grad = to_x != _ZERO or to_y != _ZERO or to_z != _ZERO
            if (to_opacity == _ZERO and to_depth == _ZERO and not has_normal_grad) or out[b, r, 0] == _ZERO:
                continue
            remaining = to_opacity * out[b, r, 0] + to_depth * out[b, r, 1]
            remaining += to_x * out[b, r, 2] + to_y * out[b, r, 3] + to_z * out[b, r, 4]
            ox, oy, oz = origins[b, r, 0], origins[b, r, 1], origins[b, r, 2]
            sx, sy, sz = directions[b, r, 0], directions[b, r, 1], directions[b, r, 2]
            enter, leave = _span(ox, oy, oz, sx, sy, sz)
            ax, ay, az = (ox + _ONE) * scale, (oy + _ONE) * scale, (oz + _ONE) * scale
            sx, sy, sz = sx * scale, sy * scale, sz * scale
            shift = shifts[b, r]
            transmittance, before, t = _ONE, _ZERO, _ZERO  # before, now: odds of being inside, (1 - P) / P
            # The previous edge is held back: its gradient also depends on the interval after it.
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
                now, share = math.exp(min(-sharpness * value, _MAX_EXPONENT)), _ZERO
                if now > before:
                    left = transmittance * ((_ONE + before) / (_ONE + now))
                    weight = transmittance - left
                    middle = _HALF * (t + _edge(max(index - 2, 0), enter, leave, step, shift))
                    value_grad = to_opacity + to_depth * middle
                    if has_normal_grad:
                        mx, mfx = _cell(ax + middle * sx, last)
                        my, mfy = _cell(ay + middle * sy, last)
                        mz, mfz = _cell(az + middle * sz, last)
                        mid = np.uintp((mx * size + my) * size + mz)
                        u, v, w = _interpolate_vector(vectors, mid, dy, dx, mfx, mfy, mfz)
                        value_grad += to_x * u + to_y * v + to_z * w
                        if weight > _MIN_WEIGHT:
                            u, v, w = weight * to_x, weight * to_y, weight * to_z
                            _scatter_vector(to_vectors, u, v, w, mid, dy, dx, mfx, mfy, mfz)
                    remaining -= weight * value_grad
                    share = remaining - left * value_grad  # d L / d log(left / transmittance)
                    transmittance = left
                if before > _ZERO:
                    slope = (held - share) * sharpness * (before / (_ONE + before))
                    _scatter(to_values, slope, hold, dy, dx, hx, hy, hz)
                before = now
                held, hold, hx, hy, hz = share, at, fx, fy, fz
                if transmittance < cut:
                    break
            if before > _ZERO:  # the last edge has no interval after it
                slope = held * sharpness * (before / (_ONE + before))
                _scatter(to_values, slope, hold, dy, dx, hx, hy, hz)
