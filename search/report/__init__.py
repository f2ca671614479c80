"""What a search leaves for people: result files and closing words; report.html is in `search.report.page`."""

from search.report.results import (
    BEST_CONFIG_FILE,
    BEST_WEIGHTS_FILE,
    TRIALS_FILE,
    format_value,
    print_results,
    results_table,
    write_results,
)

__all__ = [
    "BEST_CONFIG_FILE",
    "BEST_WEIGHTS_FILE",
    "TRIALS_FILE",
    "format_value",
    "print_results",
    "results_table",
    "write_results",
]
