"""Command line of the benchmarks: `python -m benchmarks quality|speed|saturation|...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import iopddl, worker


def parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = top.add_subparsers(dest="command")
    for name, text in (
        ("quality", "deterministic figures against the baseline"),
        ("accuracy", "the cost model's prediction against the timing simulator"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("models", nargs="*", help="only these models")
        command.add_argument("--full", action="store_true", help="all models, not the quick ones")
        command.add_argument("--update", action="store_true", help="rewrite the baseline")
        if name == "accuracy":
            command.add_argument("--write", action="store_true", help="rewrite docs/accuracy.md")
    commands.add_parser("speed", help="CPU seconds and memory against the limits")
    saturation = commands.add_parser("saturation", help="full-size models against the limits")
    saturation.add_argument("models", nargs="*", help="only these models")
    plans = commands.add_parser("plans", help="planning of full-size models against the limits")
    plans.add_argument("models", nargs="*", help="only these models, or growth")
    claim = commands.add_parser("claim", help="Llama 3 8B on eight Corsair cards, as Markdown")
    claim.add_argument("--simulate", action="store_true", help="also simulate the plans")
    simulation = commands.add_parser(
        "simulation", help="timing simulation of full-size models against the limits"
    )
    simulation.add_argument("models", nargs="*", help="only these models")
    showcase = commands.add_parser(
        "showcase", help="denominators commuted past products: what the rules are worth"
    )
    showcase.add_argument("models", nargs="*", help="only these models")
    showcase.add_argument("--target", default="corsair", help="another target")
    gym = commands.add_parser("gym", help="e-graphs of the extraction gym against references")
    gym.add_argument("folder", type=Path, help="sub-folders with e-graphs, and reference.csv")
    gym.add_argument("instances", nargs="*", help="only files whose name contains one of these")
    gym.add_argument("--time-limit", type=float, default=60.0, help="seconds for an instance")
    malloc = commands.add_parser("malloc", help="packing of MiniMalloc's challenging instances")
    malloc.add_argument("path", type=Path, help="the folder of the instances, or one of them")
    malloc.add_argument("--time-limit", type=float, default=60.0, help="seconds for one instance")
    psplib = commands.add_parser("psplib", help="project scheduling against proven optima")
    psplib.add_argument("path", type=Path, help="a folder with SETopt.sm and instances")
    psplib.add_argument("instances", nargs="*", help="only names that contain one of these")
    psplib.add_argument("--list-only", action="store_true", help="do without exact schedules")
    explore = commands.add_parser("explore", help="how fast a planned model answers demands")
    explore.add_argument("--model", default="llama_prefill_32x64", help="another model")
    explore.add_argument("--target", default="toy", help="another target")
    explore.add_argument("--stages", action="store_true", help="ask about the stages of a pipeline")
    contest = commands.add_parser("iopddl", help="the contest on intra-operator parallelism")
    contest.add_argument("path", type=Path, help="a folder of instances, or one instance")
    contest.add_argument("instances", nargs="*", help="only these, such as A G")
    contest.add_argument("--time-limit", type=float, default=300.0, help="wall seconds for each")
    work = commands.add_parser("iopddl-work", help="one instance, as JSON")
    work.add_argument("path", type=Path)
    work.add_argument("seconds", type=float)
    validation = commands.add_parser("validation", help="simulators against published figures")
    validation.add_argument("--packets", type=int, default=16, help="of 8 KiB for each tile")
    validation.add_argument("--placements", type=int, default=4, help="random ones of each row")
    validation.add_argument("--write", action="store_true", help="rewrite docs/validation.md")
    stream = commands.add_parser("stream", help="Stream's mappings against our plans")
    stream.add_argument("names", nargs="*", help="only cases whose name contains all of these")
    stream.add_argument("--python", type=Path, help="interpreter of an environment with stream-dse")
    stream.add_argument("--repeats", type=int, default=3, help="measurements of CPU time")
    stream.add_argument("--write", action="store_true", help="rewrite docs/stream.md")
    peer = commands.add_parser("set", help="SET's cells under its three-term cost")
    peer.add_argument("names", nargs="*", help="only these networks, by SET's name")
    peer.add_argument("--program", type=Path, help="SET's build/stschedule, to search beside")
    peer.add_argument("--write", action="store_true", help="rewrite docs/set.md")
    measure = commands.add_parser("measure", help="one model on one target, as JSON")
    measure.add_argument("model")
    measure.add_argument("target")
    measure.add_argument("--run", action="store_true", help="also run the program")
    measure.add_argument("--simulate", action="store_true", help="also simulate its timing")
    measure.add_argument("--saturate", action="store_true", help="only saturate, without weights")
    measure.add_argument("--plan", action="store_true", help="only plan, without weights")
    measure.add_argument("--time", action="store_true", help="only time, without weights")
    measure.add_argument("--alternatives", action="store_true", help="simulate many plans")
    measure.add_argument("--without", action="append", default=[], help="leave out a rule")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark and return the exit code; without arguments, quality and speed."""
    args = parser().parse_args(arguments)
    if args.command == "measure":
        worker.main(
            args.model,
            args.target,
            run=args.run,
            simulate=args.simulate,
            saturate=args.saturate,
            plan=args.plan,
            timing=args.time,
            alternatives=args.alternatives,
            without=args.without,
        )
        return 0
    if args.command == "gym":
        from benchmarks import gym

        return gym.main(args.folder, args.instances, args.time_limit)
    if args.command == "validation":
        from benchmarks.validation import report

        return report.main(packets=args.packets, count=args.placements, write=args.write)
    if args.command == "stream":
        from benchmarks.stream import report as stream_report

        return stream_report.main(
            python=args.python, names=args.names, repeats=args.repeats, write=args.write
        )
    if args.command == "set":
        from benchmarks.set import report as set_report

        return set_report.main(program=args.program, names=args.names, write=args.write)
    if args.command == "iopddl-work":
        iopddl.work(args.path, args.seconds)
        return 0
    if args.command == "iopddl":
        return iopddl.main(args.path.absolute(), args.instances, args.time_limit)
    # Only now: the measured process must not have imported the compiler before it takes the time.
    from benchmarks import (
        accuracy,
        explore,
        plans,
        quality,
        saturation,
        showcase,
        simulation,
        speed,
    )

    if args.command == "malloc":
        from benchmarks import malloc

        return malloc.main(args.path, args.time_limit)
    if args.command == "psplib":
        from benchmarks import psplib

        return psplib.main(args.path, args.instances, is_exact=not args.list_only)
    if args.command == "speed":
        return speed.main()
    if args.command == "saturation":
        return saturation.main(args.models)
    if args.command == "plans":
        return plans.main(args.models)
    if args.command == "claim":
        from benchmarks import claim

        return claim.main(simulates=args.simulate)
    if args.command == "simulation":
        return simulation.main(args.models)
    if args.command == "showcase":
        return showcase.main(target=args.target, names=args.models)
    if args.command == "explore":
        return explore.main(model=args.model, target=args.target, stages=args.stages)
    if args.command is None:
        return max(quality.main(subset="quick", names=(), update=False), speed.main())
    subset = "full" if args.full else "quick"
    if args.command == "accuracy":
        return accuracy.main(subset=subset, names=args.models, update=args.update, write=args.write)
    return quality.main(subset=subset, names=args.models, update=args.update)


if __name__ == "__main__":
    sys.exit(main())
