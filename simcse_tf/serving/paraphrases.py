"""Which texts say the same: pairs of vectors above a cosine, and communities around those that have the most of them.

Every vector is compared with every other up to a number at which that takes minutes. Above it the vectors are put into
cells, and each is compared with those of the cells nearest to it; that needs faiss. Either way rows meet in matrix
products of whole blocks, which is what makes millions of rows a matter of minutes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from simcse_tf.checks import check_range, require

Kind = Literal["flat", "ivf"]

# Most pairs of a row, where nobody says otherwise.
TOP_K = 100
# Up to so many rows all pairs are compared.
_FLAT = 50_000
# Rows that are compared with each other in one product: their cosines take 16 MiB.
_ROWS, _COLUMNS = 1024, 4096
# Cells with whose rows a row is compared. Of 60,000 sentences' pairs above a cosine of 0.75 99.8 % are found, of those
# above 0.9 all.
_PROBES = 16
# For the means of the cells. More give no better ones.
_SAMPLE_PER_CELL, _ROUNDS = 64, 10


@dataclass(frozen=True)
class Cells:
    """Rows in groups, and the rows with which each group is compared.

    Attributes:
        order: `(rows,)` int: the rows, one cell after the other.
        begins: `(cells + 1,)` int: where each cell begins.
        visitors: int: rows that are compared with the rows of other cells.
        visits: `(cells, 2)` int: where those that are compared with each cell's begin and end.
    """

    order: np.ndarray
    begins: np.ndarray
    visitors: np.ndarray
    visits: np.ndarray

    def __len__(self) -> int:
        return len(self.visits)

    def of(self, cell: int) -> np.ndarray:
        """The rows of a cell."""
        return self.order[self.begins[cell] : self.begins[cell + 1]]

    def beside(self, cell: int) -> np.ndarray:
        """The rows of other cells with which they are compared."""
        begin, end = self.visits[cell]
        return self.visitors[begin:end]


def check(threshold: float, top_k: int) -> None:
    """Checks what pairs are to be found.

    Raises:
        UserError: The threshold is no cosine above 0, or `top_k` is less than 1.
    """
    check_range("threshold", threshold, above=0, high=1, why="it is a cosine")
    check_range("top_k", top_k, low=1)


def kind_for(rows: int) -> Kind:
    """How so many rows are compared: each with each other while that takes minutes."""
    return "flat" if rows <= _FLAT else "ivf"


def cells(vectors: np.ndarray, kind: Kind | None = None) -> Cells:
    """Puts vectors into cells.

    Args:
        vectors: `(n, dim)` float32 of unit length; may be mapped into memory.
        kind: `flat`: all rows will be compared; `ivf`: a row with those of the nearest cells alone. By default what
            suits their number.

    Raises:
        UserError: faiss is missing, for `ivf`.
    """
    rows, dim = vectors.shape
    if (kind or kind_for(rows)) == "flat":
        begins, order = np.append(np.arange(0, rows, _ROWS), rows), np.arange(rows)
        return Cells(order, begins, order, np.stack([begins[1:], np.full(len(begins) - 1, rows)], axis=1))
    require("faiss", "index", "comparing so many texts needs faiss")
    import faiss

    count = max(1, round(2 * math.sqrt(rows)))
    sample = np.sort(np.random.default_rng(0).choice(rows, min(rows, count * _SAMPLE_PER_CELL), replace=False))
    means = faiss.Kmeans(dim, count, niter=_ROUNDS, spherical=True, seed=0, min_points_per_centroid=1)
    means.train(vectors[sample])
    nearest = np.empty((rows, min(count, _PROBES)), "int32")
    for start in range(0, rows, _COLUMNS):
        block = slice(start, start + _COLUMNS)
        nearest[block] = means.index.search(vectors[block], nearest.shape[1])[1]
    home, others = nearest[:, 0], nearest[:, 1:]
    begins = np.append(0, np.cumsum(np.bincount(home, minlength=count)))
    visits = np.append(0, np.cumsum(np.bincount(others.ravel(), minlength=count)))
    visitors = (np.argsort(others, axis=None, kind="stable") // max(1, others.shape[1])).astype("int32")
    order = np.argsort(home, kind="stable")
    return Cells(order, begins, visitors, np.stack([visits[:-1], visits[1:]], axis=1))


def pairs(
    vectors: np.ndarray, among: Cells, threshold: float, top_k: int, *, begin: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Finds pairs of rows, cell by cell.

    Args:
        vectors: `(n, dim)` float32 of unit length; may be mapped into memory.
        among: Of the same vectors.
        threshold: Their least cosine.
        top_k: Of each row so many pairs with rows that come after it in its cell or are beside it, the nearest ones: no
            more than `n * top_k` in all.
        begin: The cell to begin with.

    Yields:
        For each cell `(pairs, 2)` int, the lower row first, and their cosines `(pairs,)` float32. Two cells may find
        the same pair.
    """
    for cell in range(begin, len(among)):
        own, beside = among.of(cell), among.beside(cell)
        found = [
            _nearest(vectors, own[start : start + _ROWS], np.append(own[start:], beside), threshold, top_k)
            for start in range(0, len(own), _ROWS)
        ]
        yield (
            np.sort(np.concatenate([np.empty((0, 2), int), *(rows for rows, _ in found)]), axis=1),
            np.concatenate([np.empty(0, "float32"), *(cosines for _, cosines in found)]),
        )


def _nearest(
    vectors: np.ndarray, rows: np.ndarray, others: np.ndarray, threshold: float, top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of some rows with others, of which the first are they themselves."""
    block, least = vectors[rows], np.full(len(rows), threshold, "float32")
    places, cosines = np.empty((0, 2), int), np.empty(0, "float32")
    for start in range(0, len(others), _COLUMNS):
        products = block @ vectors[others[start : start + _COLUMNS]].T
        near = products >= least[:, None]
        if start < len(rows):
            near = np.triu(near, 1 - start)
        if not near.any():
            continue
        places = np.concatenate([places, np.argwhere(near) + np.array((0, start))])
        cosines = np.concatenate([cosines, products[near]])
        # Now and not at the end: of rows that are all alike there would be too many.
        order = np.lexsort((-cosines, places[:, 0]))
        places, cosines = places[order], cosines[order]
        rank = np.arange(len(order)) - np.searchsorted(places[:, 0], places[:, 0])
        last = rank == top_k - 1
        least[places[last, 0]] = np.nextafter(cosines[last], np.float32(2))
        places, cosines = places[rank < top_k], cosines[rank < top_k]
    return np.stack([rows[places[:, 0]], others[places[:, 1]]], axis=1), cosines


def communities(
    vectors: np.ndarray, found: np.ndarray, cosines: np.ndarray, threshold: float, top_k: int = TOP_K
) -> tuple[np.ndarray, np.ndarray]:
    """Groups rows around those that have the most others near to them.

    The row with the most pairs and all that are near to it are a community; then the same of the rows that are left.
    Unlike the connected components of the pairs, which hang together by chains of rows that are ever less alike, all
    rows of a community are near to its centre.

    Args:
        vectors: `(n, dim)` float32 of unit length; may be mapped into memory.
        found: `(pairs, 2)` int, from `pairs`.
        cosines: Theirs.
        threshold: Theirs: the least cosine with the centre.
        top_k: Theirs. Where a centre has so many pairs or more, it is compared with all rows: it may have others.

    Returns:
        `(n,)` int: the row that is the centre of each row's community, -1 of a row in none; and the cosines with it
        `(n,)` float32.
    """
    from scipy.sparse import csr_array

    count = len(vectors)
    graph = csr_array((cosines, (found[:, 0], found[:, 1])), shape=(count, count))
    graph += graph.T
    degrees = np.diff(graph.indptr)
    centres, nearness = np.full(count, -1), np.zeros(count, "float32")
    for row in np.argsort(-degrees, kind="stable")[: np.count_nonzero(degrees)].tolist():
        if centres[row] >= 0:
            continue
        if degrees[row] < top_k:
            at = slice(graph.indptr[row], graph.indptr[row + 1])
            near, own = graph.indices[at], graph.data[at]
        else:
            products = vectors @ vectors[row]
            near = np.flatnonzero(products >= threshold)
            own = products[near]
        free = (centres[near] < 0) & (near != row)
        if free.any():
            centres[near[free]], nearness[near[free]] = row, own[free]
            centres[row], nearness[row] = row, 1
    return centres, nearness


def best_first(found: np.ndarray, cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair once, with its cosine, the most alike first, equal ones in the order of their rows."""
    _, once = np.unique(found[:, 0].astype("int64") << 32 | found[:, 1], return_index=True)
    # They are in the order of their rows.
    order = once[np.argsort(-cosines[once], kind="stable")]
    return found[order], cosines[order]


def find(vectors: np.ndarray, threshold: float, top_k: int = TOP_K) -> tuple[np.ndarray, np.ndarray]:
    """All pairs at once.

    Returns:
        `(pairs, 2)` int and cosines `(pairs,)` float32, as `pairs` yields them, best first.

    Raises:
        UserError: As `check` and `cells`.
    """
    check(threshold, top_k)
    found = [(np.empty((0, 2), int), np.empty(0, "float32")), *pairs(vectors, cells(vectors), threshold, top_k)]
    rows, cosines = zip(*found, strict=True)
    return best_first(np.concatenate(rows), np.concatenate(cosines))


def by_size(of: np.ndarray, cosines: np.ndarray, central: np.ndarray) -> list[np.ndarray]:
    """Lists communities.

    Args:
        of: `(rows,)` int: a number for each row's community, -1 of a row in none.
        cosines: `(rows,)` float: with its centre.
        central: `(rows,)` bool: the row is the centre, or equal to it.

    Returns:
        The rows of each community, the largest community first; in each the centre first, then the nearest to it.
    """
    (rows,) = np.nonzero(of >= 0)
    numbers = of[rows]
    sizes = np.bincount(numbers)
    order = np.lexsort((rows, -cosines[rows], ~central[rows], numbers, -sizes[numbers]))
    begins = np.flatnonzero(np.diff(numbers[order])) + 1
    return np.split(rows[order], begins) if len(rows) else []
