"""What goes wrong ends with one clear message on stderr, an exit code, and nothing written."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from tilewright import commands
from tilewright.errors import CompileError

COMPILE = ("--target", "toy", "--dim", "batch=2")


def model_of(
    nodes: list[onnx.NodeProto], initializers: list[TensorProto] | None = None
) -> ModelProto:
    """Return a model from x [4, 4] to y."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "broken", [x], [y], initializers or [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def truncated(path: Path) -> None:
    """Write the first half of a model."""
    weight = helper.make_tensor(
        "w", TensorProto.FLOAT, [4, 4], np.ones(16, np.float32).tobytes(), raw=True
    )
    data = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], [weight]).SerializeToString()
    path.write_bytes(data[: len(data) // 2])


def wrong_arity(path: Path) -> None:
    """Write a MatMul with one input."""
    onnx.save(model_of([helper.make_node("MatMul", ["x"], ["y"], name="lonely")]), path)


def outside(path: Path) -> None:
    """Write a weight that lies outside the model's folder."""
    (path.parent.parent / "secret.bin").write_bytes(bytes(64))
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../secret.bin")
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], [weight])
    path.write_bytes(model.SerializeToString())


def huge_claim(path: Path) -> None:
    """Write a weight of 10 GB in a file of less than a kilobyte."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 625_000_000])
    weight.raw_data = bytes(16)
    path.write_bytes(
        model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], [weight]).SerializeToString()
    )
    assert path.stat().st_size < 1000


def huge_constant(path: Path) -> None:
    """Write a ConstantOfShape of 10 GB."""
    shape = helper.make_tensor("s", TensorProto.INT64, [2], [4, 625_000_000])
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    onnx.save(model_of(nodes, [shape]), path)


def text(path: Path) -> None:
    """Write something that is no model."""
    path.write_text("hello")


def folder(path: Path) -> None:
    """Make a folder where a file should be."""
    path.mkdir()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (truncated, r"model file 'm.onnx'.*not a complete ONNX model; export it again"),
        (wrong_arity, r"MatMul 'lonely'.* 1 input"),
        (outside, r"tensor 'w': external data path '../secret.bin' leaves the model's folder"),
        (huge_claim, r"tensor 'w': shape .* needs 10_000_000_000 bytes, 16 are stored"),
        (huge_constant, r"10_000_000_000"),
        (text, r"model file 'm.onnx'.*not a complete ONNX model"),
        (folder, r"model file 'm.onnx': cannot be read: .*; check the path"),
        (lambda path: None, r"model file 'm.onnx': cannot be read: No such file"),
    ],
    ids=["truncated", "arity", "outside", "claim", "constant", "text", "folder", "missing"],
)
def test_bad_models(
    tilewright, tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "m.onnx")
    ran = tilewright("compile", tmp_path / "in" / "m.onnx", "-t", "toy", "-o", tmp_path / "out")
    check_error(ran, message)
    assert not (tmp_path / "out").exists()


def check_error(ran, message: str, code: int = 1) -> None:
    """Check that a command failed with one line that matches, and without a traceback."""
    assert ran.code == code, ran
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1, ran.err
    assert re.search(message, ran.err), ran.err
    assert "Traceback" not in ran.out


def test_unbound_dimension_says_how_to_bind_it(tilewright, cnn: Path) -> None:
    check_error(tilewright("compile", cnn, "-t", "toy"), r"'batch'.*--dim batch=")


TOY = resources.files("tilewright.hwmodel").joinpath("presets", "toy.yaml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("port_bytes_per_cycle: 16", "port_bytes_per_cycle: 0", r"dram.port_bytes_per_cycle.* 0"),
        ("clock_ghz: 1.0", "clock_gz: 1.0", r"clock_g"),
        ("name: toy\n", "name: toy\nname: toy\n", r"line 4.*'name' twice"),
        ("clock_ghz: 1.0", "clock_ghz: [", r"line \d+"),
        ("clock_ghz: 1.0", "clock_ghz: -1.0", r"clock_ghz.*-1.0.*greater than 0"),
        (TOY, "", r"top level"),
    ],
)
def test_bad_targets(
    tilewright, cnn: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "t.yaml"
    assert old in TOY
    path.write_text(TOY.replace(old, new))
    out = tmp_path / "out"
    ran = tilewright("compile", cnn, "--dim", "batch=1", "--target", path, "-o", out)
    check_error(ran, rf"target .*t\.yaml.*{message}")
    assert not out.exists()
    check_error(tilewright("targets", path), message)


def test_unknown_target_lists_the_known(tilewright, cnn: Path) -> None:
    check_error(
        tilewright("compile", cnn, "--target", "corsar"), r"'corsar'.*corsair.*toy.*mesh_RxC"
    )


def test_weights_that_fit_nowhere(tilewright, cnn: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(TOY.replace("size_bytes: 17179869184", "size_bytes: 4096"))
    ran = tilewright("compile", cnn, "--dim", "batch=2", "--target", path, "-o", tmp_path / "out")
    check_error(ran, r"need 7_\d\d\d bytes of DRAM, the target has 4_096, 3_\d\d\d short; choose")
    assert not (tmp_path / "out").exists()


def test_scratchpad_that_holds_no_op(tilewright, tmp_path: Path) -> None:
    """Without the rule that takes a softmax apart, a row must fit the scratchpad."""
    row = helper.make_node("Softmax", ["x"], ["y"], axis=-1)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1003])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1003])
    graph = helper.make_graph([row], "wide", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "wide.onnx")
    options = (
        "--target",
        "mesh_1x1?sram_kib=1",
        "--without-rule",
        "algebra",
        "-o",
        tmp_path / "out",
    )
    check_error(
        tilewright("compile", tmp_path / "wide.onnx", *options),
        r"1024 bytes of scratchpad.*more SRAM",
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dim", "batch"), r"--dim 'batch': expected name=value"),
        (("--dim", "batch=0"), r"--dim 'batch=0'.*positive"),
        (("--dim", "=3"), r"--dim '=3'"),
        (("--dim", "batch=²"), r"--dim 'batch=²'"),
        (("--dim", "batch=" + "9" * 5000), r"--dim 'batch=9"),
        (("--dim", "batch=1", "--dim", "batch=2"), r"'batch' is given as 1 and 2"),
        (("--dim", "batch=1", "--dim", "bach=2"), r"bach"),
        ((*COMPILE, "--emit", "plan"), r"--emit needs a folder.*-o DIR"),
        ((*COMPILE, "--inputs", "x.npz"), r"add --verify"),
        ((*COMPILE, "--verify", "--stop-after", "extract"), r"--stop-after extract makes none"),
        ((*COMPILE, "--check-bound", "--stop-after", "roll"), r"--stop-after roll makes none"),
        ((*COMPILE, "--shapes-only"), r"--shapes-only.*add --stop-after extract"),
        ((*COMPILE, "--verify", "--tolerance", "nan"), r"--tolerance is nan"),
        ((*COMPILE, "--without-rule", "fusion.nothing"), r"rule 'fusion.nothing' is unknown"),
        (
            (*COMPILE, "--verify", "--inputs", "absent.npz"),
            r"'absent.npz': cannot be read: No such",
        ),
    ],
)
def test_bad_options(tilewright, cnn: Path, options: tuple[str, ...], message: str) -> None:
    check_error(tilewright("compile", cnn, *options), message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("compile",), r"missing argument 'MODEL'; see '.* compile --help'"),
        (
            ("compile", "m.onnx", "--objective", "beauty"),
            "'beauty' is unknown; choose one of latency",
        ),
        (("compile", "m.onnx", "--emit", "gold"), r"'gold' is not one of 'graph'"),
        (("compile", "m.onnx", "--seed", "-1"), r"'--seed'"),
        (("translate",), r"no such command 'translate'"),
        (("run", "a.twp", "--what"), r"no such option: --what"),
    ],
)
def test_wrong_usage(tilewright, options: tuple[str, ...], message: str) -> None:
    check_error(tilewright(*options), f"(?i){message}", code=2)


def test_emit_beyond_the_last_stage(tilewright, cnn: Path, tmp_path: Path) -> None:
    stop = ("--stop-after", "roll", "--emit", "bin", "-o", tmp_path / "out")
    check_error(tilewright("compile", cnn, *COMPILE, *stop), r"--emit bin needs stage lower")
    assert not (tmp_path / "out").exists()


def test_output_that_is_a_file(tilewright, cnn: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        ran = tilewright("compile", cnn, *COMPILE, "-o", path)
        check_error(ran, r"-o '.*file")
        assert "reading" not in ran.out, "found before the work begins"
    assert (tmp_path / "file").read_text() == "precious"


def test_disk_that_is_full(
    tilewright, cnn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file stays whole, and no part of the new one is left."""

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    old = tmp_path / "cnn.plan.txt"
    old.write_text("old")
    monkeypatch.setattr(os, "replace", full)
    ran = tilewright("compile", cnn, *COMPILE, "-o", tmp_path, "--no-simulate")
    check_error(ran, r"cannot be written: No space left on device; choose another place")
    assert [path.name for path in tmp_path.iterdir()] == ["cnn.plan.txt"]
    assert old.read_text() == "old"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, r"'image' is missing; add an array float32\[2, 3, 8, 8\]"),
        ({"picture": np.zeros(3)}, r"found 'picture', the model takes 'image'"),
        (
            {"image": np.zeros((1, 3, 8, 8), np.float32)},
            r"'image' is float32\[1, 3, 8, 8\], the model",
        ),
        ({"image": np.zeros((2, 3, 8, 8))}, r"'image' is float64.*takes float32"),
        ({"image": np.array([{}], dtype=object)}, r"Object arrays cannot be loaded"),
    ],
)
def test_wrong_input_files(
    tilewright,
    cnn: Path,
    program_file: Path,
    tmp_path: Path,
    arrays: dict[str, np.ndarray],
    message: str,
) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, **arrays)
    check_error(
        tilewright("run", program_file, "--inputs", path, "-o", tmp_path / "y.npz"), message
    )
    assert not (tmp_path / "y.npz").exists()
    check_error(tilewright("compile", cnn, *COMPILE, "--verify", "--inputs", path), message)


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04 cut off"])
def test_input_files_that_are_none(
    tilewright, program_file: Path, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    check_error(
        tilewright("run", program_file, "--inputs", path), r"found no .npz file .*numpy.savez"
    )
    np.save(path.with_suffix(".npy"), np.zeros(3))
    ran = tilewright("run", program_file, "--inputs", path.with_suffix(".npy"))
    check_error(ran, r"holds one array without a name")


@pytest.mark.parametrize("command", ["run", "simulate"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], r"found checksum .*the file is damaged"),
        (lambda data: data[:10], r"found 10 bytes"),
        (lambda data: b"", r"found 0 bytes"),
        (lambda data: b"x" + data[1:], r"this is no program file"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), r"the file is damaged"),
    ],
    ids=["half", "head", "empty", "magic", "bit"],
)
def test_broken_program_files(
    tilewright,
    program_file: Path,
    tmp_path: Path,
    command: str,
    damage: Callable[[bytes], bytes],
    message: str,
) -> None:
    path = tmp_path / "broken.twp"
    path.write_bytes(damage(program_file.read_bytes()))
    check_error(tilewright(command, path), rf"program file '.*broken.twp': .*{message}")


@pytest.mark.parametrize("command", ["run", "simulate"])
def test_program_files_that_cannot_be_read(tilewright, tmp_path: Path, command: str) -> None:
    check_error(tilewright(command, tmp_path / "absent.twp"), r"absent.twp': No such file")
    check_error(tilewright(command, tmp_path), r"Is a directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_model(tilewright, cnn: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(cnn.read_bytes())
    path.chmod(0)
    check_error(tilewright("compile", path, *COMPILE), r"cannot be read: Permission denied")


def test_outputs_of_run_need_a_folder(tilewright, program_file: Path, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent" / "y.npz"):
        check_error(
            tilewright("run", program_file, "-o", path), r"expected a file in an existing folder"
        )
        check_error(tilewright("simulate", program_file, "--trace", path), r"in an existing folder")


def test_interrupt(tilewright, cnn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.api, "compile", interrupted)
    ran = tilewright("compile", cnn, *COMPILE, "-o", tmp_path / "out")
    assert ran.code == 130
    assert ran.err in ("", "error: interrupted\n")
    assert not (tmp_path / "out").exists()


def test_error_texts_cannot_steer_the_terminal(
    tilewright, cnn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise CompileError("tensor '\x1b[2J[red]w\n\x07' is odd")

    monkeypatch.setattr(commands.api, "compile", failing)
    ran = tilewright("compile", cnn, *COMPILE)
    assert ran.err == "error: tensor '\\x1b[2J[red]w\\n\\x07' is odd\n"


def test_names_in_results_cannot_steer_the_terminal(tilewright, tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x\x1b[2J", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("[bold]y\x1b]0;owned\x07", TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("Relu", [x.name], [y.name])], "g\x1b[1m", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")
    for stop in ((), ("--stop-after", "frontend"), ("--stop-after", "saturate")):
        ran = tilewright("compile", tmp_path / "m.onnx", "--target", "toy", *stop)
        assert ran.code == 0, ran.err
        assert "\x1b" not in ran.out
        assert "\x07" not in ran.out
    assert "[bold]y" in ran.out
