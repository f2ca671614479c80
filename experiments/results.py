"""What an analysis leaves behind: JSON with a schema and with where it came from, CSV for everybody else."""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import platform
import tempfile
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from experiments.errors import InputError
from experiments.weights import Weights

SCHEMA_VERSION = 2
"""Raise when results of the same settings would come out different: older ones are then done again."""


class Record(BaseModel):
    """Base of everything in a result: closed and frozen; NaN is written as null."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Provenance(Record):
    """Where a result came from."""

    schema_version: int
    weights: str
    """Absolute path of the weights file."""

    weights_sha256: str
    config: dict[str, Any]
    """Settings that the weights were trained with."""

    preprocessing: dict[str, Any]
    class_names: list[str]
    """Name of each output."""

    metrics: dict[str, Any]
    """Last metrics of the training run."""

    settings: dict[str, Any]
    """Settings of the analysis, seed included."""

    versions: dict[str, str]
    created: str
    seconds: float
    """Wall time of the analysis."""


class StimulusRow(Record):
    """Decisions on one kind of stimulus after one time step."""

    stimulus: str
    time_step: int
    images: int
    hits: int
    accuracy: float
    low: float
    """95% confidence interval (Wilson)."""

    high: float
    balanced_accuracy: float
    chance: float
    """Accuracy expected from these decisions on shuffled labels."""

    p: float
    """Permutation test, (b + 1) / (n + 1)."""

    p_adjusted: float
    """Benjamini-Hochberg over the stimuli of this time step."""

    null: list[tuple[int, int]]
    """Null distribution: (hits, shuffles with so many hits)."""


class TrendRow(Record):
    """Whether something rises over time steps: Kendall's tau, one-sided p."""

    what: str
    tau: float | None
    p: float
    p_adjusted: float
    """Benjamini-Hochberg over the trends of this result."""

    method: str


class StimuliResult(Record):
    """Result of experiments.stimuli."""

    kind: Literal["stimuli"] = "stimuli"
    provenance: Provenance
    data: dict[str, Any]
    rows: list[StimulusRow]
    trends: list[TrendRow]


class RSARow(Record):
    """How similar a layer represents a stimulus and the normal images."""

    layer: str
    time_step: int
    stimulus: str
    value: float
    """Comparison of the whole RDMs (rho-a, or Pearson's r for weighted models)."""

    mean: float | None
    """Mean over bootstraps; for weighted models cross-validated."""

    low: float | None
    """95% percentile interval over bootstraps."""

    high: float | None
    p: float
    """Test against zero, (b + 1) / (n + 1)."""

    p_adjusted: float
    """Benjamini-Hochberg over layers and stimuli of this time step."""

    draws: int
    """Bootstraps that could be evaluated."""


class RSAResult(Record):
    """Result of experiments.rsa."""

    kind: Literal["rsa"] = "rsa"
    provenance: Provenance
    data: dict[str, Any]
    method: str
    rows: list[RSARow]
    trends: list[TrendRow]


class AccuracyRow(Record):
    """Validation accuracy after one time step."""

    time_step: int
    images: int
    hits: int
    accuracy: float
    low: float
    high: float
    macs: int
    """Multiply-accumulates per image up to this step."""


class AccuracyResult(Record):
    """Result of experiments.accuracy."""

    kind: Literal["accuracy"] = "accuracy"
    provenance: Provenance
    data: dict[str, Any]
    rows: list[AccuracyRow]
    trends: list[TrendRow]
    parameters: int
    images_per_second: float
    """Inference speed with all time steps, in batches, on `device`."""

    device: str


Result = Annotated[StimuliResult | RSAResult | AccuracyResult, Field(discriminator="kind")]
_RESULT: TypeAdapter[StimuliResult | RSAResult | AccuracyResult] = TypeAdapter(Result)


def provenance(weights: Weights, settings: Mapping[str, Any], seconds: float) -> Provenance:
    """Where a result of these weights and settings came from."""
    return Provenance(
        schema_version=SCHEMA_VERSION,
        weights=str(weights.path),
        weights_sha256=weights.sha256,
        config=weights.config,
        preprocessing=weights.preprocessing.to_dict(),
        class_names=list(weights.class_names),
        metrics=weights.metrics,
        settings=dict(settings),
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "scipy", "recurrent-vision-search")},
        },
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
    )


def read_result(path: Path) -> StimuliResult | RSAResult | AccuracyResult:
    """Read a result; InputError where the file is none of this version of the analysis."""
    content = path.read_bytes()
    try:
        made_by = json.loads(content)["provenance"]["schema_version"]
    except (ValueError, LookupError, TypeError):
        made_by = SCHEMA_VERSION  # what else is wrong is told below
    if made_by != SCHEMA_VERSION:
        raise InputError(
            f"{path}: written by another version of the analysis (schema {made_by}, this one's is "
            f"{SCHEMA_VERSION}); run the analysis again, or remove the file"
        )
    try:
        return _RESULT.validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: not a result of this version ({where}: {first['msg']})") from None


def is_done(path: Path, weights: Weights, settings: Mapping[str, Any]) -> bool:
    """Whether a file holds the finished result of these weights, the .json beside them and these settings.

    The result's settings may be more than these.
    """
    try:
        known = read_result(path).provenance
    except (OSError, InputError):
        return False
    wanted = provenance(weights, json.loads(json.dumps(dict(settings))), 0)
    deciding = ("weights_sha256", "config", "preprocessing", "class_names")
    same = all(getattr(known, name) == getattr(wanted, name) for name in deciding)
    return same and wanted.settings.items() <= known.settings.items()


def check_writable(out: Path) -> None:
    """Refuse a folder for results that cannot be made or written, before any is computed; makes nothing."""
    there = next(path for path in (out, *out.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise InputError(f"--out: {there} cannot be written: {error.strerror}") from None


def write_bytes(path: Path, content: bytes) -> None:
    """Write aside, fsync, rename: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_result(path: Path, result: StimuliResult | RSAResult | AccuracyResult) -> None:
    """Write a result as JSON, and its rows as CSV beside it (first, so that a JSON is a finished result)."""
    rows = [row.model_dump(exclude={"null"}) for row in result.rows]
    write_csv(path.with_suffix(".csv"), rows)
    write_bytes(path, (result.model_dump_json(indent=1) + "\n").encode())


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows with the same keys."""
    rows = list(rows)
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())
