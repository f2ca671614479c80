"""What a user can put right: one line per mistake, exit code 2, no traceback."""

from __future__ import annotations

from collections.abc import Iterable


class ConfigError(ValueError):
    """What a user wrote is wrong; `problems` has one line per mistake."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))
