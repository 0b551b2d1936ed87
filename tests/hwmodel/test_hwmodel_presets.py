"""Each preset reproduces what its maker publishes."""

from __future__ import annotations

import pytest

from tilewright.dtypes import DType
from tilewright.hwmodel.check import evidence_path, figures
from tilewright.hwmodel.describe import describe_target
from tilewright.hwmodel.load import load_target, target_names
from tilewright.hwmodel.network import logical_mesh, logical_tile_ids
from tilewright.hwmodel.target import Basis

PRESETS = target_names()

# (preset, what, published figure, source). Corsair's nominal 2 GB is 8 chiplets of 256 MB.
PUBLISHED = [
    ("corsair", "tiles", 2048, "8 chiplets x 256 cores, Vik's Newsletter 2025-12-09"),
    ("corsair", "ops i8", 2400e12, "MXINT8, Chips and Cheese 2025-01-01"),
    ("corsair", "sram bytes", 8 * 256e6, "256 MB a chiplet, Vik's Newsletter 2025-12-09"),
    ("corsair", "sram rate", 150e12, "The Register 2025-09-08"),
    ("corsair", "dram bytes", 256e9, "Chips and Cheese 2025-01-01"),
    ("corsair", "dram rate", 400e9, "The Register 2025-09-08"),
    ("corsair_server", "tiles", 16384, "8 cards"),
    ("corsair_server", "ops i8", 19.2e15, "19.2 PF INT8, d-matrix.ai/product"),
    ("corsair_server", "sram bytes", 64 * 256e6, "8 cards of 8 x 256 MB"),
    ("corsair_server", "sram rate", 1.2e15, "1.2 PB/s, d-matrix.ai/product"),
    ("corsair_server", "dram bytes", 2048e9, "8 cards of 256 GB"),
    ("corsair_server", "dram rate", 3.2e12, "8 cards of 400 GB/s"),
    ("blackhole_p150", "ops bf16", 130 * 1.382e12, "5.53 Tflop/s a phase and tile, GEMM_FLOPS.md"),
    ("blackhole_p150", "dram rate", 512e9, "tenstorrent.com"),
    ("wormhole_n150", "tiles", 72, "tt-isa-documentation 3930471"),
    ("wormhole_n150", "ops bf16", 72 * 1.024e12, "tile peak of 4 phases, tt-isa-documentation"),
    ("wormhole_n150", "ops i8", 72 * 1.024e12, "tile peak of 4 phases, tt-isa-documentation"),
    ("wormhole_n150", "sram bytes", 72 * 1464 * 1024, "1464 KiB a tile, tt-isa-documentation"),
    ("wormhole_n150", "sram rate", 72 * 16 * 16 * 1e9, "16 banks of 128 bit, tt-isa-documentation"),
    ("wormhole_n150", "dram bytes", 12e9, "tt-isa-documentation 3930471"),
    ("wormhole_n150", "dram rate", 288e9, "tt-isa-documentation 3930471"),
    ("wormhole_n150", "usable dram rate", 265.5e9, "measured, tt-isa-documentation 3930471"),
    ("gemmini", "ops i8 a cycle", 2 * 256, "ucb-bar/gemmini 8c3f992, Configs.scala"),
    ("gemmini", "sram bytes", 256 * 1024, "ucb-bar/gemmini 8c3f992, Configs.scala"),
    ("gemmini", "sram bytes a cycle", 4 * 128 / 8, "4 banks of 128-bit rows, Configs.scala"),
]


def figure(preset: str, what: str) -> float:
    target = load_target(preset)
    hertz = target.clock_ghz * 1e9
    match what.split():
        case ["ops", dtype]:
            return target.peak_ops_per_s(DType(dtype))
        case ["ops", dtype, "a", "cycle"]:
            return target.peak_ops_per_s(DType(dtype)) / hertz
        case ["sram", "bytes", "a", "cycle"]:
            return target.tiles * target.tile.sram.bytes_per_cycle
    return {
        "tiles": target.tiles,
        "sram bytes": target.sram_bytes,
        "sram rate": target.sram_bytes_per_s,
        "dram bytes": target.dram.size_bytes,
        "dram rate": target.dram.ports * target.dram.port_bytes_per_cycle * hertz,
        "usable dram rate": target.dram_bytes_per_cycle * hertz,
    }[what]


@pytest.mark.parametrize(
    ("preset", "what", "published", "source"),
    PUBLISHED,
    ids=[f"{p}-{w}" for p, w, _, _ in PUBLISHED],
)
def test_preset_reproduces_published_figure(
    preset: str, what: str, published: float, source: str
) -> None:
    assert figure(preset, what) == pytest.approx(published, rel=0.01), source


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_named_like_their_files(name: str) -> None:
    assert load_target(name).name == name


@pytest.mark.parametrize("name", PRESETS)
def test_peaks_in_the_file_match_the_matrix_unit(name: str) -> None:
    target = load_target(name)
    for label, peak in target.published_peaks.items():
        if peak.dtype is not None:
            ours = target.peak_ops_per_s(peak.dtype)
            assert ours == pytest.approx(peak.ops_per_s, rel=0.01), label


@pytest.mark.parametrize("name", ["blackhole_p150", "corsair", "corsair_server", "wormhole_n150"])
def test_chips_state_a_peak_that_is_checked(name: str) -> None:
    assert any(peak.dtype is not None for peak in load_target(name).published_peaks.values())


@pytest.mark.parametrize("name", PRESETS)
def test_every_figure_has_evidence_and_a_row_or_section(name: str) -> None:
    target = load_target(name)
    paths = [path for path, _ in figures(target)]
    assert len(paths) > 40
    used = {evidence_path(target, path) for path in paths}
    assert None not in used
    assert used == set(target.evidence), "an entry of evidence covers no figure"


@pytest.mark.parametrize("name", PRESETS)
def test_logical_mesh_covers_all_tiles_in_order(name: str) -> None:
    target = load_target(name)
    mesh = logical_mesh(target)
    assert mesh.rank <= 3
    assert mesh.tiles == target.tiles
    assert logical_tile_ids(target, mesh) == tuple(range(target.tiles))


def test_unpublished_corsair_figures_are_marked_as_ours() -> None:
    evidence = load_target("corsair").evidence
    for key in ("interconnects.core", "tile.vector", "tile.dma", "tile.matrix.cycles_per_row"):
        assert evidence[key].basis is Basis.ASSUMED
    assert evidence["tile.matrix.cycles_per_row.i8"].basis is Basis.DERIVED


def test_description_says_what_a_reader_looks_for() -> None:
    rows = {
        label: (value, evidence)
        for label, value, evidence in describe_target(load_target("corsair"))
    }
    assert rows["tiles"][0] == "2048"
    assert rows["peak i8"][0] == "2.4 Pop/s"
    assert rows["SRAM bandwidth"][0] == "150 TB/s"
    assert rows["DRAM bandwidth"][1].startswith("derived: 400 GB/s")
    assert all(label and value for label, (value, _) in rows.items())
