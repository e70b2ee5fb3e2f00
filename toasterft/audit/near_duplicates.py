"""Which pictures look the same: re-encoded, scaled, or made lighter, but not another chart of the same design.

A perceptual hash finds charts of one publisher all alike, white paper with bars on it. Two pictures count as
the same here where no spot of a 64 x 64 version differs, once brightness and contrast are fitted. Measured on
929 ChartQA charts (2026-11-21): copies re-encoded as JPEG of quality 30 to 85, WebP or 64 colours, scaled by
0.5 to 1.5, or darkened differ by at most 9 grey levels, different charts by at least 27. Cropped or turned
copies are not found.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toasterft.data.split import DisjointSets

SIDE = 64
MOST_DIFFERENCE = 14.0  # grey levels of 255, between the two clusters above, nearer to the copies
MOST_SPOT_DIFFERENCE = 60.0  # of a single spot: one changed number on a chart may be all that is new
MOST_ASPECT = 0.03  # in the logarithm of width / height
# First sieve, on 8 x 8 versions: copies correlate better, and only so many of the nearest are looked at.
COARSE = 8
LEAST_CORRELATION = 0.99
MOST_CANDIDATES = 32
BLOCK = 512  # rows of the correlation matrix at once: 40 MB for 20,000 pictures

Grey = NDArray[np.uint8]


def groups(grey: Grey, log_aspect: NDArray[np.float64]) -> list[int]:
    """For each picture the number of its group; alone in it where nothing looks like it.

    Args:
        grey: (n, SIDE, SIDE).
        log_aspect: (n,) logarithms of width / height.
    """
    n, sets = len(grey), DisjointSets[int]()
    if n < 2:
        return list(range(n))
    coarse = _standard(
        grey.reshape(n, COARSE, SIDE // COARSE, COARSE, SIDE // COARSE).mean((2, 4)).reshape(n, -1)
    )
    for start in range(0, n, BLOCK):
        alike = coarse[start : start + BLOCK] @ coarse.T
        alike[np.abs(log_aspect[start : start + BLOCK, None] - log_aspect[None]) > MOST_ASPECT] = 0
        rows, others = np.nonzero(alike > LEAST_CORRELATION)
        later = others > rows + start
        rows, others = rows[later], others[later]
        for row in np.unique(rows):
            place = start + int(row)
            near = others[rows == row]
            if len(near) > MOST_CANDIDATES:
                near = near[np.argsort(-alike[row, near])[:MOST_CANDIDATES]]
            near = np.array([other for other in near if sets.root(int(other)) != sets.root(place)], dtype=int)
            for other in near[same(grey[place], grey[near])] if len(near) else ():
                sets.join(place, int(other))
    return [sets.root(place) for place in range(n)]


def same(one: Grey, others: Grey) -> NDArray[np.bool_]:
    """Which of `others` (k, SIDE, SIDE) look like `one`."""
    x = one.astype(np.float32)
    y = others.astype(np.float32)
    x -= x.mean()
    y -= y.mean((1, 2), keepdims=True)
    # Lighter or paler copies: the contrast that fits best; far off ones are other pictures.
    contrast = (y * x).mean((1, 2)) / max(float((x * x).mean()), 1e-6)
    contrast = np.where((contrast > 0.5) & (contrast < 2), contrast, 1.0)
    left = y - x * contrast[:, None, None]
    spots, blurred = np.abs(left).max((1, 2)), _blurred(left).max((1, 2))
    alike: NDArray[np.bool_] = (spots <= MOST_SPOT_DIFFERENCE) & (blurred <= MOST_DIFFERENCE)
    return alike


def _blurred(difference: NDArray[np.float32]) -> NDArray[np.float32]:
    """Absolute means of 3 x 3 spots: scaling moves an edge by part of a pixel, and the two signs cancel."""
    padded = np.pad(difference, ((0, 0), (1, 1), (1, 1)), mode="edge")
    total = sum(
        padded[:, row : row + SIDE, column : column + SIDE] for row in range(3) for column in range(3)
    )
    return np.abs(np.asarray(total) / 9)


def _standard(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows of mean 0 and length 1, so that their products are correlations; 0 where there is no contrast."""
    rows = rows - rows.mean(1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(length > 1e-3, rows / np.maximum(length, 1e-3), 0).astype(np.float32)
