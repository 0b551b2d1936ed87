from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.rules.tiling.candidates import MOST_SIZES, tile_sizes
from tilewright.rules.tiling.engine import TilingRequest, tiling_alternatives
from tilewright.rules.tiling.family import tiling_rules


@given(st.integers(1, 5000), st.sampled_from([1, 4, 16, 32, 64]))
@settings(max_examples=200, deadline=None)
def test_candidate_sizes(extent: int, quantum: int) -> None:
    sizes = tile_sizes(extent, quantum)
    assert sizes[0] == extent
    assert len(sizes) <= MOST_SIZES
    assert list(sizes) == sorted(set(sizes), reverse=True)
    assert all(size % quantum == 0 for size in sizes[1:])
    if extent > 2 * quantum:
        assert sizes[-1] == quantum, "the smallest tile is one quantum"


def request(key: str, *extents: int, **changes: tuple[object, ...]) -> TilingRequest:
    count = len(extents)
    values: dict[str, object] = {
        "is_tileable": (True,) * count,
        "is_parallel": (True,) * (count - 1) + (False,),
        "is_combining": (False,) * (count - 1) + (True,),
        "quanta": (1,) * count,
    }
    return TilingRequest(key=key, extents=extents, **(values | changes))  # type: ignore[arg-type]


def test_rules_reach_every_candidate() -> None:
    requests = [
        request(f"{e}.{q}", e, e, quanta=(q, q))
        for e in (1, 7, 12, 97, 384, 1000)
        for q in (1, 8, 64)
    ]
    for asked, found in zip(requests, tiling_alternatives(requests), strict=True):
        assert found.key == asked.key
        assert found.sizes == tuple(
            tile_sizes(e, q) for e, q in zip(asked.extents, asked.quanta, strict=True)
        )


def test_whole_loops_stay_whole_and_orders_are_parallel_loops() -> None:
    asked = request(
        "k",
        8,
        1,
        16,
        6,
        is_tileable=(True, True, False, True),
        is_parallel=(True, True, True, False),
    )
    (found,) = tiling_alternatives([asked])
    assert found.sizes == ((8, 4, 3, 2, 1), (1,), (16,), (6, 3, 2, 1))
    assert found.outermost == (0,)


def test_a_wanted_size_is_one_more_candidate_where_rules_reach_it() -> None:
    asked = request(
        "k", 96, 64, 40, 60, is_tileable=(True, True, False, True), wanted=(17, None, 7, 64)
    )
    (found,) = tiling_alternatives([asked])
    assert found.sizes[0] == tuple(sorted({*tile_sizes(96, 1), 17}, reverse=True))
    assert found.sizes[1:] == (tile_sizes(64, 1), (40,), tile_sizes(60, 1))
    fewer = tuple(rule for rule in tiling_rules() if rule.name != "tiling.smaller_tiles")
    (uncut,) = tiling_alternatives([asked], fewer)
    assert uncut.sizes[0] == (96,)


def test_equal_requests_share_loops_but_keep_their_keys() -> None:
    found = tiling_alternatives([request("a", 8, 4), request("b", 8, 4), request("c", 4, 8)])
    assert [f.key for f in found] == ["a", "b", "c"]
    assert found[0].sizes == found[1].sizes == found[2].sizes[::-1]
    assert tiling_alternatives([]) == ()


def test_many_requests_share_one_small_graph() -> None:
    requests = [
        request(str(i), 128, 384 + 8 * (i % 50), 1536, quanta=(1, 64, 64)) for i in range(500)
    ]
    found = tiling_alternatives(requests)
    assert len(found) == 500
    assert found[3].sizes == found[53].sizes
    assert all(f.outermost == (0, 1) for f in found)
