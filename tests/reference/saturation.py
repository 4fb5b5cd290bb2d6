"""Growth of masks and bleed trails, pixel by pixel."""

from __future__ import annotations

import numpy as np


def grow(mask: np.ndarray, from_bits: int, radius: int, set_bits: int) -> np.ndarray:
    out = mask.copy()
    for y, x in zip(*np.nonzero(mask & np.uint32(from_bits))):
        for v in range(max(0, y - radius), min(mask.shape[0], y + radius + 1)):
            for u in range(max(0, x - radius), min(mask.shape[1], x + radius + 1)):
                if (v - y) ** 2 + (u - x) ** 2 <= radius * (radius + 1):
                    out[v, u] |= np.uint32(set_bits)
    return out


def trails(mask: np.ndarray, o) -> np.ndarray:
    """`o` as rsp_hpc.kernels.saturation.TrailOptions."""
    out = mask.copy()
    saturated = mask & np.uint32(o.saturated_bits) != 0
    for x in range(o.x0, o.x1):
        edges = np.diff(np.concatenate([[0], saturated[o.y0:o.y1, x].astype(int), [0]]))
        for y0, y1 in zip(np.nonzero(edges == 1)[0] + o.y0, np.nonzero(edges == -1)[0] + o.y0):
            if y1 - y0 < o.length:
                continue
            out[max(o.y0, y0 - o.beyond):min(o.y1, y1 + o.beyond), max(0, x - o.beside):x + o.beside + 1] |= np.uint32(o.set_bits)
            if (y1 == o.y1 if o.read_at_top else y0 == o.y0):
                rows = slice(max(o.y0, o.y1 - o.edge_rows), o.y1) if o.read_at_top else slice(o.y0, min(o.y1, o.y0 + o.edge_rows))
                out[rows, max(o.x0, x - o.edge_reach):min(o.x1, x + o.edge_reach + 1)] |= np.uint32(o.set_bits)
    return out
