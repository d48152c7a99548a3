"""Slopes at the nodes of a lattice: normals and the eikonal loss, forward and backward, by numba.

lattice.py says what they are, in plain torch.
"""

from __future__ import annotations

import numpy as np

from triplaneturbo.utils.kernels import kernel

SOFT = np.float32(1e-4)  # added to the square of a gradient's length: zero has a normal, which is zero
TINY = np.float32(1e-12)  # the same for a length that is wanted itself

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)


@kernel
def _difference(line, at, scale):
    """Slope of `line` [R] at one of its nodes: central, one-sided at the ends. `scale`: nodes per unit."""
    if at == 0:
        return (line[1] - line[0]) * scale
    if at == len(line) - 1:
        return (line[at] - line[at - 1]) * scale
    return (line[at + 1] - line[at - 1]) * (_HALF * scale)


@kernel
def _spread(line, at, scale, value):
    """Add the gradient of that slope to `line`."""
    if at == 0:
        line[1] += value * scale
        line[0] -= value * scale
    elif at == len(line) - 1:
        line[at] += value * scale
        line[at - 1] -= value * scale
    else:
        line[at + 1] += value * (_HALF * scale)
        line[at - 1] -= value * (_HALF * scale)


@kernel
def forward(sdf, out):
    """Soft unit gradients of sdf [B, R, R, R], written to out [B, R, R, R, 3]."""
    size = sdf.shape[1]
    scale = np.float32(size - 1) * _HALF
    for b in range(sdf.shape[0]):
        for x in range(size):
            for y in range(size):
                for z in range(size):
                    u = _difference(sdf[b, :, y, z], x, scale)
                    v = _difference(sdf[b, x, :, z], y, scale)
                    w = _difference(sdf[b, x, y], z, scale)
                    short = _ONE / np.sqrt(u * u + v * v + w * w + SOFT)
                    out[b, x, y, z, 0] = u * short
                    out[b, x, y, z, 1] = v * short
                    out[b, x, y, z, 2] = w * short


@kernel
def backward(sdf, given, to_sdf):
    """Add to to_sdf [B, R, R, R] the gradient, given that of `out`, which is zero at most nodes."""
    size = sdf.shape[1]
    scale = np.float32(size - 1) * _HALF
    for b in range(sdf.shape[0]):
        for x in range(size):
            for y in range(size):
                for z in range(size):
                    p, q, r = given[b, x, y, z, 0], given[b, x, y, z, 1], given[b, x, y, z, 2]
                    if p == _ZERO and q == _ZERO and r == _ZERO:
                        continue
                    u = _difference(sdf[b, :, y, z], x, scale)
                    v = _difference(sdf[b, x, :, z], y, scale)
                    w = _difference(sdf[b, x, y], z, scale)
                    short = _ONE / np.sqrt(u * u + v * v + w * w + SOFT)
                    along = (u * p + v * q + w * r) * short * short
                    _spread(to_sdf[b, :, y, z], x, scale, (p - u * along) * short)
                    _spread(to_sdf[b, x, :, z], y, scale, (q - v * along) * short)
                    _spread(to_sdf[b, x, y], z, scale, (r - w * along) * short)


@kernel
def eikonal(sdf, out, slopes):
    """Mean of (|gradient| - 1)^2 over the nodes of sdf [B, R, R, R], written to out [B].

    Its gradient is added to slopes [B, R, R, R].
    """
    size = sdf.shape[1]
    scale = np.float32(size - 1) * _HALF
    share = _ONE / np.float32(size**3)
    for b in range(sdf.shape[0]):
        total = 0.0
        for x in range(size):
            for y in range(size):
                for z in range(size):
                    u = _difference(sdf[b, :, y, z], x, scale)
                    v = _difference(sdf[b, x, :, z], y, scale)
                    w = _difference(sdf[b, x, y], z, scale)
                    length = np.sqrt(u * u + v * v + w * w + TINY)
                    total += (length - _ONE) ** 2
                    pull = (_ONE - _ONE / length) * (share + share)
                    _spread(slopes[b, :, y, z], x, scale, pull * u)
                    _spread(slopes[b, x, :, z], y, scale, pull * v)
                    _spread(slopes[b, x, y], z, scale, pull * w)
        out[b] = total * share
