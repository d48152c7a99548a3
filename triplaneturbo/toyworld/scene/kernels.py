"""Compiled kernels of solids: signed distance and paint at points.

The primitives' distances are the usual closed forms of constructive solid geometry: exact for boxes,
frustums, capsules and tori, first-order for ellipsoids, a lower bound outside prisms and pyramids.
"""

from __future__ import annotations

import math

import numpy as np

from triplaneturbo.toyworld.scene.primitives import BOX, CONE, CUT, ELLIPSOID, LIMB, PRISM, TORUS
from triplaneturbo.utils.kernels import kernel

FAR = 1e9


@kernel
def _primitive(kind, s, x, y, z):
    """Signed distance of a primitive with sizes s [5] at a point in its local frame."""
    if kind == ELLIPSOID:
        near = math.sqrt((x / s[0]) ** 2 + (y / s[1]) ** 2 + (z / s[2]) ** 2)
        if near < 1e-9:
            return -min(s[0], min(s[1], s[2]))
        slope = math.sqrt((x / s[0] ** 2) ** 2 + (y / s[1] ** 2) ** 2 + (z / s[2] ** 2) ** 2)
        return near * (near - 1.0) / slope
    if kind == BOX:
        dx, dy, dz = abs(x) - s[0], abs(y) - s[1], abs(z) - s[2]
        outside = math.sqrt(max(dx, 0.0) ** 2 + max(dy, 0.0) ** 2 + max(dz, 0.0) ** 2)
        return outside + min(max(dx, max(dy, dz)), 0.0)
    if kind == CONE:
        # The frustum's outline in (distance from the axis, height): a trapezium.
        q = math.hypot(x, y)
        bottom, top, half = s[0], s[1], s[2]
        lid = top if z > 0 else bottom
        ax, ay = q - min(q, lid), abs(z) - half
        along_x, along_y = top - bottom, 2.0 * half
        t = ((q - bottom) * along_x + (z + half) * along_y) / (along_x**2 + along_y**2)
        t = min(max(t, 0.0), 1.0)
        bx, by = q - bottom - along_x * t, z + half - along_y * t
        sign = -1.0 if (bx < 0.0 and ay < 0.0) else 1.0
        return sign * math.sqrt(min(ax**2 + ay**2, bx**2 + by**2))
    if kind == LIMB:
        # Tapered capsule: spheres of radius s[0] at z = 0 and s[1] at z = s[2], and the cone between.
        q = math.hypot(x, y)
        b = (s[0] - s[1]) / s[2]
        a = math.sqrt(max(1.0 - b * b, 0.0))
        k = -b * q + a * z
        if k < 0.0:
            return math.hypot(q, z) - s[0]
        if k > a * s[2]:
            return math.hypot(q, z - s[2]) - s[1]
        return q * a + z * b - s[0]
    if kind == TORUS:
        return math.hypot(math.hypot(x, y) - s[0], z) - s[1]
    if kind == PRISM:
        length = math.hypot(s[1], s[2])
        slope = (abs(y) * s[2] + (z - s[2]) * s[1]) / length
        return max(max(slope, -z), abs(x) - s[0])
    # PYRAMID
    sx = (abs(x) * s[2] + (z - s[2]) * s[0]) / math.hypot(s[0], s[2])
    sy = (abs(y) * s[2] + (z - s[2]) * s[1]) / math.hypot(s[1], s[2])
    return max(max(sx, sy), -z)


@kernel
def distance_at(rows, stretch, shift, px, py, pz):
    """Signed distance (a lower bound) and paint of a solid at one point.

    Args:
        rows: primitives [P, 25], as `Builder` writes them.
        stretch, shift: transform of the solid [3], [3]; see `Solid`.
        px, py, pz: the point.
    """
    px, py, pz = px / stretch[0] + shift[0], py / stretch[1] + shift[1], pz / stretch[2] + shift[2]
    total, total_paint = FAR, 0.0
    inside, paint = FAR, 0.0
    group = rows[0, 6]
    for i in range(rows.shape[0]):
        row = rows[i]
        if row[6] != group:
            if inside < total:
                total, total_paint = inside, paint
            inside, group = FAR, row[6]
        x, y, z = px, py, pz
        if row[4] != 0.0:
            y = abs(y)
        if row[5] > 1.0:
            sector = 2.0 * math.pi / row[5]
            radius, angle = math.hypot(x, y), math.atan2(y, x)
            first = math.atan2(row[8], row[7])
            angle -= first
            angle = angle - sector * math.floor(angle / sector + 0.5) + first
            x, y = radius * math.cos(angle), radius * math.sin(angle)
        x, y, z = x - row[7], y - row[8], z - row[9]
        d = _primitive(
            int(row[0]),
            row[19:24],
            row[10] * x + row[11] * y + row[12] * z,
            row[13] * x + row[14] * y + row[15] * z,
            row[16] * x + row[17] * y + row[18] * z,
        )
        d -= row[24]
        if row[1] == CUT:
            if -d > inside:
                inside = -d
                if row[3] >= 0.0:
                    paint = row[3]
        elif row[2] > 0.0 and inside < FAR:
            if d < inside:
                paint = row[3]
            h = max(row[2] - abs(inside - d), 0.0) / row[2]
            inside = min(inside, d) - 0.25 * h * h * row[2]
        elif d < inside:
            inside, paint = d, row[3]
    if inside < total:
        total, total_paint = inside, paint
    return total * min(stretch[0], min(stretch[1], stretch[2])), int(total_paint)


@kernel
def distances(rows, stretch, shift, points):
    """Evaluate `distance_at` at points [N, 3]; returns distances [N] and paints [N]."""
    out = np.empty(len(points))
    paints = np.empty(len(points), dtype=np.int64)
    for i in range(len(points)):
        out[i], paints[i] = distance_at(rows, stretch, shift, points[i, 0], points[i, 1], points[i, 2])
    return out, paints
