"""Search the settings of a recurrent vision model: Ray Tune runs the trials, Optuna chooses them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trainable.atomic import StorageError
from trainable.errors import ConfigError, check_name

EXAMPLES = """examples:
  python run_search.py search_spaces/fgru.yaml
  python run_search.py search_spaces/fgru.yaml --trials 64 --name fgru-long --set train.epochs=30
  python run_search.py search_spaces/fgru.yaml --set train.dataset=ffcv \\
      --set train.dataset_path=/data/train.beton --set train.dataset_val_path=/data/val.beton \\
      --set train.filters=null --set train.pools=null --set train.first_kernel=7 --set train.first_stride=2
  python run_search.py search_spaces/fgru.yaml --storage s3://bucket/searches
  python run_search.py search_spaces/fgru.yaml --status
  python run_search.py sweep_configuration.json --base config.json    (a Weights & Biases sweep)

The same command again continues a search that was killed, and extends a finished one when --trials grew.
exit codes: 0 done, 1 the search failed, 2 the input was wrong, 130 interrupted (the same command resumes)
"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="run_search.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("space", metavar="SPACE", help="search space, e.g. search_spaces/fgru.yaml")
    parser.add_argument(
        "--storage",
        metavar="DIR",
        default="runs",
        help="folder for all searches, shared by all nodes, or s3://BUCKET/FOLDER (default: runs); "
        "AWS_ENDPOINT_URL names other servers than Amazon's",
    )
    parser.add_argument("--name", help="name of the search below --storage (default: the YAML file's name)")
    parser.add_argument(
        "--base",
        metavar="CONFIG",
        help="configuration with the settings that SPACE leaves out; needed for a W&B sweep file",
    )
    parser.add_argument("--trials", metavar="N", type=int, help="configurations to try (search.num_samples)")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="override a key of the YAML",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", action="store_true", help="continue; an error if there is nothing to continue"
    )
    again.add_argument(
        "--fresh", action="store_true", help="delete what is there under this name and start over"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--dry-run", action="store_true", help="print three sampled configurations and exit")
    action.add_argument("--status", action="store_true", help="print the results so far and exit")
    action.add_argument(
        "--report", action="store_true", help="write the result files anew from what is there and exit"
    )
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
    except (ConnectionError, StorageError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"Interrupted. The same command resumes:\n  {_command()}", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    # Ray, Optuna and torch take seconds to import: --help and parse errors come at once.
    from rich.console import Console

    from search import report
    from search.spec import load_spec, stored_spec
    from search.storage import open_place
    from search.study import look_at

    if arguments.trials is not None:
        arguments.overrides.append(f"search.num_samples={arguments.trials}")
    spec = load_spec(arguments.space, arguments.overrides, arguments.base)
    name = check_name(Path(arguments.space).stem if arguments.name is None else arguments.name)
    # Into a file or a pipe, lines need not fit a terminal.
    console = Console() if sys.stdout.isatty() else Console(width=140)
    if arguments.dry_run:
        return _dry_run(spec, arguments.space)
    place = open_place(arguments.storage, name)
    if (arguments.status or arguments.report or arguments.resume) and not place.exists():
        raise ConfigError([f"{place}: no search here"])
    if arguments.status or arguments.report:
        place.read()
        study = look_at(place.folder, stored_spec(place.folder), place)
        if arguments.report:
            from search.report.page import write_report

            report.write_results(study)
            write_report(study)
            place.push()
        else:
            from search.status import print_status

            print_status(study, console)
        report.print_results(study, console)
        return 0
    from search import confirm, runner
    from search.winner import best_trial
    from trainable import preflight

    for config in spec.corners():
        preflight.check(config, arguments.space, spec.resources.workers)
    study = runner.run_search(spec, place, console, fresh=arguments.fresh)
    report.print_results(study, console)
    if len(study.finished()) < study.target or confirm.unconfirmed(study):
        console.print(f"Interrupted. The same command resumes:\n  {_command()}", soft_wrap=True)
        return 130
    return 0 if best_trial(study) is not None else 1


def _command() -> str:
    """What was typed, without the option that would delete what is there."""
    import shlex

    words = ["python", *sys.argv]
    return shlex.join(word for word in words if word != "--fresh")


def _dry_run(spec, source: str) -> int:  # type: ignore[no-untyped-def]
    """Print three configurations the sampler would start with; no Ray, nothing written."""
    import json

    from optuna.storages import InMemoryStorage

    from search.study import SearchStudy

    study = SearchStudy(Path(source).absolute(), spec, InMemoryStorage())
    for _ in range(min(3, study.target)):
        config = study.config(study.ask())
        print(json.dumps(config.model_dump(mode="json", exclude_none=True), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
