"""The commands of `python -m sqzlab`, each a module with `add_arguments(parser)` and `run(arguments) -> exit code`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from sqzlab.errors import ConfigError, SqzlabError, UnavailableError, choices

COMMANDS = {
    "train": "train one network without a study file",
    "track": "a study's epochs in TensorBoard or Weights & Biases, offline first",
    "evaluate": "top-1, top-5 and confusion of a network on a data set",
    "predict": "the most likely classes of image files",
    "features": "pooled or per-stage features of images, as npz",
    "excitation": "record and draw the gates of a network's blocks (SENet, section 7.2)",
    "cost": "parameters and multiply-accumulates, beside the published ones",
    "bench": "speed of networks side by side, and of what the machine allows",
    "prepare": "resize a data set's images once, into files that all processes share",
    "import": "turn another project's checkpoint into one of ours",
    "export": "write a network's weights as safetensors or for timm",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 a part failed, 2 what was written is wrong, 3 something is lacking, 130 Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    named = words[0] if words else None
    parser = _Parser(
        prog="python -m sqzlab",
        description="What is done with a single network, and track; launch.py runs studies and analyze.py reads them.",
        epilog="exit codes: 0 all done, 1 a part failed, 2 what was written is wrong, 3 data, files or a GPU lacking, "
        "130 Ctrl-C",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        own = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        if name == named:  # only its own module is imported
            import_module(_module(name)).add_arguments(own)
    if named is not None and not named.startswith("-") and named not in COMMANDS:
        parser.error(f"unknown command {named!r}; {choices(COMMANDS, named)}")
    arguments = parser.parse_args(words)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without some signs still gets its tables
    try:
        code: int = import_module(_module(arguments.command)).run(arguments)
        sys.stdout.flush()
        return code
    except SqzlabError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: as quiet as other tools
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{where}{(error.strerror or str(error)).lower()}", file=sys.stderr)
        return UnavailableError.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(ConfigError.exit_code, f"{message}; see {self.prog} --help\n")


def _module(command: str) -> str:
    return f"sqzlab.commands.{_MODULES.get(command, command)}"


_MODULES = {"import": "importing", "export": "exporting"}
