"""report.html: one file with everything in it, and its figures as PNG files beside it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from search.confirm import confirmed_lines
from search.report import courses, population, spaces
from search.report.facts import FATES, SearchFacts, TrialFacts, read_facts
from search.report.results import format_value
from search.report.style import COLOURS, png
from search.study import SearchStudy
from trainable import atomic

REPORT_FILE = "report.html"
FIGURES_FOLDER = "figures"

FIGURES: dict[str, tuple[Callable[[SearchFacts], Figure | None], str, str]] = {
    "history": (
        courses.history,
        "History",
        "Last value of every trial. The line is the best of complete ones: only like is compared with like.",
    ),
    "curves": (courses.curves, "Learning curves", "One line per trial, coloured by how it ended."),
    "time_steps": (
        courses.time_steps,
        "Accuracy by time step",
        "The best trials at their last epoch, read out after each step of the recurrence.",
    ),
    "pareto": (
        courses.pareto,
        "Pareto front",
        "Complete trials; on the line those that no other beats in all objectives at once.",
    ),
    "importance": (
        spaces.importance,
        "Which parameters matter",
        "fANOVA over complete trials: the share of their variance that each parameter explains by itself.",
    ),
    "parallel": (
        spaces.parallel,
        "Parallel coordinates",
        "A line per trial; it breaks where a parameter does not count in that trial.",
    ),
    "slices": (spaces.slices, "Slices", "Last value of every trial over each parameter."),
    "instability": (
        spaces.instability,
        "Instability",
        "Where training stayed finite and where it diverged, over learning rate and time steps.",
    ),
    "schedules": (
        population.schedules,
        "Settings over time",
        "Population based training: the winner's weights went through all of these settings, in this order.",
    ),
    "rungs": (courses.rungs, "Rungs", "Who came to each rung of the scheduler, and who went on."),
    "cost": (
        courses.cost,
        "Cost",
        "Time spent in epochs, and the time that ending trials early saved at each trial's own pace.",
    ),
}
"""File name -> (how it is drawn, title, what it shows)."""


def write_report(study: SearchStudy) -> Path:
    """Write report.html and figures/*.png into the search's folder; a figure without data is left out."""
    facts = read_facts(study)
    shown = []
    for name, (draw, title, note) in FIGURES.items():
        figure = draw(facts)
        path = study.folder / FIGURES_FOLDER / f"{name}.png"
        if figure is None:
            study.place.delete([f"{FIGURES_FOLDER}/{name}.png"])
            continue
        data = png(figure)
        atomic.write_bytes(path, data)
        warning = spaces.importance_warning(facts) if name == "importance" else ""
        shown.append(
            {"title": title, "note": note, "warning": warning, "data": base64.b64encode(data).decode()}
        )
    path = study.folder / REPORT_FILE
    atomic.write_text(path, _page(facts, shown))
    return path


def _page(facts: SearchFacts, figures: list[dict[str, str]]) -> str:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(Path(__file__).with_name("page.html").read_text())
    columns = ["trial", "state", "epochs", *facts.spec.search.metrics, *facts.spec.space, "minutes", "cause"]
    return template.render(
        name=facts.folder.name,
        metric=facts.metric,
        summary=_summary(facts),
        key_facts=_key_facts(facts),
        confirmed=confirmed_lines(facts.study),
        figures=figures,
        colours=COLOURS,
        columns=columns,
        lines=[_line(facts, trial) for trial in facts.trials],
        commands=[facts.command(trial) for trial in facts.trials if trial.fate != "running"],
        spec=facts.spec.to_yaml(),
    )


def _summary(facts: SearchFacts) -> str:
    counts = {fate: len(facts.of(fate)) for fate in FATES}
    ended = ", ".join(f"{count} {fate}" for fate, count in counts.items() if count)
    return f"{len(facts.trials)} of {facts.study.target} trials: {ended or 'none yet'}"


def _key_facts(facts: SearchFacts) -> list[tuple[str, str]]:
    search = facts.spec.search
    lines = [
        (
            "objective",
            ", ".join(f"{m} ({d})" for m, d in zip(search.metrics, search.directions, strict=True)),
        ),
        ("sampler, scheduler", f"{search.sampler.type}, {search.scheduler.type}; seed {search.seed}"),
    ]
    if facts.best is not None:
        best = facts.best
        drawn = ", ".join(f"{name} {format_value(value)}" for name, value in best.drawn.items())
        lines += [
            (
                "best",
                f"{best.name}: {facts.metric} {best.last(facts.metric):.4f} "
                f"after {facts.study.how_far(best.number)}",
            ),
            ("its settings", drawn),
        ]
        if best.fate != "complete":
            lines.append(("note", "no trial has run to its end yet; this one came furthest"))
    spent, saved = sum(t.seconds for t in facts.trials), sum(map(facts.saved, facts.trials))
    lines.append(("training time", f"{spent / 3600:.3g} h spent, {saved / 3600:.3g} h saved by ending early"))
    return lines


def _line(facts: SearchFacts, trial: TrialFacts) -> dict[str, Any]:
    values = [trial.last(metric) for metric in facts.spec.search.metrics]
    cells = [
        trial.name,
        trial.fate,
        str(trial.epochs),
        *("" if value != value else f"{value:.4g}" for value in values),
        *(format_value(trial.drawn[name]) if name in trial.drawn else "" for name in facts.spec.space),
        f"{trial.seconds / 60:.2f}",
        trial.cause,
    ]
    best = facts.best is not None and trial.number == facts.best.number
    return {"cells": cells, "fate": trial.fate, "best": best}
