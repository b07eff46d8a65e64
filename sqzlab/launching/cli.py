"""`python launch.py STUDY`: compares what should exist with what does, and runs what is missing."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from sqzlab.errors import ConfigError, SqzlabError, UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.console import Console

    from sqzlab.study.study import Study

IMAGENET_DIR = "IMAGENET_DIR"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 all done or submitted, 1 a run failed, 2 bad input, 3 something is lacking, 130 Ctrl-C."""
    arguments = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without plus-minus signs still gets its tables
    try:
        return _launch(arguments)
    except SqzlabError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"{error.filename or arguments.results}: {(error.strerror or str(error)).lower()}", file=sys.stderr)
        return UnavailableError.exit_code
    except KeyboardInterrupt:
        print("stopped; launch again to go on", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(ConfigError.exit_code, f"{message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="launch.py",
        allow_abbrev=False,
        description="Run what is missing of a study. May be repeated at any moment: what is done is never run again.",
        epilog="exit codes: 0 all done or submitted, 1 a run failed, 2 what was written is wrong, "
        "3 data, Slurm or GPU lacking, 130 Ctrl-C",
    )
    parser.add_argument("study", type=Path, nargs="?", help="study file, as in experiments/squeeze_ablation.yaml")
    parser.add_argument(
        "--profile", help="profile of the study file (default: imagenet or laptop, as fits this machine)"
    )
    parser.add_argument("--cluster", choices=("auto", "slurm", "local", "inline"), default="auto", help="where to run")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at a time (default: what cores or GPUs allow)")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--only", action="append", default=[], metavar="KEY=V1,V2", help="launch only these runs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set a value for all arms")
    parser.add_argument(
        "--slurm", action="append", default=[], metavar="KEY=VALUE", help="sbatch option: partition=..."
    )
    parser.add_argument("--retry-failed", action="store_true", help="run again what failed, and only that")
    parser.add_argument(
        "--debug", action="store_true", help="try every run with a few small batches, in its own folder"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true", help="show the plan and what it costs, and end")
    instead.add_argument("--status", action="store_true", help="show the state of every run and end")
    instead.add_argument("--watch", action="store_true", help="show it until nothing runs or waits any more")
    instead.add_argument("--cancel", action="store_true", help="cancel this study's jobs in Slurm and end")
    instead.add_argument(
        "--selftest", action="store_true", help="send tiny runs through this cluster and say what works; no study"
    )
    return parser


def _launch(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    console = Console(highlight=False)
    if arguments.jobs is not None and arguments.jobs < 1:
        raise ConfigError(f"--jobs {arguments.jobs}: valid: 1 or more")
    if arguments.selftest:
        return _selftest(arguments, console)
    if arguments.study is None:
        raise ConfigError("no study is named; valid: a study file, as in experiments/squeeze_ablation.yaml")
    study = _study(arguments, console)
    folder = arguments.results / (study.folder_name + ("-debug" if arguments.debug else ""))
    if arguments.cancel:
        return _cancel(arguments, study, folder, console)
    if arguments.status or arguments.watch:
        return _show_status(arguments, study, folder, console)
    from sqzlab.launching.launch import launch

    return launch(arguments, study, folder, console)


# ---- the study ---------------------------------------------------------------------------------


def _study(arguments: argparse.Namespace, console: Console) -> Study:
    from sqzlab.data.fingerprint import count, digests
    from sqzlab.data.image_list import expanded
    from sqzlab.study.study import load_study

    trying = arguments.dry_run or arguments.debug or arguments.status or arguments.watch or arguments.cancel
    root = os.environ.get(IMAGENET_DIR)

    def lacking(store: str) -> bool:
        """Whether a store is only to be tried or looked at, and is not on this machine."""
        return (arguments.dry_run or arguments.debug) and not expanded(store).is_dir()

    def counts(name: str, root: str | None, *others: Any) -> tuple[int, int, int] | None:
        store = others[2] if len(others) > 2 else None
        absent = lacking(store) if store else trying and root is None
        if store and not absent and "$" in store:
            raise UnavailableError(
                f"data.store: {store!r} names a variable that is not set; set it to a folder that "
                "`python -m sqzlab prepare` made, or give --set data.store=DIR"
            )
        return None if absent else count(name, root, *others)

    def of_files(
        train_list: str | None, val_list: str | None, pretrained: str | None, store: str | None
    ) -> Mapping[str, str]:
        return digests(train_list, val_list, pretrained, None if store and lacking(store) else store)

    profile = arguments.profile or _default_profile(arguments, console)
    roots = {"imagenet": root} if root else {}
    study = load_study(arguments.study, profile, overrides=arguments.set, counts=counts, digests=of_files, roots=roots)
    if arguments.debug:
        from sqzlab.launching.devices import visible_gpus
        from sqzlab.launching.plan import debugged

        device = "cuda" if visible_gpus() else "cpu"
        first = study.seeds[0]
        runs = tuple(debugged(run, device) for run in study.runs if run.config.seed == first)
        study = replace(study, runs=runs, seeds=(first,))
    return study


def _default_profile(arguments: argparse.Namespace, console: Console) -> str | None:
    """The profile that fits this machine, for a study that has the two usual ones; said in one plain line."""
    from sqzlab.launching.display import say
    from sqzlab.slurm import client
    from sqzlab.study.study import profile_names

    names = profile_names(arguments.study)
    if not {"imagenet", "laptop"} <= set(names):
        return None  # load_study knows whether the file is a study without one, and tells all that is wrong with it
    if os.environ.get(IMAGENET_DIR):
        return "imagenet"
    if arguments.cluster == "slurm" or (arguments.cluster == "auto" and client.answers()):
        raise UnavailableError(
            f"a Slurm cluster is here but {IMAGENET_DIR} is not set; set it to ImageNet's folder for the real study, "
            "or name --profile laptop for the small one"
        )
    say(
        console,
        f"No {IMAGENET_DIR} and no Slurm here: taking the laptop profile. The real study: "
        f"{IMAGENET_DIR}=/path/to/imagenet python launch.py {arguments.study}",
    )
    return "laptop"


# ---- looking, cancelling, testing --------------------------------------------------------------


def _show_status(arguments: argparse.Namespace, study: Study, folder: Path, console: Console) -> int:
    from sqzlab.launching.status import statuses
    from sqzlab.launching.watch import show, watch
    from sqzlab.slurm.queue import read
    from sqzlab.study.study import select

    runs = select(study, arguments.only)
    if arguments.watch:
        return watch(folder, runs, lambda: read(folder), console, resources=study.resources)
    queue = read(folder)
    show(console, folder, runs, statuses(folder, runs, queue), queue, study.resources)
    return 0


def _cancel(arguments: argparse.Namespace, study: Study, folder: Path, console: Console) -> int:
    from sqzlab.launching.display import say
    from sqzlab.slurm import client
    from sqzlab.slurm.batches import FOLDER, locked, read_all, submitted
    from sqzlab.slurm.cancel import cancel
    from sqzlab.study.study import select

    runs = [run.run_id for run in select(study, arguments.only)]
    client.require()
    cancelled = []
    if (folder / FOLDER).is_dir():
        with locked(folder):
            former = submitted(read_all(folder))  # also of an earlier form of the study
            cancelled = cancel(folder, runs if arguments.only else {*runs, *former})
    if cancelled:
        ids = ", ".join(cancelled[:3]) + (f" ... {cancelled[-1]}" if len(cancelled) > 3 else "")
        say(console, f"{folder}: cancelled {len(cancelled)} jobs ({ids}); launch again to go on")
    else:
        say(console, f"{folder}: Slurm has no job of this study; a launch on this machine ends with Ctrl-C")
    return 0


def _selftest(arguments: argparse.Namespace, console: Console) -> int:
    from sqzlab.launching.selftest import selftest
    from sqzlab.slurm import client
    from sqzlab.slurm.options import of_user, parsed

    if arguments.study is not None:
        raise ConfigError(f"--selftest has a study of its own; leave out {str(arguments.study)!r}")
    if arguments.cluster not in ("auto", "slurm"):
        raise ConfigError(f"--selftest tests Slurm; --cluster {arguments.cluster} does not apply, valid: slurm")
    client.require()
    return selftest(arguments.results, {**of_user(), **parsed(arguments.slurm)}, console)
