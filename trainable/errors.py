"""What a user can put right: one line per mistake, exit code 2, no traceback."""

from __future__ import annotations

from collections.abc import Iterable


class ConfigError(ValueError):
    """What a user wrote is wrong; `problems` has one line per mistake."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def check_name(name: str, option: str = "--name") -> str:
    """A folder's own name, which can neither leave the folder around it nor be that folder.

    Raises:
        ConfigError: `.`, `..`, nothing, or with a separator in it.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ConfigError([f"{option}: must be the name of a folder in --storage, got {name!r}"])
    return name
