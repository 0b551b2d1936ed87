"""What `tilewright targets` does; it imports nothing of the compiler, which would take longer."""

from __future__ import annotations

from rich.console import Console

from tilewright.hwmodel.describe import describe_target
from tilewright.hwmodel.load import load_target, target_names
from tilewright.terminal import WIDE_COLUMNS, byte_text, print_facts, print_table, print_text


def report_targets(name: str | None, console: Console) -> None:
    """List targets, or describe one."""
    if name is not None:
        rows = describe_target(load_target(name))
        wide = console.width >= WIDE_COLUMNS
        if wide:
            print_table(console, f"target {name}", ("figure", "value", "evidence"), rows, left=3)
            return
        facts = [(what, f"{value}  [{why}]" if why else value) for what, value, why in rows]
        print_facts(console, f"target {name}, with evidence", facts)
        return
    rows_all = [_target_row(preset) for preset in target_names()]
    header = ("name", "what it is", "tiles", "SRAM", "DRAM", "clock")
    print_table(console, "targets", header, rows_all, left=2)
    print_text(
        console,
        "\nAlso mesh_RxC, a plain mesh of R x C tiles (as mesh_4x8), and any YAML file.\n"
        "'tilewright targets NAME' shows all figures with their evidence.",
    )


def _target_row(name: str) -> tuple[str, ...]:
    target = load_target(name)
    return (
        name,
        target.description,
        f"{target.tiles:,}",
        byte_text(target.sram_bytes),
        byte_text(target.dram.size_bytes),
        f"{target.clock_ghz:g} GHz",
    )
