"""Train one configuration (or several, one after the other) on one worker or many, and keep its weights."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trainable.errors import ConfigError, check_name
from trainable.say import say
from trainable.signals import as_interrupts

if TYPE_CHECKING:
    from trainable.run_place import RunPlace

EXAMPLES = """examples:
  python run_train.py configs/template.yaml --out model.weights
  python run_train.py config.yaml --workers 2 --set epochs=30 --set learning_rate=1e-3
  python run_train.py runs/fgru/best_config.json --out best.weights
  python run_train.py configs/*.yaml --out weights/          one after the other, weights/NAME.weights each
  python run_train.py config.json --init model.weights --set learning_rate=1e-4
  python run_train.py config.json --storage s3://bucket/runs --workers 4     on a cluster, state in a bucket
  python run_train.py config.json --name baseline            runs/train/baseline, whatever the settings

The same command again continues a run that was killed or stopped, from its last checkpoint. SIGTERM, SIGUSR1
and Ctrl-C save a checkpoint first; a second Ctrl-C exits at once.
exit codes: 0 done, 1 a run failed or diverged, 2 the input was wrong, 130 interrupted (and resumable)
"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="run_train.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("configs", metavar="CONFIG", nargs="+", help="JSON or YAML file of a TrainConfig")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="where the final weights go; for several CONFIGs a folder/ or a {name}.weights",
    )
    parser.add_argument("--init", metavar="FILE", help="weights to start from (the same as --set init=FILE)")
    parser.add_argument(
        "--workers", metavar="N", type=int, default=1, help="processes that train together (default: 1)"
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides", help="override a key"
    )
    parser.add_argument(
        "--storage",
        metavar="DIR",
        default="runs/train",
        help="folder for runs, shared by all nodes, or s3://BUCKET/FOLDER (default: runs/train)",
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="name of the run's folder (default: CONFIG's name and a hash of its settings)",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="continue (the default where there is a checkpoint), an error if there is none",
    )
    again.add_argument("--fresh", action="store_true", help="delete this run's checkpoints and start over")
    again.add_argument(
        "--force", action="store_true", help="with --name: continue although settings have changed"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse_arguments(argv)
    try:
        with as_interrupts():
            return _run(arguments)
    except ConfigError as error:
        _complain(error)
        return 2
    except KeyboardInterrupt:
        say("Interrupted. The same command goes on.", sys.stderr)
        return 130
    except SystemExit as error:
        if error.code == signal.SIGTERM:  # Ray's answer to the signal while it starts
            say("Interrupted. The same command goes on.", sys.stderr)
            return 130
        raise


def _run(arguments: argparse.Namespace) -> int:
    if arguments.workers < 1:
        raise ConfigError([f"--workers: must be at least 1, got {arguments.workers}"])
    if arguments.name is not None and len(arguments.configs) > 1:
        raise ConfigError([f"--name {arguments.name}: names one run, but several configs are given"])
    if arguments.name is not None:
        check_name(arguments.name)
    # Ray and torch take seconds to import: --help and parse errors come at once.
    from trainable import preflight
    from trainable.config import TrainConfig
    from trainable.config_file import apply_overrides, read_mapping, validate
    from trainable.out_files import out_files
    from trainable.run_folder import folder_name
    from trainable.single import Run, Stopped

    # All files are checked before the first is trained.
    outs = out_files(arguments.out, arguments.configs)
    runs = []
    for path, out in zip(arguments.configs, outs, strict=True):
        values = read_mapping(path)
        if {"train", "space"} <= values.keys():
            raise ConfigError([f"{path}: is a search space, not a configuration: it is for run_search.py"])
        values = apply_overrides(values, arguments.overrides)
        if arguments.init is not None:
            values["init"] = arguments.init
        config = validate(TrainConfig, values, path)
        config = config.with_absolute_paths()
        place = _place(arguments.storage, arguments.name or folder_name(config, Path(path).stem))
        # What the command line asks for is more than the file's `do_reload`.
        fresh = arguments.fresh or not (config.do_reload or arguments.resume or arguments.force)
        if not (fresh or arguments.force):
            place.check_same_run(config)
        if arguments.resume and place.last_checkpoint() is None:
            raise ConfigError([f"{place}: no checkpoint to resume from"])
        info = preflight.check(config, path, arguments.workers)
        if arguments.force:
            preflight.check_forced(config, place, info)
        runs.append(Run(config, path, place, out, fresh))
    codes = []
    for run in runs:
        try:
            codes.append(run.train(workers=arguments.workers))
        except ConfigError as error:  # e.g. another process trains it: the others can go on
            _complain(error)
            codes.append(2)
        except Stopped as stopped:
            say(str(stopped), sys.stderr)
            return 130
    if len(runs) > 1:
        failed = [run.source for run, code in zip(runs, codes, strict=True) if code]
        say(
            f"{len(runs) - len(failed)} of {len(runs)} configs done"
            + (f"; failed: {', '.join(failed)}" if failed else "")
        )
    return max(codes)


def _place(storage: str, name: str) -> RunPlace:
    """The run `name` in `storage`, as it stands there now; nothing is made yet."""
    from trainable.run_folder import check_writable
    from trainable.run_place import RunPlace

    if not re.match(r"\w+:/", storage):  # s3:/bucket, say, would be a folder of that name
        folder = Path(storage).expanduser().absolute()
        check_writable(folder, "--storage")
        return RunPlace(folder / name)
    from trainable.run_bucket import RunBucket  # takes pyarrow, which a folder does not need

    place = RunBucket.at(storage, name)
    place.read()
    return place


def _complain(error: ConfigError) -> None:
    for problem in error.problems:
        say(problem, sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
