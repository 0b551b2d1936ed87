"""ResNet-50 on seven configurations of NVDLA: its maker's estimates against a bound of each layer.

Source of the rows: the table of estimates in primer.rst of nvdla/doc 31f5740 (8-bit integers, 1 GHz). Source
of the arrays (channels x kernels a cycle): MAC_ATOMIC_C_SIZE and MAC_ATOMIC_K_SIZE in spec/defs of nvdla/hw
(nv_large, nv_medium_1024_full, nv_medium_512, nv_small_256, nv_small); of 128 and 32 MACs none is published,
the arrays of 16 x 8 and 8 x 4 are guesses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class NvdlaRow:
    """A configuration and the published estimate."""

    channels: int
    kernels: int
    dram_gb_per_s: float
    published_fps: float


ROWS = (
    NvdlaRow(64, 32, 20.0, 269.0),
    NvdlaRow(64, 16, 15.0, 153.0),
    NvdlaRow(32, 16, 10.0, 93.0),
    NvdlaRow(32, 8, 5.0, 46.0),
    NvdlaRow(16, 8, 2.0, 20.0),
    NvdlaRow(8, 8, 1.0, 7.3),
    NvdlaRow(8, 4, 0.5, 3.6),
)
HEADER = ("MACs", "published frames/s", "bound of the layers", "bound / published")
TEXT = """
Each layer of ResNet-50 takes at least its passes through the array, channels and kernels rounded up, and its
weights, input, output and the tensor of a residual sum through DRAM once (8-bit integers, 1 GHz). No constant
is fitted. The maker calls the published figures estimates and does not say how they were made. The first two
are above the bound (the first layer has three channels, for which NVDLA has a mode of its own). The last two
are 43 % below it, which neither arrays nor 53 MB of traffic explain: they would need 137 MB an image.
"""


@dataclass(frozen=True, slots=True)
class _Layer:
    channels: int
    kernels: int
    window: int
    size: int
    """Rows and columns of the input."""
    stride: int
    adds: bool = False
    """Whether a residual sum follows."""

    @property
    def outputs(self) -> int:
        return (self.size // self.stride) ** 2


def resnet50() -> Iterator[_Layer]:
    """Yield convolutions and the classifier, strides in the 3 x 3 windows."""
    yield _Layer(3, 64, 7, 224, 2)
    channels, size = 64, 56
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            stride = 2 if width > 64 and block == 0 else 1
            yield _Layer(channels, width, 1, size, 1)
            yield _Layer(width, width, 3, size, stride)
            if block == 0:
                yield _Layer(channels, 4 * width, 1, size, stride)
            size //= stride
            yield _Layer(width, 4 * width, 1, size, 1, adds=True)
            channels = 4 * width
    yield _Layer(channels, 1000, 1, 1, 1)


def macs() -> int:
    """Return the multiply-adds of an image."""
    return sum(x.channels * x.kernels * x.window**2 * x.outputs for x in resnet50())


def bound_fps(row: NvdlaRow) -> float:
    """Return the images per second if every layer were as fast as array or memory allow."""
    total_ns = 0.0
    for layer in resnet50():
        passes = ceil(layer.channels / row.channels) * ceil(layer.kernels / row.kernels)
        array_ns = passes * layer.window**2 * layer.outputs
        weights = layer.channels * layer.kernels * layer.window**2
        results = layer.kernels * layer.outputs * (2 if layer.adds else 1)
        dram_bytes = weights + layer.channels * layer.size**2 + results
        total_ns += max(array_ns, dram_bytes / row.dram_gb_per_s)
    return 1e9 / total_ns


def table_rows() -> list[tuple[str, ...]]:
    """Return the cells of the table."""
    return [
        (
            f"{row.channels * row.kernels}",
            f"{row.published_fps:.1f}",
            f"{bound_fps(row):.1f}",
            f"{bound_fps(row) / row.published_fps:.2f}",
        )
        for row in ROWS
    ]
