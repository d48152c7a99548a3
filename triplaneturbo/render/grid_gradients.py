"""Numba kernels for finite differences of an SDF grid: normals and the eikonal loss, forward and backward.

The readable torch versions are in grid_renderer.py.
"""

from __future__ import annotations

import numpy as np

from triplaneturbo.utils.kernels import kernel

NORMAL_EPS = np.float32(1e-4)  # added to squared lengths in normalisation: a zero gradient has a zero normal
LENGTH_EPS = np.float32(1e-12)  # added to squared lengths before their square root

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)


@kernel
def _difference(line, at, scale):
    """Return the derivative of `line` [R] at a node, one-sided at the ends; scale: nodes per unit."""
    if at == 0:
        return (line[1] - line[0]) * scale
    if at == len(line) - 1:
        return (line[at] - line[at - 1]) * scale
    return (line[at + 1] - line[at - 1]) * (_HALF * scale)


@kernel
def _scatter_difference(line, at, scale, value):
    """Add the gradient of `_difference` to `line`."""
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
    """Write normalised gradients of sdf [B, R, R, R] to out [B, R, R, R, 3]."""
    size = sdf.shape[1]
    scale = np.float32(size - 1) * _HALF
    for b in range(sdf.shape[0]):
        for x in range(size):
            for y in range(size):
                for z in range(size):
                    u = _difference(sdf[b, :, y, z], x, scale)
                    v = _difference(sdf[b, x, :, z], y, scale)
                    w = _difference(sdf[b, x, y], z, scale)
                    inverse = _ONE / np.sqrt(u * u + v * v + w * w + NORMAL_EPS)
                    out[b, x, y, z, 0] = u * inverse
                    out[b, x, y, z, 1] = v * inverse
                    out[b, x, y, z, 2] = w * inverse


@kernel
def backward(sdf, grad_out, grad_sdf):
    """Add the gradient of `forward` to grad_sdf [B, R, R, R]; grad_out is zero at most nodes."""
    size = sdf.shape[1]
    scale = np.float32(size - 1) * _HALF
    for b in range(sdf.shape[0]):
        for x in range(size):
            for y in range(size):
                for z in range(size):
                    p, q, r = grad_out[b, x, y, z, 0], grad_out[b, x, y, z, 1], grad_out[b, x, y, z, 2]
                    if p == _ZERO and q == _ZERO and r == _ZERO:
                        continue
                    u = _difference(sdf[b, :, y, z], x, scale)
                    v = _difference(sdf[b, x, :, z], y, scale)
                    w = _difference(sdf[b, x, y], z, scale)
                    inverse = _ONE / np.sqrt(u * u + v * v + w * w + NORMAL_EPS)
                    along = (u * p + v * q + w * r) * inverse * inverse
                    _scatter_difference(grad_sdf[b, :, y, z], x, scale, (p - u * along) * inverse)
                    _scatter_difference(grad_sdf[b, x, :, z], y, scale, (q - v * along) * inverse)
                    _scatter_difference(grad_sdf[b, x, y], z, scale, (r - w * along) * inverse)


@kernel
def eikonal(sdf, out, grad_sdf):
    """Write the mean of (|gradient| - 1)^2 over the nodes of sdf [B, R, R, R] to out [B].

    The gradient of the result is added to grad_sdf [B, R, R, R].
    """
    size = sdf.shape[1]
    scale = np.float32(size - 1) * _HALF
    weight = _ONE / np.float32(size**3)
    for b in range(sdf.shape[0]):
        total = 0.0
        for x in range(size):
            for y in range(size):
                for z in range(size):
                    u = _difference(sdf[b, :, y, z], x, scale)
                    v = _difference(sdf[b, x, :, z], y, scale)
                    w = _difference(sdf[b, x, y], z, scale)
                    length = np.sqrt(u * u + v * v + w * w + LENGTH_EPS)
                    total += (length - _ONE) ** 2
                    factor = (_ONE - _ONE / length) * (weight + weight)
                    _scatter_difference(grad_sdf[b, :, y, z], x, scale, factor * u)
                    _scatter_difference(grad_sdf[b, x, :, z], y, scale, factor * v)
                    _scatter_difference(grad_sdf[b, x, y], z, scale, factor * w)
        out[b] = total * weight
