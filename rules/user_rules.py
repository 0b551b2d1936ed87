"""Rules from outside of this package: files given by path, and packages that announce an entry point.

A file of rules is executed as a module; every rule set in its global names counts. Nothing that it
registers stays in the sets of this package, so that a file can be loaded twice and two compilations
do not see each other's rules.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from tilewright.errors import RuleError
from tilewright.rules.collectives.ruleset import CollectiveRule, CollectiveRules
from tilewright.rules.memory.ruleset import MemoryRule, MemoryRules
from tilewright.rules.options import AnyRule, SaturationOptions
from tilewright.rules.partition.ruleset import PartitionRule, PartitionRules
from tilewright.rules.pipeline.ruleset import PipelineRule, PipelineRules
from tilewright.rules.registry import Rule, RuleSet
from tilewright.rules.tiling.ruleset import TilingRule, TilingRules

ENTRY_POINTS = "tilewright.rules"
"""Group of entry points; each names a module that holds rule sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRules:
    """Rules from outside, by what they rewrite, in the order in which they were found."""

    rewrites: tuple[Rule, ...] = ()
    partition: tuple[PartitionRule, ...] = ()
    tiling: tuple[TilingRule, ...] = ()
    memory: tuple[MemoryRule, ...] = ()
    collective: tuple[CollectiveRule, ...] = ()
    pipeline: tuple[PipelineRule, ...] = ()
    sources: tuple[str, ...] = ()
    """The files and entry points that they came from."""

    @property
    def rules(self) -> tuple[AnyRule, ...]:
        """All of them."""
        return (
            *self.rewrites,
            *self.partition,
            *self.tiling,
            *self.memory,
            *self.collective,
            *self.pipeline,
        )

    def without(self, names: frozenset[str]) -> UserRules:
        """Return the rules but those of these names."""

        def kept[R: AnyRule](rules: tuple[R, ...]) -> tuple[R, ...]:
            return tuple(rule for rule in rules if rule.name not in names)

        return replace(
            self,
            rewrites=kept(self.rewrites),
            partition=kept(self.partition),
            tiling=kept(self.tiling),
            memory=kept(self.memory),
            collective=kept(self.collective),
            pipeline=kept(self.pipeline),
        )


def load_rule_files(paths: Iterable[Path]) -> UserRules:
    """Return the rules of files, executed in the order given.

    Raises:
        RuleError: A file is missing, has an error (with its line), holds no rule, or takes a name that
            another rule has.
    """
    taken = _builtin_names()  # also closes the sets of this package
    return _united([_rules_of(_executed(path), str(path)) for path in dict.fromkeys(paths)], taken)


def installed_sources() -> tuple[EntryPoint, ...]:
    """Return the entry points that installed packages announce, by name."""
    return tuple(sorted(entry_points(group=ENTRY_POINTS), key=lambda p: (p.name, p.value)))


def load_entry_point(point: EntryPoint) -> UserRules:
    """Return the rules of an installed package.

    Raises:
        RuleError: The module cannot be imported, holds no rule or takes a name that another rule has.
    """
    taken = _builtin_names()
    where = described(point)
    try:
        module = point.load()
    except Exception as error:  # whatever a stranger's module raises
        raise RuleError(
            f"{where} cannot be loaded: {type(error).__name__}: {error}; "
            "mend or uninstall the package"
        ) from error
    return _united([_rules_of(module, where)], taken)


def described(point: EntryPoint) -> str:
    """Return what errors call an entry point."""
    return f"entry point '{point.name}' ({point.value})"


def load_entry_points() -> UserRules:
    """Return the rules of installed packages that announce entry points, by name of entry point.

    Raises:
        RuleError: One cannot be loaded, or two rules have one name.
    """
    return united(*map(load_entry_point, installed_sources()))


def united(*parts: UserRules) -> UserRules:
    """Return all rules of several sources.

    Raises:
        RuleError: Two rules have one name.
    """
    return _united(parts, _builtin_names())


def _builtin_names() -> dict[str, str]:
    return {rule.name: "tilewright" for rule in SaturationOptions().everything}


def _united(parts: Sequence[UserRules], taken: dict[str, str]) -> UserRules:
    for part in parts:
        for rule in part.rules:
            source = ", ".join(part.sources)
            if rule.name in taken:
                raise RuleError(
                    f"{rule.where} has the name of a rule of "
                    f"{taken[rule.name]}; rename the function or its rule set"
                )
            taken[rule.name] = source
    return UserRules(
        rewrites=tuple(rule for part in parts for rule in part.rewrites),
        partition=tuple(rule for part in parts for rule in part.partition),
        tiling=tuple(rule for part in parts for rule in part.tiling),
        memory=tuple(rule for part in parts for rule in part.memory),
        collective=tuple(rule for part in parts for rule in part.collective),
        pipeline=tuple(rule for part in parts for rule in part.pipeline),
        sources=tuple(source for part in parts for source in part.sources),
    )


def _executed(path: Path) -> ModuleType:
    """Execute a file as a module that no other module can import by accident."""
    if not path.is_file():
        raise RuleError(f"rule file '{path}' is not there; expected a Python file with rules")
    name = f"tilewright_user_rules_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RuleError(f"rule file '{path}' is no Python file; expected a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # type hints of its functions are looked up there
    try:
        spec.loader.exec_module(module)
    except RuleError as error:
        raise RuleError(_placed(path, error)) from error
    except SyntaxError as error:
        raise RuleError(
            f"{path}:{error.lineno}: syntax error: {error.msg}; mend that line"
        ) from None
    except Exception as error:  # whatever a user's file raises
        raise RuleError(
            f"{path}:{_line_in(path, error)}: {type(error).__name__}: {error}; mend that line"
        ) from error
    finally:
        del sys.modules[name]
    return module


def _line_in(path: Path, error: BaseException) -> int:
    """Return the last line of a file that an error passed through."""
    lines = [
        frame.lineno or 0
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == path.resolve()
    ]
    return lines[-1] if lines else 1


def _placed(path: Path, error: RuleError) -> str:
    """Return an error's text with the file's line in front, unless it says so itself."""
    text = str(error)
    is_placed = text.startswith((f"{path}:", f"{path.resolve()}:"))
    return text if is_placed else f"{path}:{_line_in(path, error)}: {text}"


def _rules_of(module: ModuleType, source: str) -> UserRules:
    """Return the rules of the rule sets among a module's global names."""
    values = list(vars(module).values())

    def sets[S](kind: type[S]) -> list[S]:
        return list(dict.fromkeys(value for value in values if isinstance(value, kind)))

    found = UserRules(
        rewrites=tuple(rule for each in sets(RuleSet) for rule in each.rules),
        partition=tuple(rule for each in sets(PartitionRules) for rule in each.rules),
        tiling=tuple(rule for each in sets(TilingRules) for rule in each.rules),
        memory=tuple(rule for each in sets(MemoryRules) for rule in each.rules),
        collective=tuple(rule for each in sets(CollectiveRules) for rule in each.rules),
        pipeline=tuple(rule for each in sets(PipelineRules) for rule in each.rules),
        sources=(source,),
    )
    if not found.rules:
        raise RuleError(
            f'{source} holds no rule; make a RuleSet("name") there and decorate functions with its '
            "rule(...)"
        )
    return found
