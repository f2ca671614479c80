"""Many trials, with somebody choosing the next configuration: Ray Tune runs them, Optuna chooses."""

from search.spec import SearchSpec

__all__ = ["SearchSpec"]
