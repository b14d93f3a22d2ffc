"""Kills workers, nodes and drivers of training runs on a real Ray cluster.

Each driver is ``aiaic train`` in its own process group; its workers run on two Ray nodes on this
machine. Run as a script, this module is the driver:

    python -m fault_injection.train_kills_ray train --stage all ...

Its workers are slowed down in each step and each checkpoint, so that kills hit both on a machine of
any speed. Only descendants of this process are ever killed.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_injection import train_kills
from fault_injection.processes import Nodes, descendants, wait_for

KINDS = ("worker", "node", "driver")
MOMENTS = ("step", "save", "start")
STEP_S, SAVE_S = 0.04, 0.15
_ROOT = Path(__file__).parents[1]


def work(values: dict[str, Any]) -> Any:
    """The training function of a worker, slowed down."""
    import ray.train

    from aiaic.checkpointing import checkpoint
    from aiaic.training import loop
    from workflows.cluster import train_worker

    hang = _hang_of(values["job"]["out"])
    if ray.train.get_context().get_world_rank() == 0:
        loop.train_step = _logged(loop.train_step, _steps_of(values["job"]["out"]))
    elif ray.train.get_context().get_world_rank() == 1 and hang.exists():
        hang.unlink()
        os.kill(os.getpid(), signal.SIGSTOP)
    loop.train_step = _slowed(loop.train_step, STEP_S)
    checkpoint.write_record = _slowed(checkpoint.write_record, SAVE_S)
    return train_worker.train(values)


def _slowed(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(seconds)
        return function(*arguments, **named)

    return slow


def _logged(function: Callable[..., Any], steps: Path) -> Callable[..., Any]:
    def logged(trainer: Any, *arguments: Any) -> Any:
        with steps.open("a") as file:
            file.write(f"{trainer.step}\n")
        return function(trainer, *arguments)

    return logged


def _steps_of(out: str | Path) -> Path:
    return Path(f"{out}.steps")


def _hang_of(out: str | Path) -> Path:
    return Path(f"{out}.hang")


def drive() -> int:
    """Runs the command line with slow workers and a driver that soon notices that the cluster grew.

    If RAYS_OWN is set in the environment, Ray Train itself restarts and resizes the workers.
    """
    import logging

    import ray.train

    from fault_injection import train_kills_ray
    from workflows import cli
    from workflows.cluster import elastic_scaling, retry_policy, train_driver

    retry_policy.DELAYS_S = retry_policy.DELAYS_S[: int(os.environ.get("DELAYS", "9"))]
    train_driver.GROW_EVERY_S = 2.0
    train_driver.FLUSH_WITHIN_S = 5.0
    original = train_driver._Driver._trainer

    def log_workers(driver: Any, count: int, channel: Any) -> Any:
        sys.stderr.write(f"workers: {count}\n")
        trainer = original(driver, count, channel)
        trainer.train_loop_per_worker = train_kills_ray.work
        return trainer

    if "RAYS_OWN" in os.environ:
        train_driver.FailureConfig = lambda **_: ray.train.FailureConfig(max_failures=-1)
        elastic_scaling.ScalingConfig = lambda **_: ray.train.ScalingConfig(
            num_workers=(1, 2), elastic_resize_monitor_interval_s=train_driver.GROW_EVERY_S
        )
    train_driver._Driver._trainer = log_workers  # pyright: ignore[reportAttributeAccessIssue]
    logging.captureWarnings(True)
    return cli.main(sys.argv[1:])


@dataclass(kw_only=True)
class Driver:
    """One training run, whose command may be started several times."""

    nodes: Nodes
    shards: str
    out: Path
    arguments: Sequence[str]
    """Arguments of ``aiaic train`` besides shards and output folder."""
    environment: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[str] | None" = None

    def hang(self) -> None:
        """Makes the next worker of rank 1 hang as it starts, once."""
        _hang_of(self.out).touch()

    @property
    def hang_is_due(self) -> bool:
        """Whether no worker has hung yet since ``hang``."""
        return _hang_of(self.out).exists()

    def start(self) -> None:
        """Starts or restarts the command."""
        command = [sys.executable, "-m", "fault_injection.train_kills_ray", "train"]
        command += ["--shards", self.shards, "--out", str(self.out), "--tracking-uri", "none"]
        environment = os.environ | {"RAY_ADDRESS": self.nodes.cluster.address}
        with self._errors.open("a") as errors:
            self.process = subprocess.Popen(
                [*command, *self.arguments],
                env=environment | {"OMP_NUM_THREADS": "1"} | self.environment,
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    def wait(self, timeout_s: float = 240) -> int:
        """Waits for the command and returns its exit code."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """Kills the command if it is still running."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @property
    def log_lines(self) -> list[str]:
        """Non-empty lines that the command has written to stderr."""
        text = self._errors.read_text().replace("\r", "\n")
        return [line for line in text.splitlines() if line.strip()]

    @property
    def sizes(self) -> list[int]:
        """Number of workers of each attempt."""
        return [int(line[9:]) for line in self.log_lines if line.startswith("workers: ")]

    @property
    def repeated(self) -> int:
        """Number of steps that rank 0 has repeated so far."""
        started = _steps_of(self.out).read_text().split()
        return len(started) - len(set(started))

    def newest(self, stage: int) -> int:
        """Step of the newest checkpoint; 0 if there is none."""
        found = (self.out / f"stage{stage}").glob("step-*/checkpoint.json")
        return max((int(path.parent.name[5:]) for path in found), default=0)

    def wait_for_checkpoint(self, stage: int, step: int) -> None:
        """Waits for a checkpoint of at least this step."""
        self._wait(lambda: self.newest(stage) >= step, f"checkpoint of step {step}")

    def wait_for_attempt(self, attempts: int) -> None:
        """Waits until this many attempts have started and the last one has saved a checkpoint."""
        self._wait(lambda: len(self.sizes) >= attempts, f"attempt {attempts}")
        self._wait(workers, "worker")
        before = sum(map(self.newest, (1, 2, 3)))
        self._wait(lambda: sum(map(self.newest, (1, 2, 3))) > before, "checkpoint")

    def _wait(self, condition: Callable[[], Any], what: str) -> Any:
        result = wait_for(lambda: condition() or self._code is not None, what, 180)
        if not condition() and self._code is not None:
            raise RuntimeError(
                f"no {what}: the driver ended with {self._code}: {self.log_lines[-3:]}"
            )
        return result

    @property
    def _code(self) -> int | None:
        assert self.process is not None
        return self.process.poll()

    @property
    def _errors(self) -> Path:
        return self.out.with_suffix(".err")


def workers() -> list[int]:
    """Process ids of Ray Train's workers."""
    lines = descendants(os.getpid()).items()
    return sorted(pid for pid, line in lines if "RayTrainWorker" in line)


def faults(shards: str, out: Path, settings: Sequence[str], stages: Sequence[int]) -> list[str]:
    """What is wrong with a finished run: each sample of each step must count exactly once."""
    from aiaic import recipes
    from aiaic.checkpointing import checkpoint
    from aiaic.loading import sampler
    from workflows.artifacts import run_folder
    from workflows.artifacts.samples import open_samples

    recipe = recipes.load(settings=tuple(settings))
    samples = open_samples(shards, "train")
    found = []
    for stage in stages:
        folder = out / f"stage{stage}"
        finished = run_folder.read_result(str(folder))
        if finished is None:
            found.append(f"stage {stage} is not finished")
            continue
        steps = (recipe.stage1, recipe.stage2, recipe.stage3)[stage - 1].steps
        record = checkpoint.read_record(folder / finished.final)
        if record.ledger != sampler.ledger(samples.train, recipe.sampling, 0, steps):
            found.append(f"stage {stage}: samples were skipped or repeated")
        every = recipe.training.report_every
        expected = [step for step in range(1, steps + 1) if step % every == 0 or step == steps]
        if [row["step"] for row in record.curves if "loss" in row] != expected:
            found.append(f"stage {stage}: the curves have missing or extra steps")
        for name in (finished.final, finished.best):
            checkpoint.verify(folder / name)
        found += [f"{path.name} is left over" for path in folder.glob(".step-*")]
    return found


@dataclass(frozen=True, kw_only=True)
class Kill:
    """What is killed, and when."""

    kind: str
    stage: int
    step: int
    """Kill after the checkpoint of this step; ignored if ``moment`` is ``start``."""
    moment: str
    """``step``: between two checkpoints; ``save``: while one is written; ``start``: just after the
    workers have restarted from the previous kill."""
    delay_s: float


def draw(seed: int, count: int, steps: int, every: int) -> Iterator[Kill]:
    """Yields kills: kinds and moments in turn, spread over all stages."""
    rng = random.Random(seed)
    for number in range(count):
        stage, within = 1 + 3 * number // count, 3 * number % count / count
        moment = MOMENTS[(number // len(KINDS) + number) % len(MOMENTS)]
        yield Kill(
            kind=KINDS[number % len(KINDS)],
            stage=stage,
            step=every * max(1, int(within * (steps // every - 2))),
            moment=moment,
            delay_s=round(rng.random() * (4.0 if moment == "start" else STEP_S * every), 3),
        )


@dataclass(kw_only=True)
class Outcome:
    """The outcome of a kill."""

    kill: Kill
    at_step: int = 0
    """Step of the newest checkpoint when the kill happened."""
    detected_s: float = 0.0
    """From the kill until new workers run."""
    back_s: float = 0.0
    """From the kill until the next checkpoint; 0 if another kill came first."""


def kill_and_resume(driver: Driver, kills: Sequence[Kill]) -> list[Outcome]:
    """Starts a training run and kills it as listed; the caller waits for it to finish."""
    outcomes: list[Outcome] = []
    before: set[int] = set()
    driver.start()
    for kill in kills:
        if kill.moment == "start":
            driver._wait(lambda before=before: set(workers()) - before, "new worker")
        else:
            driver.wait_for_checkpoint(kill.stage, kill.step)
            if kill.moment == "save":
                folder = driver.out / f"stage{kill.stage}"
                driver._wait(lambda folder=folder: list(folder.glob(".step-*")), "save")
        if kill.moment != "save":
            time.sleep(kill.delay_s)
        before = set(workers())
        outcome = Outcome(kill=kill, at_step=driver.newest(kill.stage))
        started, total = time.monotonic(), _total(driver)
        _hit(driver, kill.kind)
        outcomes.append(outcome)
        if kill.kind == "driver":
            wait_for(lambda before=before: not before & set(workers()), "end of the workers")
            driver.start()
        elif kill.kind == "node":
            driver.nodes.restore()
        driver._wait(lambda before=before: set(workers()) - before, "new worker")
        outcome.detected_s = round(time.monotonic() - started, 1)
        if kill is kills[-1] or kills[len(outcomes)].moment != "start":
            driver._wait(lambda total=total: _total(driver) > total, "checkpoint")
            outcome.back_s = round(time.monotonic() - started, 1)
    return outcomes


def _total(driver: Driver) -> int:
    return sum(driver.newest(stage) for stage in (1, 2, 3))


def _hit(driver: Driver, kind: str) -> None:
    if kind == "driver":
        driver.kill()
    elif kind == "node":
        driver.nodes.kill()
    elif found := workers():
        os.kill(found[-1], signal.SIGKILL)


def settings(**more: float) -> tuple[str, ...]:
    """Settings of a small training run."""
    ours = {key: str(value) for key, value in (pair.split("=") for pair in train_kills.SETTINGS)}
    ours |= {key.replace("__", "."): json.dumps(value) for key, value in more.items()}
    return tuple(f"{key}={value}" for key, value in ours.items())


if __name__ == "__main__":
    sys.exit(drive())
