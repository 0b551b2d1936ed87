"""Read hardware descriptions: presets by name, files by path, the plain mesh family by parameters."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tilewright.errors import TargetError
from tilewright.hwmodel.check import check_target, fail
from tilewright.hwmodel.family import PARAMETERS, mesh_target
from tilewright.hwmodel.target import Target, interned

MAX_FILE_BYTES = 1_000_000

_MESH = re.compile(r"mesh_(\d{1,7})x(\d{1,7})(?:\?(.*))?")
_SHORT = 60


def target_names() -> tuple[str, ...]:
    """Return the names of the presets, sorted; `mesh_RxC` works besides for any R and C."""
    files = resources.files("tilewright.hwmodel").joinpath("presets").iterdir()
    return tuple(sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml")))


def load_target(name_or_path: str) -> Target:
    """Return a checked target.

    Args:
        name_or_path: A preset's name; `mesh_RxC` or `mesh_RxC?key=value&key=value` for a plain mesh
            of R rows and C columns (the keys are those of `mesh_target`); else the path of a YAML file.

    Raises:
        TargetError: There is no such target, or it is wrong.
    """
    if name_or_path in target_names():
        return _preset(name_or_path)
    if match := _MESH.fullmatch(name_or_path):
        return _load_mesh(name_or_path, match)
    path = Path(name_or_path)
    if not path.is_file():
        raise TargetError(
            f"target '{name_or_path}': found no preset and no file of this name, expected one of "
            f"{', '.join(target_names())}, mesh_RxC (as mesh_4x8) or the path of a YAML file; "
            "see 'tilewright targets'"
        )
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise TargetError(
                f"target {path}: found more than {MAX_FILE_BYTES} bytes, expected a hardware "
                "description of a few kilobytes; give another file"
            )
        return parse_target(data.decode("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(
            f"target {path}: found a file that cannot be read ({error}), expected UTF-8 text; "
            "check the path and its permissions"
        ) from error


@lru_cache(maxsize=64)
def _preset(name: str) -> Target:
    preset = resources.files("tilewright.hwmodel").joinpath("presets", f"{name}.yaml")
    return parse_target(preset.read_text(encoding="utf-8"), f"'{name}'")


def parse_target(text: str, where: str) -> Target:
    """Return the target that a YAML text describes.

    Duplicate keys, unknown keys, values of another type (no text for a number), aliases and
    figures without evidence are refused.

    Args:
        text: The YAML text.
        where: What error messages call it, usually the file's name.

    Raises:
        TargetError: Names the file, the key path, what was found and what was expected.
    """
    data = _read_yaml(text, where)
    if not isinstance(data, dict):
        expected = "a mapping with name, axes, tile and the rest"
        raise fail(where, "top level", _short(data), expected, "start from a preset")
    try:
        # JSON mode is the only strict mode in which a list may stand for a tuple and a text for an enum.
        target = Target.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise _from_pydantic(error, where) from error
    check_target(target, where)
    return interned(target)


def _load_mesh(name: str, match: re.Match[str]) -> Target:
    options: dict[str, float] = {}
    for part in (match[3] or "").split("&"):
        if not part:
            continue
        key, _, value = part.partition("=")
        if key not in PARAMETERS or key in options:
            found = "twice" if key in options else f"the parameter '{key}'"
            raise fail(
                f"'{name}'", key, found, f"each of {', '.join(PARAMETERS)} at most once", "drop it"
            )
        try:
            options[key] = PARAMETERS[key](value)
        except ValueError as error:
            kind = "a whole number" if PARAMETERS[key] is int else "a number"
            raise fail(f"'{name}'", key, f"'{value}'", kind, "correct the value") from error
    try:
        target = mesh_target(int(match[1]), int(match[2]), name=name, **options)  # type: ignore[arg-type]
    except ValidationError as error:
        raise _from_pydantic(error, f"'{name}'") from error
    return target


class StrictLoader(yaml.SafeLoader):
    """Safe YAML without duplicate keys, aliases and keys that are no text."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse an alias before it is expanded."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem="found an alias, expected the value", problem_mark=mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping whose keys are texts, each given once."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"found the key {key!r}, expected a text"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            if key in seen:
                problem = f"found the key '{key}' twice, expected it once"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read_yaml(text: str, where: str) -> object:
    try:
        data = yaml.load(text, Loader=StrictLoader)
        json.dumps(data)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}" if mark else "text"
        problem = error.problem or error.context or "a syntax error"
        raise TargetError(f"target {where}: {line}: {problem}; correct the YAML text") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        found = str(error).splitlines()[0] if str(error) else "an error"
        raise fail(where, "text", found, "plain YAML", "correct the YAML text") from error
    except TypeError as error:  # dates, byte strings and sets have no JSON form
        expected = "texts, numbers, true, false, lists and mappings"
        raise fail(where, "text", str(error).lower(), expected, "quote the value") from error
    return data


def _from_pydantic(error: ValidationError, where: str) -> TargetError:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"] if part != "[key]") or "top level"
    kind, message = first["type"], first["msg"]
    if kind == "extra_forbidden":
        return fail(
            where, key, "an unknown key", "only the keys of the schema", "correct or drop it"
        )
    if kind == "missing":
        return fail(where, key, "nothing", "a value", "add the key")
    expected = message.removeprefix("Input should be ").removeprefix("a valid ")
    found, lever = first["input"], "correct the value"
    if isinstance(found, str) and kind in ("int_type", "float_type"):
        lever = "write a plain number, powers of ten as 1.0e+9"
    return fail(where, key, _short(found), expected.lower(), lever)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"
