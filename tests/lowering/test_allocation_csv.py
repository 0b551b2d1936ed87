"""Allocation problems as CSV."""

from __future__ import annotations

import pytest

from tilewright.errors import CompileError
from tilewright.lowering.allocation_csv import allocation_csv, parse_allocation_csv
from tilewright.lowering.live_buffer import Gap, LiveBuffer


def test_columns_may_be_in_any_order_and_optional() -> None:
    text = "size,id,gaps,upper,lower,alignment,hint,offset\n64,x,3-4 5-6@0:8,9,2,4,-1,16\n\n"
    gaps = (Gap(start=3, end=4), Gap(start=5, end=6, window=(0, 8)))
    expected = LiveBuffer(
        name="x", size_bytes=64, start=2, end=9, alignment_bytes=4, gaps=gaps, offset=16
    )
    assert parse_allocation_csv(text, name="f") == (expected,)


def test_an_end_column_names_the_last_time() -> None:
    text = "buffer_id,start,end,size,gaps\nx,2,8,64,3-4\n"
    expected = LiveBuffer(name="x", size_bytes=64, start=2, end=9, gaps=(Gap(start=3, end=5),))
    assert parse_allocation_csv(text, name="f") == (expected,)


def test_what_is_written_is_read_again() -> None:
    buffers = (
        LiveBuffer(name="a", size_bytes=8, start=0, end=9, gaps=(Gap(start=2, end=3),)),
        LiveBuffer(name="b", size_bytes=4, start=1, end=2, alignment_bytes=2),
        LiveBuffer(
            name="c", size_bytes=4, start=1, end=9, gaps=(Gap(start=2, end=3, window=(1, 3)),)
        ),
    )
    text = allocation_csv(buffers, (0, 8, 12))
    assert text.splitlines()[0] == "id,lower,upper,size,alignment,gaps,offset"
    read = parse_allocation_csv(text, name="f")
    assert [b.offset for b in read] == [0, 8, 12]
    assert [(b.name, b.gaps, b.alignment_bytes) for b in read] == [
        (b.name, b.gaps, b.alignment_bytes) for b in buffers
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f, line 1: no column id, lower, upper, size; expected a header like"),
        ("id,lower,upper\n", "f, line 1: no column size"),
        ("id,lower,upper,size,colour\n", "f, line 1: unknown column 'colour'"),
        ("id,lower,upper,size,start\n", "f, line 1: column 'lower' occurs twice"),
        ("id,lower,upper,size\na,0,1\n", "f, line 2: 3 fields, expected 4"),
        ("id,lower,upper,size\na,0,1,x\n", "f, line 2: size is 'x', expected an integer from 0"),
        ("id,lower,upper,size\na,0,1,-4\n", "f, line 2: size is '-4', expected an integer from 0"),
        ("id,lower,upper,size\na,0,1,1e400\n", "f, line 2: size is '1e400'"),
        ("id,lower,upper,size\na,0,1," + "9" * 30 + "\n", "f, line 2: size is '9999"),
        ("id,lower,upper,size\na,5,1,4\n", "f, line 2: it ends at 1, before it starts at 5"),
        ("id,lower,upper,size\na,0,1,4\na,0,1,4\n", "f, line 3: id 'a' occurs twice"),
        ("id,lower,upper,size,gaps\na,0,9,4,5\n", "f, line 2: gap '5', expected START-END"),
        ("id,lower,upper,size,gaps\na,0,9,4,5-6@1\n", "f, line 2: gap '5-6@1', expected"),
        ("id,lower,upper,size,alignment\na,0,9,4,0\n", "f, line 2: alignment is '0'"),
    ],
)
def test_bad_files_are_refused_with_the_line(text: str, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        parse_allocation_csv(text, name="f")
    assert str(caught.value).startswith(message)
