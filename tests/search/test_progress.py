import io
from types import SimpleNamespace

from rich.console import Console

from search.progress import Progress
from tests.search.conftest import make_spec, row


def test_the_live_table_says_how_long_and_how_much() -> None:
    text = io.StringIO()
    console = Console(file=text, width=160)
    progress = Progress(make_spec(num_samples=3), console, finished=0, cpus=2, gpus=0.5)
    settings = {"learning_rate": 0.01, "time_steps": 2}
    first, second = (SimpleNamespace(config={"number": n, "config": settings}) for n in range(2))
    for trial in (first, second):
        progress.on_trial_start(0, [], trial)
    progress.on_trial_result(0, [], first, row(9, 0.75, finished=True))
    progress.on_trial_complete(0, [], first)
    console.print(progress._render())
    shown = text.getvalue()
    assert "1/3 trials done, 1 running" in shown
    assert "best 0.7500 (trial_0000, epoch 9)" in shown
    assert "left; 0.00 CPU-hours, 0.00 GPU-hours" in shown
