"""UV charts: adjacency, connected components, overlap removal and cutting, shared by all unwrap methods."""

from __future__ import annotations

import numpy as np

from triplaneturbo.utils.kernels import kernel

SMALL_PIECE = 6  # pieces of up to this many faces are merged after a cut


@kernel
def face_neighbours(faces, vertex_count):
    """Return the face across each edge.

    Args:
        faces: vertex indices, int32 [F, 3].
        vertex_count: number of vertices.

    Returns:
        int32 [F, 3]; entry k is the face with the opposite half-edge of the one from corner k to corner
        k + 1, or -1. Of the faces of a non-manifold edge, each is paired at most once.
    """
    count = faces.shape[0]
    start = np.zeros(vertex_count + 1, np.int64)
    for face in range(count):
        for k in range(3):
            start[min(faces[face, k], faces[face, (k + 1) % 3]) + 1] += 1
    for vertex in range(vertex_count):
        start[vertex + 1] += start[vertex]
    cursor = start[:-1].copy()
    bucket = np.empty(3 * count, np.int32)
    for face in range(count):
        for k in range(3):
            low = min(faces[face, k], faces[face, (k + 1) % 3])
            bucket[cursor[low]] = 3 * face + k
            cursor[low] += 1
    result = np.full((count, 3), -1, np.int32)
    for vertex in range(vertex_count):
        for i in range(start[vertex], start[vertex + 1]):
            face, k = bucket[i] // 3, bucket[i] % 3
            if result[face, k] >= 0:
                continue
            a, b = faces[face, k], faces[face, (k + 1) % 3]
            for j in range(i + 1, start[vertex + 1]):
                other, m = bucket[j] // 3, bucket[j] % 3
                if (
                    faces[other, m] == b
                    and faces[other, (m + 1) % 3] == a
                    and result[other, m] < 0
                    and other != face
                ):
                    result[face, k] = other
                    result[other, m] = face
                    break
    return result


@kernel
def components(key, neighbours):
    """Return connected components of faces with equal key, int32 [F] in 0 .. C-1, ordered by lowest face."""
    count = key.shape[0]
    chart = np.full(count, -1, np.int32)
    stack = np.empty(count, np.int32)
    charts = 0
    for seed in range(count):
        if chart[seed] >= 0:
            continue
        chart[seed] = charts
        stack[0] = seed
        height = 1
        while height > 0:
            height -= 1
            face = stack[height]
            for k in range(3):
                other = neighbours[face, k]
                if other >= 0 and chart[other] < 0 and key[other] == key[face]:
                    chart[other] = charts
                    stack[height] = other
                    height += 1
        charts += 1
    return chart


@kernel
def group_faces(chart, charts):
    """Sort faces by chart: return start [C + 1] and order [F]; chart c has order[start[c]:start[c + 1]]."""
    start = np.zeros(charts + 1, np.int64)
    for face in range(chart.shape[0]):
        start[chart[face] + 1] += 1
    for c in range(charts):
        start[c + 1] += start[c]
    cursor = start[:-1].copy()
    order = np.empty(chart.shape[0], np.int32)
    for face in range(chart.shape[0]):
        order[cursor[chart[face]]] = face
        cursor[chart[face]] += 1
    return start, order


@kernel
def boundary_faces(chart, neighbours):
    """Return which faces have an edge on the boundary of their chart, bool [F]."""
    on_boundary = np.zeros(chart.shape[0], np.bool_)
    for face in range(chart.shape[0]):
        for k in range(3):
            other = neighbours[face, k]
            if other < 0 or chart[other] != chart[face]:
                on_boundary[face] = True
    return on_boundary


@kernel
def _triangles_overlap(p, q, slack):
    """Test whether triangles p and q [3, 2] overlap by more than `slack` (separating axis theorem)."""
    for turn in range(2):
        first, second = (p, q) if turn == 0 else (q, p)
        for k in range(3):
            nx = first[(k + 1) % 3, 1] - first[k, 1]
            ny = first[k, 0] - first[(k + 1) % 3, 0]
            length = np.sqrt(nx * nx + ny * ny)
            if length == 0.0:
                continue
            nx /= length
            ny /= length
            low1 = low2 = np.inf
            high1 = high2 = -np.inf
            for m in range(3):
                d = nx * first[m, 0] + ny * first[m, 1]
                low1, high1 = min(low1, d), max(high1, d)
                d = nx * second[m, 0] + ny * second[m, 1]
                low2, high2 = min(low2, d), max(high2, d)
            if min(high1, high2) - max(low1, low2) <= slack:
                return False
    return True


@kernel
def overlapping_pairs(uv, start, order, active, slack):
    """Return pairs of overlapping faces of one chart, at least one of them active.

    Args:
        uv: positions of the corners in the plane of their chart, float64 [F, 3, 2].
        start, order: the faces of each chart, from `group_faces`.
        active: the faces to test against all others of their chart, bool [F].
        slack: depth up to which overlaps are ignored (faces touch at shared edges).

    Returns:
        pairs of face indices, int32 [P, 2].
    """
    pairs = np.empty((256, 2), np.int32)
    found = 0
    box = np.empty((order.shape[0], 4), np.float64)
    for f in range(order.shape[0]):
        box[f, 0] = min(uv[f, 0, 0], uv[f, 1, 0], uv[f, 2, 0])
        box[f, 1] = min(uv[f, 0, 1], uv[f, 1, 1], uv[f, 2, 1])
        box[f, 2] = max(uv[f, 0, 0], uv[f, 1, 0], uv[f, 2, 0])
        box[f, 3] = max(uv[f, 0, 1], uv[f, 1, 1], uv[f, 2, 1])
    for c in range(start.shape[0] - 1):
        members = order[start[c] : start[c + 1]]
        any_active = False
        left = bottom = np.inf
        right = top = -np.inf
        for f in members:
            any_active |= active[f]
            left, bottom = min(left, box[f, 0]), min(bottom, box[f, 1])
            right, top = max(right, box[f, 2]), max(top, box[f, 3])
        if members.shape[0] < 2 or not any_active:
            continue
        # A grid of about one cell per face; each face is listed in every cell that its box touches.
        wide, tall = max(right - left, 1e-12), max(top - bottom, 1e-12)
        cell = max(np.sqrt(wide * tall / members.shape[0]), max(wide, tall) / members.shape[0])
        nx, ny = int(wide / cell) + 1, int(tall / cell) + 1
        begin = np.zeros(nx * ny + 1, np.int64)
        for f in members:
            for y in range(int((box[f, 1] - bottom) / cell), int((box[f, 3] - bottom) / cell) + 1):
                for x in range(int((box[f, 0] - left) / cell), int((box[f, 2] - left) / cell) + 1):
                    begin[y * nx + x + 1] += 1
        for i in range(nx * ny):
            begin[i + 1] += begin[i]
        cursor = begin[:-1].copy()
        listed = np.empty(begin[nx * ny], np.int32)
        for f in members:
            for y in range(int((box[f, 1] - bottom) / cell), int((box[f, 3] - bottom) / cell) + 1):
                for x in range(int((box[f, 0] - left) / cell), int((box[f, 2] - left) / cell) + 1):
                    listed[cursor[y * nx + x]] = f
                    cursor[y * nx + x] += 1
        for f in members:
            if not active[f]:
                continue
            for y in range(int((box[f, 1] - bottom) / cell), int((box[f, 3] - bottom) / cell) + 1):
                for x in range(int((box[f, 0] - left) / cell), int((box[f, 2] - left) / cell) + 1):
                    for i in range(begin[y * nx + x], begin[y * nx + x + 1]):
                        g = listed[i]
                        if g == f or (active[g] and g < f):
                            continue
                        low_x, low_y = max(box[f, 0], box[g, 0]), max(box[f, 1], box[g, 1])
                        if (
                            min(box[f, 2], box[g, 2]) - low_x <= slack
                            or min(box[f, 3], box[g, 3]) - low_y <= slack
                            # count each pair once, in the cell of the lower corner of the boxes' intersection
                            or int((low_x - left) / cell) != x
                            or int((low_y - bottom) / cell) != y
                            or not _triangles_overlap(uv[f], uv[g], slack)
                        ):
                            continue
                        if found == pairs.shape[0]:
                            larger = np.empty((2 * found, 2), np.int32)
                            larger[:found] = pairs
                            pairs = larger
                        pairs[found, 0], pairs[found, 1] = f, g
                        found += 1
    return pairs[:found].copy()


@kernel
def _layers(pairs, height, count):
    """Assign each face the smallest layer, int32 [F], so that the lower face of a pair has the larger one."""
    layer = np.zeros(count, np.int32)
    changed = True
    while changed:
        changed = False
        for i in range(pairs.shape[0]):
            f, g = pairs[i, 0], pairs[i, 1]
            # by height, then by index: a strict order, so that the loop terminates
            if height[f] < height[g] or (height[f] == height[g] and f > g):
                f, g = g, f
            if layer[g] <= layer[f]:
                layer[g] = layer[f] + 1
                changed = True
    return layer


def split_overlaps(
    uv: np.ndarray, chart: np.ndarray, neighbours: np.ndarray, height: np.ndarray, slack: float
) -> np.ndarray:
    """Split charts that overlap themselves into charts that do not.

    If no face of a chart is flipped, a region that is covered twice is bounded by the chart's boundary.
    Boundary faces are therefore tested first, and the whole chart only if one of them overlaps another face.
    The lower of two overlapping faces moves to a chart of the next layer.

    Args:
        uv: positions of the corners in the plane of their chart, float64 [F, 3, 2].
        chart: chart of each face, int32 [F].
        neighbours: from `face_neighbours`.
        height: height of each face above the plane, float64 [F].
        slack: depth up to which overlaps are ignored.

    Returns:
        The new charts, int32 [F].
    """
    start, order = group_faces(chart, int(chart.max()) + 1)
    touched = overlapping_pairs(uv, start, order, boundary_faces(chart, neighbours), slack)
    if len(touched) == 0:
        return chart
    hit = np.zeros(len(start) - 1, bool)
    hit[chart[touched[:, 0]]] = True
    pairs = overlapping_pairs(uv, start, order, hit[chart], slack)
    layer = _layers(pairs, height, len(chart))
    return components(chart.astype(np.int64) * (int(layer.max()) + 1) + layer, neighbours)


@kernel
def chart_bounds(uv, chart, charts):
    """Return the bounding boxes of charts: lower and upper corners, [C, 2] each."""
    low, high = np.full((charts, 2), np.inf), np.full((charts, 2), -np.inf)
    for face in range(chart.shape[0]):
        c = chart[face]
        for k in range(3):
            for i in range(2):
                low[c, i] = min(low[c, i], uv[face, k, i])
                high[c, i] = max(high[c, i], uv[face, k, i])
    return low, high


@kernel
def _part_keys(uv, chart, low, high, parts):
    """Return a key [F] of the part of its chart that contains a face's centre.

    Charts are divided into parts [C, 2] along each direction.
    """
    key = np.empty(chart.shape[0], np.int64)
    for face in range(chart.shape[0]):
        c = chart[face]
        key[face] = c
        for i in range(2):
            middle = (uv[face, 0, i] + uv[face, 1, i] + uv[face, 2, i]) / 3
            part = int((middle - low[c, i]) / max(high[c, i] - low[c, i], 1e-300) * parts[c, i])
            key[face] = key[face] * 64 + min(max(part, 0), parts[c, i] - 1)
    return key


def cut_large(uv: np.ndarray, chart: np.ndarray, neighbours: np.ndarray, longest: float) -> np.ndarray:
    """Cut charts that have a side longer than `longest` into equal parts.

    Args:
        uv: positions of the corners in the plane of their chart, float64 [F, 3, 2].
        chart: chart of each face, int32 [F].
        neighbours: from `face_neighbours`.
        longest: maximum side, in the unit of uv.

    Returns:
        The new charts, int32 [F]; small pieces (up to SMALL_PIECE faces) are merged with a neighbouring part.
    """
    low, high = chart_bounds(uv, chart, int(chart.max()) + 1)
    parts = np.ceil((high - low) / max(longest, 1e-300)).clip(1, 64).astype(np.int64)  # [C, 2]
    if (parts == 1).all():
        return chart
    pieces = components(_part_keys(uv, chart, low, high, parts), neighbours)
    for _ in range(3):
        start, order = group_faces(pieces, int(pieces.max()) + 1)
        moved = _merge_small_pieces(pieces, chart, start, order, neighbours)
        pieces = components(pieces, neighbours)
        if moved == 0:
            break
    return pieces


@kernel
def _merge_small_pieces(piece, chart, start, order, neighbours):
    """Merge pieces of up to SMALL_PIECE faces into a neighbouring piece of their chart; modifies `piece`.

    Returns the number of merged pieces.
    """
    moved = 0
    for c in range(start.shape[0] - 1):
        if start[c + 1] - start[c] > SMALL_PIECE:
            continue
        target = -1
        for face in order[start[c] : start[c + 1]]:
            for k in range(3):
                other = neighbours[face, k]
                if other >= 0 and chart[other] == chart[face] and piece[other] != c:
                    target = piece[other]
        if target >= 0:
            for face in order[start[c] : start[c + 1]]:
                piece[face] = target
            moved += 1
    return moved
