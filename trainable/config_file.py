"""Read a JSON or YAML file into a pydantic model; every problem becomes one line a user can act on."""

from __future__ import annotations

import copy
import difflib
import json
import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from trainable.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML as people expect it: `1e-3` is a number (YAML 1.2), and a key given twice is a mistake."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # What PyYAML lets out for text that only looks like its type: 2020-13-45, `!!bool maybe`.
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value!r} is no {kind}", node.start_mark
            ) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                # No part of YAML 1.2, and PyYAML 6.0.4 takes the wrong value where merged mappings merge.
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    "<< merges mappings, which is not supported; write the keys",
                    key_node.start_mark,
                )
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict | set):
                raise yaml.constructor.ConstructorError(
                    None, None, f"a key must be text, got {key!r}", key_node.start_mark
                )
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
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: plain data only
    except RecursionError:
        raise yaml.YAMLError("is nested too deep") from None


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_mapping)
    except RecursionError:
        raise ValueError("is nested too deep") from None


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice")
    return mapping


def read_mapping(path: str | Path, *, literal: Collection[str] = ()) -> dict[str, Any]:
    """Read a JSON or YAML file that holds one mapping of plain data, with `${VARIABLES}` expanded.

    Args:
        path: A file, or the address of one in a bucket (s3://...), such as a search's best configuration.
        literal: Keys of the first level in which `${VARIABLES}` stay as they are.

    Raises:
        ConfigError: the file is missing, unreadable, not a mapping, names an unset variable, or holds what
            JSON could not: a date, a key that is no text, a value that contains itself.
    """
    try:
        text = _read(str(path))
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from None
    try:
        values = _parse_json(text) if Path(path).suffix == ".json" else parse_yaml(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError([f"{path}: {' '.join(str(error).split())}"]) from None
    if not isinstance(values, dict):
        raise ConfigError([f"{path}: must hold a mapping of keys to values, got {type(values).__name__}"])
    problems: list[str] = []
    kept = {key: values.pop(key) for key in literal if key in values}
    values = _expand(values, "", problems) | kept
    if problems:
        raise ConfigError(f"{path}: {problem}" for problem in problems)
    return values


def _read(path: str) -> str:
    if "://" not in path:
        return Path(path).read_text(encoding="utf-8-sig")
    from trainable.remote import HASTY, Remote  # files need none of it

    folder, _, name = path.rpartition("/")
    remote = Remote(folder, HASTY)
    remote.check()
    content = remote.read(name)
    if content is None:
        raise FileNotFoundError(path)
    return content.decode()


def _expand(value: Any, key: str, problems: list[str], above: tuple[Any, ...] = ()) -> Any:
    """Replace ${NAME} in every string by the environment's value; what is not plain data is a problem.

    Aliases come back as copies, so that the result is a tree; `above` are the groups that `value` is in.
    """
    if isinstance(value, dict | list):
        if any(value is group for group in above):
            problems.append(f"{key}: contains itself")
            return None
        above = (*above, value)
    if isinstance(value, dict):
        problems += [
            f"{_joined(key, name)}: a key must be text, got {name!r}; put it in quotes"
            for name in value
            if not isinstance(name, str)
        ]
        return {name: _expand(v, _joined(key, name), problems, above) for name, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, _joined(key, index), problems, above) for index, v in enumerate(value)]
    if not isinstance(value, str):
        if not isinstance(value, bool | int | float | None):
            problems.append(
                f"{key}: must be text, a number, true, false, null, a list or a mapping, got {value!r}; "
                "put it in quotes if it is text"
            )
        return value

    def lookup(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            problems.append(f"{key}: environment variable {name} is not set")
        return os.environ.get(name, "")

    return re.sub(r"\$\{(\w+)\}", lookup, value)


def _joined(*parts: Any) -> str:
    """A key as people write it: `space.filters.choices.0`."""
    return ".".join(str(part) for part in parts if part != "")


def apply_overrides(values: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return `values` with every `KEY=VALUE` set; dots in KEY descend, VALUE is read as YAML.

    Raises:
        ConfigError: an override has no `=`, an empty key, or descends into something not a mapping.
    """
    result = copy.deepcopy(values)
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
        return model.model_validate(values)
    except ValidationError as error:
        lines = [f"{_joined(prefix, key)}: {message}" for key, message in problems_of(error, values, model)]
        raise ConfigError(f"{source}: {line.removeprefix(': ')}" for line in lines) from None


def problems_of(
    error: ValidationError, values: dict[str, Any], model: type[BaseModel] | None = None
) -> list[tuple[str, str]]:
    """One key and message per wrong value of a pydantic error; the key is empty where all are concerned.

    Args:
        error: What was raised for `values`.
        values: What a user wrote.
        model: What should have been built, for the keys that are allowed where one is unknown.
    """
    problems: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for item in error.errors(include_url=False):
        key = _joined(*_location(item, values))
        message, known = item["msg"].removeprefix("Value error, "), problems.setdefault(key, [])
        if item["type"] == "extra_forbidden":
            message = "unknown key"
            if allowed := _keys(model, item["loc"][:-1]):
                near = difflib.get_close_matches(str(item["loc"][-1]), allowed, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                message += f"; allowed: {', '.join(allowed)}{hint}"
        elif item["type"] not in ("missing", "union_tag_not_found", "value_error"):
            given[key] = f", got {item['input']!r}"
        if item["type"] in ("model_type", "dict_type"):
            message = "Input should be a mapping of keys to values"
        elif item["type"] == "too_short":
            message = f"must have at least {item['ctx']['min_length']} entry"
        if item["type"] == "union_tag_invalid":
            message = f"must be one of {item['ctx']['expected_tags']}"
            given[key] = f", got {item['ctx']['tag']!r}"
        known.append(message.removeprefix("Input should be ") if known else message)
    # Each member of a union has its own say on the same value; one that looked into it knows best.
    return [
        (key, " or ".join(dict.fromkeys(messages)) + given.get(key, ""))
        for key, messages in problems.items()
        if not key or not any(other.startswith(f"{key}.") for other in problems)
    ]


def _keys(kind: Any, where: Sequence[int | str]) -> list[str]:
    """Keys of the model that a pydantic error's location leads to from `kind` on; none if it is no model."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if not where:
            return sorted(field.alias or name for name, field in kind.model_fields.items())
        field = kind.model_fields.get(str(where[0]))
        return [] if field is None else _keys(field.annotation, where[1:])
    if get_origin(kind) in (dict, list):
        return _keys(get_args(kind)[-1], where[1:])
    for member in get_args(kind):  # of a union, or what is annotated
        tagged = isinstance(member, type) and issubclass(member, BaseModel) and "type" in member.model_fields
        tags = get_args(member.model_fields["type"].annotation) if tagged else ()
        if keys := _keys(member, where[1:]) if where and where[0] in tags else _keys(member, where):
            return keys
    return []


def _location(item: ErrorDetails, values: Any) -> list[Any]:
    """Where an error is, in keys and indices of `values`: pydantic adds names of its own for a union."""
    where: list[Any] = []
    for part in item["loc"]:
        known = range(len(values)) if isinstance(values, list) else values
        if isinstance(known, dict | range) and part in known:
            where.append(part)
            values = values[part]
    if item["type"] == "missing":
        where.append(item["loc"][-1])
    if item["type"] == "union_tag_invalid":
        where.append(item["ctx"]["discriminator"].strip("'"))
    return where
