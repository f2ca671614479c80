"""What a search leaves for people: trials.csv, the best configuration and its weights, the closing words."""

from __future__ import annotations

import csv
import io
import math
import shlex
import shutil
from typing import Any

from optuna.trial import FrozenTrial
from rich.console import Console
from rich.table import Table

from search.confirm import confirmed_lines, winner
from search.lineage import lineage
from search.study import SearchStudy, cause, trial_name
from search.winner import pareto_front
from trainable import atomic
from trainable.metrics import EPOCH
from trainable.tracking import read_rows

TRIALS_FILE = "trials.csv"
BEST_CONFIG_FILE = "best_config.json"
BEST_WEIGHTS_FILE = "best.weights"


def write_results(study: SearchStudy) -> FrozenTrial | None:
    """Write trials.csv, best_config.json and best.weights into the search's folder; return the winner."""
    from trainable.loop import WEIGHTS_FILE  # torch takes seconds, which --status does not have

    folder = study.folder
    atomic.write_text(folder / TRIALS_FILE, _trials_csv(study))
    best = winner(study)
    if best is None:
        return None
    config = study.config(best).model_dump(mode="json", exclude_none=True)
    atomic.write_json(folder / BEST_CONFIG_FILE, config)
    weights = folder / trial_name(best.number) / WEIGHTS_FILE
    about = weights.with_name(weights.name + ".json")
    for file in (weights, about):
        study.place.fetch_file(f"{weights.parent.name}/{file.name}")
    for source, target in (
        (weights, folder / BEST_WEIGHTS_FILE),
        (about, folder / f"{BEST_WEIGHTS_FILE}.json"),
    ):
        if source.exists():
            copy = target.with_name(f".{target.name}.copy")
            shutil.copyfile(source, copy)
            copy.replace(target)
        else:  # the best so far was stopped early: no final weights, and none of an earlier winner
            study.place.delete([target.name])
    return best


def _trials_csv(study: SearchStudy) -> str:
    """One line per trial: name, state, cause, epochs, parameters, metrics of its last epoch."""
    lines: list[dict[str, Any]] = []
    for trial in study.trials():
        rows = read_rows(study.folder / trial_name(trial.number))
        last, params = rows[-1] if rows else {}, study.params(trial)
        lines.append(
            {
                "trial": trial_name(trial.number),
                "state": trial.state.name.lower(),
                "cause": cause(trial),
                **_taken_over(study, trial.number),
                "epochs": last.get(EPOCH, 0),
                **params,
                **{key: value for key, value in last.items() if key not in (EPOCH, *params)},
                "total_seconds": round(sum(row.get("seconds", 0.0) for row in rows), 3),
            }
        )
    columns = list(dict.fromkeys(key for line in lines for key in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _taken_over(study: SearchStudy, number: int) -> dict[str, str]:
    """Under `pbt`: after which epochs the trial went on with whose weights."""
    if study.spec.search.scheduler.type != "pbt":
        return {}
    taken = (f"{e.data['epoch']}:{trial_name(e.data['source'])}" for e in study.exploits(number))
    return {"taken_over": " ".join(taken)}


def results_table(study: SearchStudy, limit: int = 10) -> Table:
    """The best trials as a table: complete ones first, then by how far they got."""
    search = study.spec.search
    reported = [
        (last.epoch, search.sign * last.values[0], -trial.number, trial, last)
        for trial in study.trials()
        if (last := study.last_report(trial.number)) is not None
    ]
    reported.sort(key=lambda row: row[:3], reverse=True)
    table = Table(title=f"{study.folder.name}: {len(study.finished())} of {study.target} trials")
    for column in ("trial", "state", "epochs", *search.metrics, *study.spec.space):
        table.add_column(column, justify="left" if column in ("trial", "state") else "right")
    for epoch, _, _, trial, last in reported[:limit]:
        params = study.params(trial)
        table.add_row(
            trial_name(trial.number),
            f"{trial.state.name.lower()} {cause(trial)}".strip(),
            str(epoch),
            *("" if math.isnan(value) else f"{value:.4g}" for value in last.values),
            *(format_value(params[name]) if name in params else "" for name in study.spec.space),
        )
    return table


def format_value(value: Any) -> str:
    """A parameter as people write it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def print_results(study: SearchStudy, console: Console) -> None:
    """The table, the winner, and what to type next."""
    console.print(results_table(study))
    failed = [trial for trial in study.finished() if cause(trial)]
    for trial in failed:
        console.print(f"{trial_name(trial.number)} failed: {cause(trial)}")
    best = winner(study)
    if best is None:
        console.print("No trial has reported yet.")
        return
    lines = confirmed_lines(study)
    if lines:
        table = Table(title="Trained again with new seeds; the best mean wins")
        for column in ("trial", "seeds", "mean", "sd", "in the search", "each seed"):
            table.add_column(column, justify="right")
        for line in lines:
            table.add_row(*line)
        console.print(table)
    metric, folder = study.spec.search.primary, study.place.address()
    settings = "  ".join(f"{name} {format_value(value)}" for name, value in study.params(best).items())
    last = study.last_report(best.number)
    assert last is not None
    console.print(
        f"\nBest: {trial_name(best.number)}, {metric} {last.values[0]:.4f} "
        f"after {study.how_far(best.number)}: {settings}"
    )
    way = lineage(study, best.number)
    if len(way) > 1:
        console.print("These are its last settings; its weights went through:")
        for stretch in way:
            values = "  ".join(f"{name} {format_value(value)}" for name, value in stretch.params.items())
            console.print(f"  {stretch}: {values}", highlight=False)
    if front := pareto_front(study):
        names = ", ".join(trial_name(trial.number) for trial in front)
        console.print(f"None is better in every objective than: {names} (Pareto front)")
    # Before the first end of the command, none of these are there.
    about_weights = f"{BEST_WEIGHTS_FILE}.json"  # of a bucket's files only the small ones are fetched
    for label, name, sign in (
        ("report", "report.html", "report.html"),
        ("all trials", TRIALS_FILE, TRIALS_FILE),
        ("best configuration", BEST_CONFIG_FILE, BEST_CONFIG_FILE),
        ("its weights", BEST_WEIGHTS_FILE, about_weights),
    ):
        if (study.folder / sign).exists():
            console.print(f"  {label:18}  {folder}/{name}")
    console.print("Next:")
    console.print(f"  tensorboard --logdir {shlex.quote(folder)}", soft_wrap=True)
    if (study.folder / BEST_CONFIG_FILE).exists():
        console.print(f"  {train_command(study, BEST_CONFIG_FILE)} --out model.weights", soft_wrap=True)


def train_command(study: SearchStudy, name: str) -> str:
    """What trains a configuration in the search's folder as the search did, on as many workers."""
    workers = study.spec.resources.workers
    command = f"python run_train.py {shlex.quote(study.place.address(name))}"
    return f"{command} --workers {workers}" if workers > 1 else command
