"""Target files are read strictly, and every mistake is named with its place."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import yaml

from tilewright.dtypes import DType
from tilewright.errors import TargetError
from tilewright.hwmodel.family import PARAMETERS, mesh_target
from tilewright.hwmodel.load import MAX_FILE_BYTES, load_target, parse_target
from tilewright.hwmodel.target import Topology

TOY = resources.files("tilewright.hwmodel").joinpath("presets", "toy.yaml").read_text("utf-8")

# (what the toy file says, what it is changed to, words that the error must hold)
MISTAKES = [
    ("clock_ghz: 1.0", "clock_ghz: '1.0'", "clock_ghz: found '1.0', expected number"),
    (
        "clock_ghz: 1.0",
        "clock_ghz: 1e9",
        "clock_ghz: found '1e9', expected number; write a plain number",
    ),
    ("clock_ghz: 1.0", "clock_ghz: 0", "clock_ghz: found 0, expected greater than 0"),
    ("clock_ghz: 1.0", "clock_ghz: .inf", "clock_ghz: found inf, expected a finite number"),
    ("clock_ghz: 1.0", "clock_ghz: .nan", "clock_ghz: found nan, expected a finite number"),
    ("clock_ghz: 1.0", "clock_ghz: 1000.0", "clock_ghz: found 1000.0, expected at most 100"),
    ("clock_ghz: 1.0", "clock_ghz: 1.0\nclock_ghz: 1.0", "line 6: found the key 'clock_ghz' twice"),
    ("clock_ghz: 1.0", "clock_ghz: 1.0\nclok: 1.0", "clok: found an unknown key"),
    ("clock_ghz: 1.0\n", "", "clock_ghz: found nothing, expected a value"),
    ("clock_ghz: 1.0", "4: 1.0", "line 5: found the key 4, expected a text"),
    ("clock_ghz: 1.0", "clock_ghz: [1.0", "line 6"),
    ("schema_version: 1", "schema_version: 2", "schema_version: found 2, expected 1"),
    ("name: toy", "name: 2020-01-01", "object of type date"),
    ("name: toy", "name: !!python/object:os.system x", "line 3"),
    ("name: toy", "name: &a toy", "found nothing"),
    ("name: toy", "name: ' '", "name: found an empty text"),
    ("axes:\n  - {name: row", "axes:\n  - {name: r o w", "axes: found the name 'r o w'"),
    (
        "{name: column, size: 4}",
        "{name: row, size: 4}",
        "axes: found names row, row, expected different",
    ),
    ("{name: row, size: 4}", "{name: row, size: 4.0}", "axes.0.size: found 4.0, expected integer"),
    (
        "{name: row, size: 4}",
        "{name: row, size: true}",
        "axes.0.size: found True, expected integer",
    ),
    (
        "{name: row, size: 4}",
        "{name: row, size: 0}",
        "axes.0.size: found 0, expected greater than 0",
    ),
    ("{name: row, size: 4}", "{name: row, size: 300000}", "axes: found 1200000 tiles"),
    ("port_bytes_per_cycle: 32", "port_bytes_per_cycle: 0", "interconnects.0.port_bytes_per_cycle"),
    (
        "port_bytes_per_cycle: 32",
        "port_bytes_per_cycle: 2.0e+9",
        "divide bytes per second by the clock",
    ),
    (
        ", link_bytes_per_cycle: 32",
        "",
        "interconnects.row-column.link_bytes_per_cycle: found nothing",
    ),
    ("topology: mesh", "topology: ring", "interconnects.0.topology: found 'ring'"),
    (
        "logical_axes:\n",
        "router: {flit_bytes: 64, packet_bytes: 512, lane_bytes: 63, credit_cycles: 1}\nlogical_axes:\n",
        "router.lane_bytes: found 63, expected at least flit_bytes, 64",
    ),
    ("topology: mesh", "topology: crossbar", "a crossbar has no links"),
    ("axes: [row, column]", "axes: [column, row]", "every axis once, in the order row, column"),
    ("axes: [row, column]", "axes: [row]", "every axis once, in the order row, column"),
    ("  - {name: x, axes: [column]}\n", "", "logical_axes: found groups of row"),
    ("axes: [row]}", "axes: [column]}", "logical_axes: found groups of column, column"),
    ("{i8: 16, u8", "{int8: 16, u8", "tile.matrix.columns.int8: found 'int8'"),
    ("{i8: 1, u8: 1", "{u8: 1", "tile.matrix.cycles_per_row: found bf16"),
    ("{i8: 0.25, u8", "{u8", "energy.mac_pj: found bf16"),
    ("rows: 16", "rows: -16", "tile.matrix.rows: found -16"),
    ("weight_slots: 2", "weight_slots: 1", "because overlap_weight_load is true"),
    ("exp: 4", "exq: 4", "tile.vector.function_cycles.exq: found an unknown function"),
    (
        "burst_bytes: 64",
        "burst_bytes: 48",
        "tile.dma.burst_bytes: found 48, expected a power of two",
    ),
    ("alignment_bytes: 64", "alignment_bytes: 96", "tile.sram.alignment_bytes: found 96"),
    ("size_bytes: 262144", "size_bytes: 262145", "expected a multiple of alignment_bytes, 64"),
    ("banks: 8,", "banks: 7, bank_layout: blocks,", "tile.sram.banks: found 7"),
    ("banks: 8,", "bank_layout: striped, banks: 8,", "tile.sram.bank_layout: found 'striped'"),
    ("size_bytes: 262144", "size_bytes: 9999999999999999999999", "tile.sram.size_bytes"),
    ("{semaphores: 64", "{semaphores: 99999999", "tile.control.semaphores: found 99999999"),
    ("efficiency: 0.9", "efficiency: 1.5", "dram.efficiency: found 1.5"),
    ("attach_axis: null", "attach_axis: row", "expected the last axis of an interconnect: column"),
    (
        "attach_axis: null",
        "attach_axis: column",
        "dram.ports: found 4, expected a multiple of the 16",
    ),
    ("  host: {basis", "  hosts: {basis", "host.bytes_per_cycle: found no evidence"),
    (
        "evidence:\n",
        "evidence:\n  dram.prots: {basis: assumed, source: a}\n",
        "evidence.dram.prots",
    ),
    ("source: a round figure", "source: ''", "evidence.clock_ghz.source: found an empty text"),
    ("basis: assumed", "basis: guessed", "evidence.clock_ghz.basis: found 'guessed'"),
]


@pytest.mark.parametrize(
    ("before", "after", "words"), MISTAKES, ids=[str(n) for n in range(len(MISTAKES))]
)
def test_mistake_is_refused_with_its_place(before: str, after: str, words: str) -> None:
    assert before in TOY
    if words == "found nothing":  # an anchor alone is harmless; the alias that uses it is not
        after, words = "name: &a toy\nextra: *a", "line 4: found an alias"
    with pytest.raises(TargetError) as caught:
        parse_target(TOY.replace(before, after, 1), "bad.yaml")
    message = str(caught.value)
    assert message.startswith("target bad.yaml: ")
    assert words in message
    assert "found" in message or "line" in message
    assert ";" in message, "no lever"
    assert not message.endswith(".")


@pytest.mark.parametrize(
    "text", ["", "null", "- 1", "3", "[" * 5000, "\0", "a: b: c", "{a: !!set {b}}"]
)
def test_text_that_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(TargetError, match=r"^target bad\.yaml: "):
        parse_target(text, "bad.yaml")


def test_key_order_does_not_matter() -> None:
    data = yaml.safe_load(TOY)
    turned = yaml.safe_dump(dict(reversed(data.items())), sort_keys=False)
    assert parse_target(turned, "turned.yaml") == parse_target(TOY, "toy.yaml")


def test_file_is_loaded_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TOY.replace("name: toy", "name: mine"), encoding="utf-8")
    assert load_target(str(path)).name == "mine"


def test_wrong_file_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TargetError, match="UTF-8"):
        load_target(str(broken))
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b" " * (MAX_FILE_BYTES + 1))
    with pytest.raises(TargetError, match="more than"):
        load_target(str(huge))
    with pytest.raises(TargetError, match="found no preset and no file"):
        load_target(str(tmp_path / "absent.yaml"))


def test_mesh_family_by_name() -> None:
    target = load_target("mesh_3x5")
    assert [axis.size for axis in target.axes] == [3, 5]
    assert target.interconnects[0].topology is Topology.MESH
    assert target == mesh_target(3, 5)


def test_mesh_family_parameters_take_effect() -> None:
    target = load_target("mesh_2x2?sram_kib=64&array=8&clock_ghz=0.5&dram_ports=2")
    assert target.tile.sram.size_bytes == 64 * 1024
    assert target.peak_ops_per_s(DType.I8) == 2 * 4 * 8 * 8 * 0.5e9
    assert target.dram.ports == 2
    assert set(PARAMETERS) < set(mesh_target.__kwdefaults__)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mesh_0x4", "found 0, expected greater than 0"),
        ("mesh_4x4?foo=1", "found the parameter 'foo'"),
        ("mesh_4x4?array=a", "found 'a', expected a whole number"),
        ("mesh_4x4?array=8&array=8", "found twice"),
        ("mesh_4x4?clock_ghz=nan", "found nan"),
        ("mesh_4x4?dram_ports=0", "found 0"),
        ("mesh_4000x4000", "found 16000000 tiles"),
    ],
)
def test_wrong_mesh_is_refused(name: str, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        load_target(name)
