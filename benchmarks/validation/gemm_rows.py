"""Measured matrix products: device utilisation of Tenstorrent's N150 and P150, operands and result in DRAM.

Source: "Out of Box" rows with trace, tech_reports/GEMM_FLOPS/GEMM_FLOPS.md of tenstorrent/tt-metal 06bd3735.
Utilisation is m k n / 32^3 times the cycles of a product of two 32 x 32 tiles, over cores and cycles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from tilewright.dtypes import DType


class NumberFormat(StrEnum):
    """A format with the fidelity that it was measured with."""

    BF16 = "BFLOAT16 HiFi2"
    BFP8 = "BFLOAT8_B LoFi"

    @property
    def dtype(self) -> DType:
        """Element type here; integers stand for blocks of 16 elements with one exponent."""
        return DType.BF16 if self is NumberFormat.BF16 else DType.I8

    @property
    def tile_bytes(self) -> int:
        """Bytes of 32 x 32 elements."""
        return 2048 if self is NumberFormat.BF16 else 1088

    @property
    def product_cycles(self) -> int:
        """Cycles of a product of two 32 x 32 tiles: 16 for each fidelity phase."""
        return 32 if self is NumberFormat.BF16 else 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A card and the cores that were used."""

    preset: str
    grid_rows: int
    grid_columns: int


CARDS = MappingProxyType(
    {
        "N150": Card(preset="wormhole_n150", grid_rows=8, grid_columns=8),
        "P150": Card(preset="blackhole_p150", grid_rows=10, grid_columns=13),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmRow:
    """A row of the report."""

    card: str
    number_format: NumberFormat
    m: int
    k: int
    n: int
    measured_utilisation: float

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.card} {self.number_format} {self.m} x {self.k} x {self.n}"

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return self.m * self.k * self.n

    @property
    def ideal_cycles(self) -> float:
        """Cycles of all products at the peak rate of the cores used."""
        card = CARDS[self.card]
        products = self.macs / 32**3
        return products * self.number_format.product_cycles / (card.grid_rows * card.grid_columns)


_N150 = (
    (512, 512, 512, 17.82, 11.28),
    (512, 1024, 1024, 9.00, 7.03),
    (512, 1024, 2048, 16.70, 13.13),
    (1024, 1024, 1024, 41.64, 33.54),
    (1024, 1024, 2048, 56.61, 45.07),
    (1024, 2048, 2048, 60.49, 52.97),
    (2048, 2048, 2048, 66.74, 63.73),
    (2048, 2048, 3072, 70.07, 67.18),
    (2048, 3072, 3072, 71.30, 69.28),
    (3072, 3072, 3072, 58.19, 69.84),
    (3072, 3072, 4096, 60.97, 71.69),
    (3072, 4096, 4096, 59.41, 62.60),
    (4096, 4096, 4096, 59.46, 64.35),
)
_P150 = (
    (640, 832, 832, 18.82, 10.30),
    (640, 1664, 1664, 41.08, 25.19),
    (640, 1664, 3328, 51.04, 33.89),
    (1280, 1664, 1664, 61.85, 43.72),
    (1280, 1664, 3328, 76.75, 61.45),
    (1280, 3328, 3328, 81.07, 71.22),
    (2560, 3328, 3328, 85.66, 81.31),
    (2560, 3328, 4992, 86.55, 82.96),
    (2560, 4992, 4992, 87.40, 84.73),
    (3840, 4992, 4992, 80.25, 86.41),
    (3840, 4992, 6656, 80.79, 86.74),
    (3840, 6656, 6656, 79.98, 80.84),
    (5120, 6656, 6656, 80.37, 80.83),
)
_Figures = tuple[int, int, int, float, float]


def _rows(card: str, figures: tuple[_Figures, ...]) -> Iterator[GemmRow]:
    """Yield rows: m, k, n and the percentages of each format."""
    for position, number_format in enumerate(NumberFormat):
        for m, k, n, *percentages in figures:
            yield GemmRow(
                card=card,
                number_format=number_format,
                m=m,
                k=k,
                n=n,
                measured_utilisation=percentages[position] / 100.0,
            )


GEMM_ROWS = (*_rows("N150", _N150), *_rows("P150", _P150))
