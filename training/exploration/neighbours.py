"""Nearest neighbours, near duplicates and outliers among embeddings, by faiss."""

import math
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError

Vectors = npt.NDArray[np.float32]
EXACT = 20_000
"""Up to this many vectors the search is exact; above, a share of the set is searched (inverted lists)."""
SEARCHED = 12
"""Inverted lists that a query searches."""
SEARCHED_FOR_ALL = 4
"""The same where every vector of the set is a query."""
AROUND = 10
"""Neighbours whose average distance makes an image an outlier."""


class NeighbourIndex:
    """Cosine similarity among the rows of a matrix.

    Args:
        vectors: (count, size), float32; rows are scaled to length 1.
    """

    def __init__(self, vectors: Vectors) -> None:
        try:
            import faiss
        except ImportError as error:
            raise UserError("ladder explore needs more packages: pip install 'ladder-siamese[explore]'") from error
        self.vectors = np.ascontiguousarray(vectors, np.float32)
        faiss.normalize_L2(self.vectors)
        count, size = self.vectors.shape
        index: Any = faiss.IndexFlatIP(size)
        if count > EXACT:
            index = faiss.IndexIVFFlat(index, size, int(math.sqrt(count)), faiss.METRIC_INNER_PRODUCT)
            index.cp.max_points_per_centroid = 64
            index.train(self.vectors)
            index.nprobe = SEARCHED
        index.add(self.vectors)
        self._index = index

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: Vectors, count: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """Find the most similar rows of each query.

        Args:
            queries: (number, size); scaled to length 1 here.
            count: Neighbours per query.

        Returns:
            Cosines and row numbers, both (number, count), most similar first; a row number of -1 means that there are
            no more.
        """
        queries = np.array(queries, np.float32, ndmin=2)
        queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
        return self._index.search(queries, min(count, len(self)))

    @cached_property
    def around(self) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """The nearest rows of every row, itself among them, as `search` gives them; computed once."""
        import faiss

        count = min(AROUND + 1, len(self))
        if len(self) <= EXACT:
            return self._index.search(self.vectors, count)
        settings: Any = faiss.SearchParametersIVF  # faiss declares no arguments of it
        return self._index.search(self.vectors, count, params=settings(nprobe=SEARCHED_FOR_ALL))

    def like(self, row: int, count: int) -> list[tuple[int, float]]:
        """The rows most similar to one row, without it: (row, cosine), most similar first."""
        cosines, rows = self.search(self.vectors[row], count + 1)
        return _pairs(rows[0], cosines[0], row)[:count]

    def near_duplicates(self, least: float, most: int) -> list[tuple[int, int, float]]:
        """Pairs of rows with at least this cosine: (row, other row, cosine), most similar first, at most `most`."""
        cosines, rows = self.around
        first = np.repeat(np.arange(len(rows)), rows.shape[1])
        second, similar = rows.ravel(), cosines.ravel()
        keep = (second >= 0) & (second != first) & (similar >= least)
        low, high = np.minimum(first, second)[keep], np.maximum(first, second)[keep]
        pairs = dict(zip(zip(low.tolist(), high.tolist(), strict=True), similar[keep].tolist(), strict=True))
        ordered = sorted(pairs.items(), key=lambda item: -item[1])
        return [(*pair, cosine) for pair, cosine in ordered[:most]]

    def outliers(self, most: int) -> list[tuple[int, float]]:
        """Rows far from all others: (row, average cosine to the nearest ones), farthest first."""
        cosines, rows = self.around
        others = (rows >= 0) & (rows != np.arange(len(rows))[:, None])
        average = np.where(others, cosines, 0).sum(axis=1) / np.maximum(others.sum(axis=1), 1)
        order = np.argsort(average, kind="stable")[:most]
        return [(int(row), float(average[row])) for row in order]


def _pairs(rows: npt.NDArray[np.int64], cosines: Vectors, without: int) -> list[tuple[int, float]]:
    return [(int(row), float(cosine)) for row, cosine in zip(rows, cosines, strict=True) if row >= 0 and row != without]


def flat_map(vectors: Vectors, seed: int = 0) -> Vectors:
    """Lay embeddings out in a plane by their two main directions (PCA).

    Args:
        vectors: (count, size).
        seed: Of the solver, for large sets.

    Returns:
        (count, 2), float32, each direction scaled to [0, 1].
    """
    from sklearn.decomposition import PCA

    kept = min(2, *vectors.shape)
    plane = PCA(kept, random_state=seed).fit_transform(vectors)
    plane = np.pad(plane, ((0, 0), (0, 2 - kept)))
    plane -= plane.min(axis=0)
    return (plane / np.maximum(plane.max(axis=0), 1e-12)).astype(np.float32)


def clusters(vectors: Vectors, count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Group embeddings by spherical k-means.

    Args:
        vectors: (number, size), rows of length 1.
        count: Groups; fewer if there are fewer rows.
        seed: Of the starting points.

    Returns:
        (number,), the group of each row; group 0 is the largest.
    """
    import faiss

    count = max(1, min(count, len(vectors)))
    data = np.ascontiguousarray(vectors, np.float32)
    found = faiss.Kmeans(data.shape[1], count, niter=20, nredo=5, seed=seed, spherical=True, min_points_per_centroid=1)
    found.train(data)
    groups = found.index.search(data, 1)[1][:, 0]
    order = np.argsort(-np.bincount(groups, minlength=count), kind="stable")
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    return rank[groups]


def curved_map(vectors: Vectors, seed: int = 0) -> Vectors:
    """Lay embeddings out in a plane by UMAP, which keeps neighbours together; shape as `flat_map`.

    Raises:
        UserError: umap-learn is not installed.
    """
    try:
        from umap import UMAP
    except ImportError as error:
        raise UserError("a UMAP map needs another package: pip install umap-learn") from error
    plane = UMAP(metric="cosine", random_state=seed).fit_transform(vectors)
    plane = plane - plane.min(axis=0)
    return (plane / np.maximum(plane.max(axis=0), 1e-12)).astype(np.float32)
