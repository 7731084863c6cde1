"""The rows of the table: each a graph of calls of `work`, and how its time and its result are read."""

import dataclasses
from typing import Any, Callable, List, Optional, Tuple

import work


class Ref:
    """The result of another call, by its number."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Graph:
    """Calls in an order in which each comes after what it reads."""

    def __init__(self) -> None:
        self.calls: List[Tuple[Callable[..., Any], Tuple[Any, ...]]] = []

    def add(self, function: Callable[..., Any], *args: Any) -> Ref:
        self.calls.append((function, args))
        return Ref(len(self.calls) - 1)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row: `build` fills a graph and says which results are wanted."""

    name: str
    what: str
    build: Callable[[Graph, int], List[Ref]]
    # Whether it is one call for each of many items, which engines that know no graphs have a call for.
    is_map: bool = False
    # Shortest time that two workers need for the sleeps of the graph.
    ideal_s: Optional[float] = None
    # Whether the results are seconds, to be shown instead of the wall time.
    is_timed_inside: bool = False
    # An expression of Dask's own collections instead of a graph.
    array: Optional[Callable[[], Any]] = None

    def graph(self, turn: int) -> Tuple[Graph, List[Ref]]:
        graph = Graph()
        return graph, self.build(graph, turn)


def noops(graph: Graph, turn: int) -> List[Ref]:
    return [graph.add(work.noop, number) for number in range(10_000)]


def tree(sleep_ms: int) -> Callable[[Graph, int], List[Ref]]:
    def build(graph: Graph, turn: int) -> List[Ref]:
        level: List[Any] = list(range(1_024))
        while len(level) > 1:
            level = [graph.add(work.add, sleep_ms, *level[at : at + 2]) for at in range(0, len(level), 2)]
        return level

    return build


def tree_ideal_s(sleep_ms: int) -> float:
    widths = [1_024 >> depth for depth in range(1, 11)]
    return sum(-(-width // 2) for width in widths) * sleep_ms / 1000


def gemm(graph: Graph, turn: int) -> List[Ref]:
    """WUKONG's: n^2 blocks of each matrix, n^3 products, n^2 sums; of the product a norm of each block is told."""
    n, size = 4, 1_024
    cells = [(i, j) for i in range(n) for j in range(n)]
    a = {(i, j): graph.add(work.block, i * n + j, size, size) for i, j in cells}
    b = {(i, j): graph.add(work.block, 100 + i * n + j, size, size) for i, j in cells}
    sums = []
    for i, j in cells:
        products = [graph.add(work.multiply, a[i, k], b[k, j]) for k in range(n)]
        sums.append(graph.add(work.total, *products))
    return [graph.add(work.norm, cell) for cell in sums]


def tsqr(graph: Graph, turn: int) -> List[Ref]:
    level = [graph.add(work.r_of, graph.add(work.block, number, 4_096, 256)) for number in range(32)]
    while len(level) > 1:
        level = [graph.add(work.r_of, *level[at : at + 2]) for at in range(0, len(level), 2)]
    return [graph.add(work.norm, level[0])]


def svd(graph: Graph, turn: int) -> List[Ref]:
    parts = [graph.add(work.qr, graph.add(work.block, number, 10_000, 100)) for number in range(20)]
    small = graph.add(work.svd_of_r, *[graph.add(work.second, part) for part in parts])
    vectors = [
        graph.add(work.left_vectors, number, graph.add(work.first, part), small) for number, part in enumerate(parts)
    ]
    return [graph.add(work.values_of, small), *[graph.add(work.norm, vector) for vector in vectors]]


def image_transform(graph: Graph, turn: int) -> List[Ref]:
    tiles = 4
    picture = graph.add(work.photograph, 3_000, 2_001)
    done = []
    for row in range(tiles):
        for column in range(tiles):
            tile = graph.add(work.get, picture, row, column, tiles)
            for step in (work.resize, work.blur, work.normalise):
                tile = graph.add(step, tile)
            edge = graph.add(work.edges, tile)
            done.append(graph.add(work.combine, graph.add(work.sharpen, graph.add(work.sepia, tile)), edge))
    return [graph.add(work.merge_tiles, tiles, *done)]


def text_analysis(graph: Graph, turn: int) -> List[Ref]:
    times = 8
    words = graph.add(work.merge_counts, *[graph.add(work.count, times, part, 32) for part in range(32)])
    segments = graph.add(work.segmentation, times, 16)
    facts = graph.add(work.statistics, words)
    found = [graph.add(work.segment, segments, part) for part in range(16)]
    groups = [graph.add(work.overall, *found[at : at + 4]) for at in range(0, 16, 4)]
    whole = graph.add(work.overall, *groups)
    top, long = graph.add(work.most_common, words), graph.add(work.longest, words)
    return [graph.add(work.report, facts, whole, top, long)]


def hand_over(graph: Graph, turn: int) -> List[Ref]:
    return [graph.add(work.consume, graph.add(work.produce, turn, 100_000_000))]


def array_gemm() -> Any:
    import dask.array as da

    a, b = (da.random.default_rng(seed).random((4_096, 4_096), chunks=1_024) for seed in (0, 1))
    product = a @ b
    return (product * product).sum()


def array_tsqr() -> Any:
    import dask.array as da

    x = da.random.default_rng(0).random((131_072, 256), chunks=(4_096, 256))
    _, r = da.linalg.tsqr(x)
    return (r * r).sum()


def array_svd() -> Any:
    import dask.array as da

    _, values, _ = da.linalg.svd(da.random.default_rng(0).random((200_000, 100), chunks=(10_000, 100)))
    return values


ROWS = [
    Row("noop", "10,000 no-ops", noops, is_map=True),
    Row("tree", "tree of 1,023 additions", tree(0)),
    Row("tree-10ms", "the same, 10 ms each", tree(10), ideal_s=tree_ideal_s(10)),
    Row("tree-50ms", "the same, 50 ms each", tree(50), ideal_s=tree_ideal_s(50)),
    Row("gemm", "GEMM 4,096² in 16 blocks", gemm),
    Row("svd", "SVD 200,000 x 100 in 20 blocks", svd),
    Row("tsqr", "TSQR 131,072 x 256 in 32 blocks", tsqr),
    Row("image_transform", "image_transform, 3,000 x 2,001", image_transform),
    Row("text_analysis", "text_analysis, 3.7 MB", text_analysis),
    Row("hand-over", "100 MB from task to task", hand_over, is_timed_inside=True),
    Row("array-gemm", "`dask.array`: GEMM of that size", gemm, array=array_gemm),
    Row("array-svd", "`dask.array.linalg.svd` of that size", svd, array=array_svd),
    Row("array-tsqr", "`dask.array.linalg.tsqr` of that size", tsqr, array=array_tsqr),
]
BY_NAME = {row.name: row for row in ROWS}
