"""Train one configuration (or several, one after the other) on one worker or many, and keep its weights."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trainable.config_file import ConfigError

EXAMPLES = """examples:
  python run_train.py config.json --out model.weights
  python run_train.py config.yaml --workers 2 --set epochs=30 --set learning_rate=1e-3
  python run_train.py runs/fgru/best_config.json --out best.weights

The same command again continues a run that was killed, from its last checkpoint.
exit codes: 0 done, 1 the run failed or diverged, 2 the input was wrong, 130 interrupted (and resumable)
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
    parser.add_argument("--out", metavar="FILE", help="where the final weights go (one CONFIG only)")
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
        help="folder for runs, shared by all nodes (default: runs/train)",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue; an error if there is no checkpoint")
    again.add_argument("--fresh", action="store_true", help="delete this run's checkpoints and start over")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse_arguments(argv)
    try:
        return _run(arguments)
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. The same command resumes.", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    if "://" in arguments.storage:
        raise ConfigError([f"--storage: must be a folder that all nodes share, got {arguments.storage}"])
    if arguments.workers < 1:
        raise ConfigError([f"--workers: must be at least 1, got {arguments.workers}"])
    if arguments.out and len(arguments.configs) > 1:
        raise ConfigError(["--out: names one file, but several configs are given; leave it out"])
    if arguments.out and not Path(arguments.out).absolute().parent.is_dir():
        raise ConfigError([f"--out: no folder {Path(arguments.out).absolute().parent}"])
    # Ray and torch take seconds to import: --help and parse errors come at once.
    from trainable import preflight
    from trainable.config import TrainConfig
    from trainable.config_file import apply_overrides, read_mapping, validate
    from trainable.single import Run

    # All files are checked before the first is trained.
    runs = []
    for path in arguments.configs:
        config = validate(TrainConfig, apply_overrides(read_mapping(path), arguments.overrides), path)
        preflight.check(config, path, arguments.workers)
        runs.append(Run.of(config, Path(path), Path(arguments.storage).expanduser().absolute()))
    if arguments.resume:
        missing = [run for run in runs if not run.has_checkpoint]
        if missing:
            raise ConfigError(f"{run.folder}: no checkpoint to resume from" for run in missing)
    codes = [run.train(workers=arguments.workers, out=arguments.out, fresh=arguments.fresh) for run in runs]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
