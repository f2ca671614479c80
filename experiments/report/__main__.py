"""One self-contained HTML page, with figures as PNG and PDF, of all results below some folders.

python -m experiments.report runs/analysis
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.runner import EPILOG, guarded


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folders with results, at any depth")
    parser.add_argument(
        "--out", metavar="DIR", help="where the report goes (default: DIR/report of the first)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse_arguments(argv)
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from experiments.report.build import find_results, write_report
    from experiments.results import check_writable

    out = Path(arguments.out or Path(arguments.folders[0]) / "report").expanduser().absolute()
    results = find_results(arguments.folders)
    check_writable(out)
    print(write_report(results, out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
