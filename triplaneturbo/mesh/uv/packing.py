"""Chart packing: align charts to the axes, rasterize them to masks, and place the masks bottom-left first."""

from __future__ import annotations

import numpy as np

from triplaneturbo.mesh.uv.charts import chart_bounds, cut_large, group_faces
from triplaneturbo.utils.kernels import kernel

CELLS = 512  # approximate cells of the packing grid along a side of the atlas
ANGLES = 16  # number of tested rotations of a chart between 0 and 90 degrees
STRETCH = 1.25  # packings that must be stretched more than this to become square score lower
SMALL_MASK, SMALL_MASK_OF_MANY = 12, 40  # masks up to this side, in cells, are placed by a faster search
MANY_CHARTS = 600  # with this number of charts, other orders and cuts bring no gain
GOOD_USAGE = 0.65  # used fraction of the square at which the search ends
EXPECTED_DENSITY = 0.8  # expected fraction of the packed rectangle that masks fill
CUT_LENGTHS = (0.55, 0.32)  # charts are cut at these sides, relative to the root of the total area


@kernel
def _draw_masks(uv, start, order, offset, wide, tall, cell, margin):
    """Rasterize charts: mark the cells closer than `margin` to a face.

    Returns:
        flat uint8; the mask of chart c is [tall[c], wide[c]] and begins at offset[c].
    """
    mask = np.zeros(offset[-1], np.uint8)
    for c in range(start.shape[0] - 1):
        columns = wide[c]
        for i in range(start[c], start[c + 1]):
            t = uv[order[i]]
            left = min(t[0, 0], t[1, 0], t[2, 0]) - margin
            right = max(t[0, 0], t[1, 0], t[2, 0]) + margin
            low = min(t[0, 1], t[1, 1], t[2, 1]) - margin
            high = max(t[0, 1], t[1, 1], t[2, 1]) + margin
            x0, x1 = max(int(left / cell), 0), min(int(right / cell), columns - 1)
            y0, y1 = max(int(low / cell), 0), min(int(high / cell), tall[c] - 1)
            turn = (t[1, 0] - t[0, 0]) * (t[2, 1] - t[0, 1]) - (t[1, 1] - t[0, 1]) * (t[2, 0] - t[0, 0])
            for y in range(y0, y1 + 1):
                for x in range(x0, x1 + 1):
                    if mask[offset[c] + y * columns + x]:
                        continue
                    cx, cy = (x + 0.5) * cell, (y + 0.5) * cell
                    near = True
                    for k in range(3):
                        ex, ey = t[(k + 1) % 3, 0] - t[k, 0], t[(k + 1) % 3, 1] - t[k, 1]
                        if turn < 0:
                            ex, ey = -ex, -ey
                        inside = ex * (cy - t[k, 1]) - ey * (cx - t[k, 0])
                        reach = (abs(ex) + abs(ey)) * cell / 2 + margin * np.sqrt(ex * ex + ey * ey)
                        if inside < -reach:
                            near = False
                            break
                    if near:
                        mask[offset[c] + y * columns + x] = 1
    return mask


@kernel
def _mask_runs(mask, at, wide, tall, turn, runs):
    """Write the runs of a mask, rotated by quarter turns, as (row, start, length); return their number."""
    rows, columns = (tall, wide) if turn % 2 == 0 else (wide, tall)
    count = 0
    for y in range(rows):
        length = 0
        for x in range(columns + 1):
            filled = False
            if x < columns:
                if turn == 0:
                    filled = mask[at + y * wide + x] != 0
                elif turn == 1:
                    filled = mask[at + x * wide + wide - 1 - y] != 0
                elif turn == 2:
                    filled = mask[at + (tall - 1 - y) * wide + wide - 1 - x] != 0
                else:
                    filled = mask[at + (tall - 1 - x) * wide + y] != 0
            if filled:
                length += 1
            elif length:
                runs[count, 0], runs[count, 1], runs[count, 2] = y, x - length, length
                count += 1
                length = 0
    return count


@kernel
def _place_masks(mask, offset, wide, tall, order, turns, width, small):
    """Place masks in order on a grid `width` cells wide, each as low and then as far left as possible.

    Returns:
        (x, y, quarter turns) of each chart, int32 [C, 3], and the used height, -1 if a mask did not fit.
    """
    charts = wide.shape[0]
    limit = 4 * width + np.max(np.maximum(wide, tall))
    # Positive: number of free cells from here to the right; negative: distance to the next free cell.
    free = np.empty((limit, width), np.int32)
    for x in range(width):
        free[:, x] = width - x
    longest = np.full(limit, width, np.int32)  # free run of each row
    placed = np.zeros((charts, 3), np.int32)
    size = 0
    for c in range(charts):
        size = max(size, (wide[c] + 1) * (tall[c] + 1))
    runs = np.empty((size, 3), np.int32)
    used = 0
    hint = np.zeros(small + 1, np.int64)
    for c in order:
        best_top, best_y, best_x, best_turn = limit + 1, -1, -1, -1
        for turn in range(turns[c]):
            if turn >= 1 and turns[c] == 1:
                break
            w, h = (wide[c], tall[c]) if turn % 2 == 0 else (tall[c], wide[c])
            if w > width:
                continue
            count = _mask_runs(mask, offset[c], wide[c], tall[c], turn, runs)
            last = 0
            found = False
            # a small mask starts at the row of the last one of its size: there is hardly any space below
            larger = max(wide[c], tall[c])
            y = hint[larger] if larger <= small else 0
            while not found and y + h <= limit and y + h < best_top:
                if longest[y + runs[last, 0]] < runs[last, 2]:
                    y += 1
                    continue
                x = 0
                while x <= width - w:
                    fits = True
                    for i in range(count):
                        # first try the run that failed last: it is likely to fail again
                        r = last if i == 0 else (i - 1 if i <= last else i)
                        cell = x + runs[r, 1]
                        gap = free[y + runs[r, 0], cell]
                        if gap < runs[r, 2]:
                            if gap > 0:
                                x += gap - free[y + runs[r, 0], cell + gap]
                            else:
                                x -= gap
                            last = r
                            fits = False
                            break
                    if fits:
                        found = True
                        break
                if found:
                    best_top, best_y, best_x, best_turn = y + h, y, x, turn
                y += 1
        if best_turn < 0:
            return placed, -1
        placed[c, 0], placed[c, 1], placed[c, 2] = best_x, best_y, best_turn
        used = max(used, best_top)
        if larger <= small:
            hint[larger] = best_y
        count = _mask_runs(mask, offset[c], wide[c], tall[c], best_turn, runs)
        for i in range(count):
            row = free[best_y + runs[i, 0]]
            for x in range(best_x + runs[i, 1], best_x + runs[i, 1] + runs[i, 2]):
                row[x] = -1
        for i in range(count):
            if i > 0 and runs[i, 0] == runs[i - 1, 0]:
                continue
            row = free[best_y + runs[i, 0]]
            open_cells = blocked = most = 0
            for x in range(width - 1, -1, -1):
                if row[x] > 0:
                    open_cells += 1
                    blocked = 0
                    row[x] = open_cells
                    most = max(most, open_cells)
                else:
                    blocked += 1
                    open_cells = 0
                    row[x] = -blocked
            longest[best_y + runs[i, 0]] = most
    return placed, used


@kernel
def _align(uv, chart, scale):
    """Scale each chart by scale [C] and rotate it to the smallest axis-aligned bounding box."""
    charts = scale.shape[0]
    low, high = np.full((ANGLES, charts, 2), np.inf), np.full((ANGLES, charts, 2), -np.inf)
    cosine, sine = np.empty(ANGLES), np.empty(ANGLES)
    for a in range(ANGLES):
        cosine[a], sine[a] = np.cos(a * np.pi / 2 / ANGLES), np.sin(a * np.pi / 2 / ANGLES)
    for a in range(ANGLES):
        c, s = cosine[a], sine[a]
        for face in range(chart.shape[0]):
            lowest, highest = low[a, chart[face]], high[a, chart[face]]
            for k in range(3):
                x = c * uv[face, k, 0] - s * uv[face, k, 1]
                y = s * uv[face, k, 0] + c * uv[face, k, 1]
                lowest[0], highest[0] = min(lowest[0], x), max(highest[0], x)
                lowest[1], highest[1] = min(lowest[1], y), max(highest[1], y)
    best = np.zeros(charts, np.int64)
    for c in range(charts):
        least = np.inf
        for a in range(ANGLES):
            box = (high[a, c, 0] - low[a, c, 0]) * (high[a, c, 1] - low[a, c, 1])
            if box < least * 0.98:
                best[c], least = a, box
    turned = np.empty_like(uv)
    for face in range(chart.shape[0]):
        a = best[chart[face]]
        c, s = cosine[a] * scale[chart[face]], sine[a] * scale[chart[face]]
        for k in range(3):
            turned[face, k, 0] = c * uv[face, k, 0] - s * uv[face, k, 1]
            turned[face, k, 1] = s * uv[face, k, 0] + c * uv[face, k, 1]
    return turned


@kernel
def _measure(uv, chart, neighbours, area, charts):
    """Return the areas of charts in the plane [C] and in space [C], and their perimeters in the plane [C]."""
    flat, full, perimeter = np.zeros(charts), np.zeros(charts), np.zeros(charts)
    for face in range(chart.shape[0]):
        t, c = uv[face], chart[face]
        x1, y1, x2, y2 = t[1, 0] - t[0, 0], t[1, 1] - t[0, 1], t[2, 0] - t[0, 0], t[2, 1] - t[0, 1]
        flat[c] += abs(x1 * y2 - y1 * x2) / 2
        full[c] += area[face]
        for k in range(3):
            other = neighbours[face, k]
            if other < 0 or chart[other] != c:
                m = (k + 1) % 3
                perimeter[c] += np.sqrt((t[m, 0] - t[k, 0]) ** 2 + (t[m, 1] - t[k, 1]) ** 2)
    return flat, full, perimeter


def pack(
    uv: np.ndarray, chart: np.ndarray, neighbours: np.ndarray, area: np.ndarray, texture_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pack charts into the unit square.

    Each chart is scaled so that its area in the plane equals the area of its faces in space, rotated, and
    placed by its rasterized outline (small charts fill the concavities and holes of large ones). The packed
    rectangle is stretched slightly to fill the square.

    Args:
        uv: positions of the corners in the plane of their chart, float64 [F, 3, 2].
        chart: chart of each face, int32 [F], 0 .. C-1.
        neighbours: faces across edges, from `face_neighbours`, int32 [F, 3].
        area: area of each face in space, float64 [F].
        texture_size: texels per side of the texture; determines the space between charts.

    Returns:
        Texture coordinates of the corners in [0, 1], float64 [F, 3, 2]; and the new charts, int32 [F]: charts
        that are long relative to the atlas are cut, and cut further if they pack badly.
    """
    pieces, best = chart, None
    for longest in CUT_LENGTHS:
        whole = float(area.sum())
        pieces = cut_large(uv, pieces, neighbours, longest * np.sqrt(whole))
        packed = _pack(uv, pieces, neighbours, area, texture_size)
        if best is None or packed[1] > best[1]:
            best = (*packed, pieces)
        if best[1] >= GOOD_USAGE or int(pieces.max()) >= MANY_CHARTS:
            break
    assert best is not None
    return best[0], best[2]


def _pack(
    uv: np.ndarray, chart: np.ndarray, neighbours: np.ndarray, area: np.ndarray, texture_size: int
) -> tuple[np.ndarray, float]:
    """Pack charts without cuts: return texture coordinates [F, 3, 2] and the used fraction of the square."""
    count = int(chart.max()) + 1
    start, order = group_faces(chart, count)
    flat, full, perimeter = _measure(uv, chart, neighbours, area, count)
    scale = np.sqrt(full / np.maximum(flat, 1e-300)).clip(0.5, 2.0)  # [C]
    covered = float((flat * scale**2).sum())
    if covered <= 0.0:
        return np.full_like(uv, 0.5), 1.0
    turned = _align(uv, chart, scale)
    low, high = chart_bounds(turned, chart, count)
    side, space = _atlas_layout(covered, float((perimeter * scale).sum()), texture_size)
    side = max(side, 1.05 * float((high - low).max()))
    cell = side / CELLS
    margin = space / texture_size * side / 2
    wide, tall = (((high - low) + 2 * margin) / cell).astype(np.int64).T + 1
    offset = np.concatenate(([0], np.cumsum(wide * tall)))
    turned -= (low - margin)[chart][:, None]
    mask = _draw_masks(turned, start, order, offset, wide, tall, cell, margin)
    filled = np.add.reduceat(mask, offset[:-1], dtype=np.int64)
    turns = np.where(np.maximum(wide, tall) > 3, 4, 1)
    small = SMALL_MASK_OF_MANY if count >= MANY_CHARTS else SMALL_MASK
    least_width = int(np.minimum(wide, tall).max()) + 1
    by_box = np.lexsort((np.arange(count), -wide * tall))
    by_side = np.lexsort((np.arange(count), -filled, -np.maximum(wide, tall)))
    best = None
    for sequence in (by_box, by_side):
        width = max(int(np.sqrt(filled.sum() / EXPECTED_DENSITY)), least_width)
        for _ in range(2):
            placed, height = _place_masks(mask, offset, wide, tall, sequence, turns, width, small)
            if height < 0:
                break
            used = covered / (width * height * cell**2)
            stretch = max(width / height, height / width)
            score = used * min(1.0, STRETCH / stretch)
            if best is None or score > best[0]:
                best = (score, used, width, height, placed)
            if stretch < 1.12:
                break
            width = max(int(np.sqrt(width * height)), least_width)
        if best is not None and (best[0] >= GOOD_USAGE or count >= MANY_CHARTS):
            break
    assert best is not None
    _, used, width, height, placed = best
    return _to_texture_coordinates(turned, placed, wide, tall, chart, cell, width * cell, height * cell), used


def _atlas_layout(covered: float, perimeter: float, texture_size: int) -> tuple[float, float]:
    """Return the side of the atlas in the charts' unit, and the space between charts in texels.

    Eight texels at a texture size of 1024 separate charts down to the fourth mip level. If charts are many
    and small, that would waste too much of the atlas, and the space shrinks to two texels at least.
    """
    side = np.sqrt(covered / 0.7)
    space = 8.0 * texture_size / 1024
    least = max(2.0, 2.0 * texture_size / 1024)
    loss = perimeter * space / texture_size * side / 2 / side**2
    return side, float(np.clip(space * 0.06 / max(loss, 1e-9), least, max(space, least)))


@kernel
def _to_texture_coordinates(uv, placed, wide, tall, chart, cell, width, height):
    """Rotate and move the charts' corners [F, 3, 2] like their masks, and scale them to [0, 1]."""
    moved = np.empty_like(uv)
    for face in range(chart.shape[0]):
        c = chart[face]
        w, h, turn = wide[c] * cell, tall[c] * cell, placed[c, 2]
        for k in range(3):
            x, y = uv[face, k, 0], uv[face, k, 1]
            if turn == 1:
                x, y = y, w - x
            elif turn == 2:
                x, y = w - x, h - y
            elif turn == 3:
                x, y = h - y, x
            moved[face, k, 0] = (x + placed[c, 0] * cell) / width
            moved[face, k, 1] = (y + placed[c, 1] * cell) / height
    return moved
