"""Kill a search at random instants, again and again, and compare what it finds with a search left alone.

Each time the same command is started; at a random instant SIGKILL goes to its driver, to one of its trial
processes, to Ray's raylet, or to all at once. When the kills are spent the command runs to its end. Then
counted: configurations, ends and curves that differ from the undisturbed search's, epochs missing from or
repeated in a trial's rows, finished trials whose rows changed after they had ended, reports that vanished
from the journal, drivers that hung and processes left behind. Every count should be 0.

By default each command starts a Ray of its own, which has to end with it. With --cluster all commands join
one Ray cluster, as under `ray job submit`; its raylet is then not killed, and actors and placement groups
that a killed driver leaves in it are counted.

    python -m benchmarks.chaos_search --kills 50
    python -m benchmarks.chaos_search --kills 20 --cluster
    python -m benchmarks.chaos_search --kills 20 --scheduler pbt
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import yaml
from optuna.trial import TrialState

from search.journal import mend
from search.spec import stored_spec
from search.study import SearchStudy, trial_name
from trainable.tracking import read_rows

ROOT = Path(__file__).parents[1]
INTERVAL = 2
SPEC: dict[str, Any] = {
    "train": {
        "dataset": "digits",
        "cell_type": "rnn",
        "skip_first": True,
        "filters": [4, 8],
        "pools": [True, True],
        "first_kernel": 3,
        "first_stride": 2,
        "batch_size": 64,
        "epochs": 9,
        "time_steps": 2,
        "checkpoint_interval": INTERVAL,
    },
    "space": {
        "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "weight_decay": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True},
    },
    "search": {
        "num_samples": 8,
        "max_failures": 10**6,  # the killer is not the trial's fault
        "sampler": {"startup_trials": 3},
        "scheduler": {"grace_period": 1, "reduction_factor": 3},
    },
    "resources": {"concurrent_trials": 1, "cpus_per_worker": 1},
}
_RAY = [sys.executable, "-m", "ray.scripts.scripts"]
VICTIMS = ("driver", "trial", "raylet", "everything")


SCHEDULERS: dict[str, dict[str, Any]] = {
    "asha": {"grace_period": 1, "reduction_factor": 3},
    "promote": {"grace_period": 1, "reduction_factor": 3, "promote": True},
    "pbt": {"type": "pbt", "perturbation_interval": INTERVAL},
}


class Cluster:
    """A Ray cluster that outlives the commands. As a context manager: started, and stopped."""

    def __init__(self, port: int = 6399) -> None:
        self.address = f"127.0.0.1:{port}"
        # On loopback alone, so that no token is needed.
        self.environment = {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "disabled"}
        self._port = port

    def __enter__(self) -> Cluster:
        options = [f"--port={self._port}", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
        self._head = subprocess.Popen(
            [*_RAY, "start", "--head", "--include-dashboard=false", "--block", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **self.environment},
        )
        deadline = time.monotonic() + 120
        while not self._answers():
            if time.monotonic() > deadline or self._head.poll() is not None:
                self.__exit__()
                raise RuntimeError(f"no Ray cluster started at {self.address}")
            time.sleep(1)
        return self

    def _answers(self) -> bool:
        status = [*_RAY, "status", f"--address={self.address}"]
        return not subprocess.run(
            status, capture_output=True, env={**os.environ, **self.environment}
        ).returncode

    def __exit__(self, *_: object) -> None:
        for member in self.processes():
            with contextlib.suppress(psutil.Error):
                member.kill()
        self._head.kill()
        self._head.wait()

    def processes(self) -> list[psutil.Process]:
        """All of its processes."""
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self._head.pid).children(recursive=True)
        return []

    def leaks(self, patience: float = 60) -> Counter[str]:
        """Actors and placement groups that are there although no command runs; Ray has `patience` seconds."""
        script = (
            "import sys, ray\n"
            "ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')\n"
            "from ray._private.state import actors\n"
            "groups = ray.util.placement_group_table().values()\n"
            "print(sum(a['State'] != 'DEAD' for a in actors().values()),"
            " sum(g['state'] != 'REMOVED' for g in groups))"
        )
        deadline = time.monotonic() + patience
        while True:
            command = [sys.executable, "-c", script, self.address]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env={**os.environ, **self.environment}
            )
            alive, groups = map(int, done.stdout.split()[-2:])
            if not alive and not groups or time.monotonic() > deadline:
                return Counter({"leaked actors": alive, "leaked placement groups": groups})


def start(space: Path, storage: Path, name: str, cluster: Cluster | None) -> subprocess.Popen[bytes]:
    """The command, in a session of its own; its output goes to NAME.txt."""
    environment = {
        "RECURRENT_VISION_CACHE": str(storage / "cache"),
        **(cluster.environment if cluster else {}),
    }
    with (storage / f"{name}.txt").open("ab") as output:
        return subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "run_search.py"),
                str(space),
                "--storage",
                str(storage),
                "--name",
                name,
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Its own copy of the sample: another version of the project may rewrite the shared one.
            env={**os.environ, **environment},
        )


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The command and every process below it."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def strike(process: subprocess.Popen[bytes], victim: str, cluster: Cluster | None) -> bool:
    """SIGKILL the victim; False if there is none yet."""
    chosen = []
    for member in family(process) + (cluster.processes() if cluster else []):
        try:
            command = " ".join(member.cmdline())
        except psutil.Error:
            continue
        is_driver = member.pid == process.pid
        kinds = {
            "driver": is_driver,
            "trial": command.startswith("ray::") and "Agent" not in command,
            "raylet": "/raylet/raylet" in command,
        }
        everything = victim == "everything" and (is_driver or kinds["trial"] or not cluster)
        if everything or kinds.get(victim):
            chosen.append(member)
    for member in chosen:
        with contextlib.suppress(psutil.Error):
            member.kill()
    return bool(chosen)


def wait_until_gone(members: list[psutil.Process], seconds: float = 90) -> int:
    """Wait for processes to end by themselves; how many did not.

    Of a killed Ray, two agents of its raylet last longest: they try to report its death to Ray's server,
    which is dead too, for 60 s.
    """
    _, alive = psutil.wait_procs(members, timeout=seconds)
    return len(alive)


class Watcher:
    """Looks at the search's files between kills, and counts what must not happen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self._ended: dict[int, list[dict[str, Any]]] = {}
        self._epochs: dict[int, int] = {}
        self._recorded: dict[int, list[Any]] = {}

    def look(self) -> None:
        """Compare with the last look."""
        if not (self.folder / "journal.log").exists():
            return
        mend(self.folder)  # the writer is dead
        study = SearchStudy(self.folder, stored_spec(self.folder))
        for trial in study.trials():
            rows = read_rows(self.folder / trial_name(trial.number))
            reports = study.reports(trial.number)
            before = self._recorded.get(trial.number, [])
            self.counts["reports lost or changed in the journal"] += reports[: len(before)] != before
            self._recorded[trial.number] = reports
            if trial.number in self._ended:
                self.counts["finished trials done again"] += rows != self._ended[trial.number]
            elif trial.state.is_finished():
                self._ended[trial.number] = rows


def compare(left_alone: Path, killed: Path, counts: Counter[str]) -> None:
    """Count what differs between two finished searches."""
    one, other = (SearchStudy(folder, stored_spec(folder)) for folder in (left_alone, killed))
    counts["trials too many or too few"] = abs(len(one.trials()) - len(other.trials()))
    for a, b in zip(one.trials(), other.trials(), strict=False):
        counts["configurations that differ"] += one.params(a) != other.params(b)
        counts["ends that differ"] += a.state != b.state
        counts["curves that differ"] += a.intermediate_values != b.intermediate_values
        epochs = [row["epoch"] for row in read_rows(killed / trial_name(b.number))]
        last = max(b.intermediate_values)
        counts["metric rows lost or doubled"] += epochs[:last] != list(range(1, last + 1))
    counts["trials without an end"] = sum(t.state == TrialState.RUNNING for t in other.trials())


def main() -> int:
    """Kill, resume, compare; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="how often to kill (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="seed of instants and victims")
    parser.add_argument(
        "--trials", type=int, help="trials of the search (default: four times as many as kills)"
    )
    parser.add_argument("--victim", choices=VICTIMS, help="always this one (default: all in turn)")
    parser.add_argument("--cluster", action="store_true", help="one Ray cluster that outlives the commands")
    parser.add_argument(
        "--scheduler",
        choices=list(SCHEDULERS),
        default="asha",
        help="who stops or pauses trials (default: asha)",
    )
    arguments = parser.parse_args()
    victims = [victim for victim in VICTIMS if not (arguments.cluster and victim == "raylet")]
    SPEC["search"]["scheduler"] = SCHEDULERS[arguments.scheduler]
    generator = random.Random(arguments.seed)
    SPEC["search"]["num_samples"] = arguments.trials or 4 * arguments.kills
    with contextlib.ExitStack() as stack:
        storage = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        cluster = stack.enter_context(Cluster()) if arguments.cluster else None
        space = storage / "space.yaml"
        space.write_text(yaml.safe_dump(SPEC))
        started = time.monotonic()
        if start(space, storage, "alone", cluster).wait() != 0:
            print((storage / "alone.txt").read_text())
            return 1
        alone_s = time.monotonic() - started
        watcher, struck = Watcher(storage / "killed"), Counter[str]()
        process = start(space, storage, "killed", cluster)
        for kill in range(arguments.kills):
            victim = arguments.victim or victims[kill % len(victims)]
            # Mostly while trials run, now and then while everything is still starting up.
            journal = watcher.folder / "journal.log"
            size = journal.stat().st_size if journal.exists() else 0
            deadline = time.monotonic() + 60
            early = generator.random() < 0.15
            while not early and process.poll() is None and time.monotonic() < deadline:
                if journal.exists() and journal.stat().st_size > size:
                    break
                time.sleep(0.01)
            time.sleep(generator.uniform(0.0, 5.0 if early else 1.5))
            if process.poll() is not None:
                break  # it has finished
            members = family(process)
            struck[victim] += strike(process, victim, cluster)
            print(
                f"{time.monotonic() - started:6.0f} s  kill {kill + 1} of {arguments.kills}: {victim}",
                flush=True,
            )
            if victim != "trial":
                try:
                    process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    watcher.counts["drivers that hung"] += 1
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                watcher.counts["processes left behind"] += wait_until_gone(members)
                watcher.counts.update(cluster.leaks() if cluster else {})
                watcher.look()
                process = start(space, storage, "killed", cluster)
        members = family(process)
        try:
            code = process.wait(timeout=600)
        except subprocess.TimeoutExpired:
            code = -1
            os.killpg(process.pid, signal.SIGKILL)
        watcher.counts["processes left behind"] += wait_until_gone(members)
        if code != 0:
            print((storage / "killed.txt").read_text()[-4000:])
            return 1
        watcher.counts.update(cluster.leaks() if cluster else {})
        watcher.look()
        compare(storage / "alone", storage / "killed", watcher.counts)
        seconds = time.monotonic() - started - alone_s
        print(
            f"{sum(struck.values())} kills ({json.dumps(struck)}) in {seconds:.0f} s; alone {alone_s:.0f} s"
        )
        for what, count in sorted(watcher.counts.items()):
            print(f"{count:6d}  {what}")
        return 0 if not any(watcher.counts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
