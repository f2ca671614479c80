"""Read a JSON or YAML file into a pydantic model; every problem becomes one line a user can act on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from trainable.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML as people expect it: `1e-3` is a number (YAML 1.2), and a key given twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str) -> Any:
    """Parse YAML (1.2 numbers); raises yaml.YAMLError."""
    return yaml.load(text, Loader=_Loader)  # a SafeLoader: plain data only


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Read a JSON or YAML file that holds one mapping, with `${VARIABLES}` expanded.

    Args:
        path: A file, or the address of one in a bucket (s3://...), such as a search's best configuration.

    Raises:
        ConfigError: the file is missing, unreadable, not a mapping, or names an unset variable.
    """
    try:
        text = _read(str(path))
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from None
    try:
        values = json.loads(text) if Path(path).suffix == ".json" else parse_yaml(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise ConfigError([f"{path}: {' '.join(str(error).split())}"]) from None
    if not isinstance(values, dict):
        raise ConfigError([f"{path}: must hold a mapping of keys to values, got {type(values).__name__}"])
    problems: list[str] = []
    values = _expand(values, "", problems)
    if problems:
        raise ConfigError(f"{path}: {problem}" for problem in problems)
    return values


def _read(path: str) -> str:
    if "://" not in path:
        return Path(path).read_text(encoding="utf-8")
    from trainable.remote import HASTY, Remote  # files need none of it

    folder, _, name = path.rpartition("/")
    remote = Remote(folder, HASTY)
    remote.check()
    content = remote.read(name)
    if content is None:
        raise FileNotFoundError(path)
    return content.decode()


def _expand(value: Any, key: str, problems: list[str]) -> Any:
    """Replace ${NAME} in every string by the environment's value; unset names are problems."""
    if isinstance(value, dict):
        return {k: _expand(v, f"{key}.{k}" if key else str(k), problems) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, f"{key}.{i}", problems) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def lookup(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            problems.append(f"{key}: environment variable {name} is not set")
        return os.environ.get(name, "")

    return re.sub(r"\$\{(\w+)\}", lookup, value)


def apply_overrides(values: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return `values` with every `KEY=VALUE` set; dots in KEY descend, VALUE is read as YAML.

    Raises:
        ConfigError: an override has no `=`, an empty key, or descends into something not a mapping.
    """
    result = json.loads(json.dumps(values))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError([f"--set {override}: must be KEY=VALUE, e.g. --set learning_rate=0.01"])
        *parents, last = key.split(".")
        target = result
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError([f"--set {override}: {parent} is not a group of settings"])
        problems: list[str] = []
        try:
            target[last] = _expand(parse_yaml(text), key, problems)
        except yaml.YAMLError as error:
            raise ConfigError([f"--set {override}: {' '.join(str(error).split())}"]) from None
        if problems:
            raise ConfigError(f"--set {problem}" for problem in problems)
    return result


def validate(model: type[Model], values: dict[str, Any], source: str, prefix: str = "") -> Model:
    """Build `model` from `values`; `source` and `prefix` say in errors where the values come from.

    Raises:
        ConfigError: one line per problem: source, key, what is allowed, what was given.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise ConfigError(describe(error, source, prefix, allowed=sorted(model.model_fields))) from None


def describe(error: ValidationError, source: str, prefix: str = "", allowed: Iterable[str] = ()) -> list[str]:
    """One line per problem of a pydantic error."""
    lines = []
    for item in error.errors(include_url=False):
        # A union or a discriminator adds its own names to the location; a user knows only keys and indices.
        where = ".".join(str(part) for part in item["loc"] if re.fullmatch(r"\w+", str(part)))
        key = ".".join(part for part in (prefix, where) if part)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            known = f"; allowed: {', '.join(allowed)}" if allowed and len(item["loc"]) == 1 else ""
            message = f"unknown key{known}"
        elif item["type"] not in ("missing", "value_error"):
            message = f"{message}, got {item['input']!r}"
        lines.append(f"{source}: {key}: {message}" if key else f"{source}: {message}")
    return lines
