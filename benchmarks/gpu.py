"""One GPU: whether it computes what the CPU does, whether compiled code runs on it, and how fast its steps are.

A machine with a CUDA device and PyTorch is all that it needs; nothing is downloaded. Each part has an estimate in
seconds and is left out when the budget would not hold it. Results are printed as they come, and written to OUT/gpu.json
after each part, so that an interrupted run has results too.

    right      float64 on the GPU against the CPU: losses, weights, averages, paths between models, sharpness
    compiled   whether compilation works, also without the CUDA toolkit; compiled steps against eager ones
    bits       the same run twice, and interrupted: the same bits? TF32: how far from float64?
    speed      microseconds per step and run-step of ticks, a ConvNet and a ResNet-18, eager, compiled and in bfloat16
    memory     whether a stack beyond memory is split, eager and compiled
    several    processes on one GPU: steps per second of all together

    python benchmarks/gpu.py --out OUT [--only right,speed] [--budget 540]
    python benchmarks/gpu.py --out OUT --dry-run      # tiny sizes on the CPU: a trial of this script
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from lratlas.data.ticks import ticks
from lratlas.devices import describe_device, float32_precision, reproducible
from lratlas.measure.curvature import sharpness_measure
from lratlas.measure.hessian import seed_samples
from lratlas.measure.paths import angular_distance, path_errors
from lratlas.models.convnet import ConvNet
from lratlas.models.mlp import MLP
from lratlas.models.resnet import ResNet18
from lratlas.stacks.tensors import initial_tensors, program_of, samples
from lratlas.task import Task
from lratlas.training.averaging import add_checkpoint, average_tails
from lratlas.training.batches import batch_indices
from lratlas.training.compiling import why_not_compiled
from lratlas.training.evaluate import evaluate_stack, pool_buffers
from lratlas.training.placing import copy_to
from lratlas.training.prepared import make_model, task_on
from lratlas.training.program import Strategy
from lratlas.training.state import start_stack
from lratlas.training.trainer import Trained, train_stack

HOST = torch.device("cpu")
SPHERE = {"name": "sphere_sgd", "radius": 12.0}
Case = tuple[Callable[[], Task], Strategy, Sequence[float]]


def ticks_task() -> Task:
    drawn = ticks(seed=1)
    model = partial(MLP, drawn.train[0].shape[1], (32, 32), 1, scale_invariant=True)
    sets: dict[str, Any] = {"train": drawn.train, "test": drawn.test}
    return Task(name="ticks", model=model, **sets, loss="binary_cross_entropy", batch_size=16, rule="sphere_sgd")


def vector_task(rule: Any) -> Task:
    drawn = np.random.default_rng(1)
    y = drawn.integers(0, 10, 600)
    x = (drawn.normal(size=(600, 32)) + 0.7 * np.eye(10, 32)[y]).astype(np.float32)

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 10))

    return Task(model=model, train=(x[:400], y[:400]), test=(x[400:], y[400:]), batch_size=40, rule=rule)


def image_task(kind: type[ConvNet] | type[ResNet18], width: int, *, count: int, side: int, batch: int) -> Task:
    drawn = np.random.default_rng(0)
    y = drawn.integers(0, 10, count + count // 4)
    x = drawn.normal(size=(len(y), 3, side, side)) + 0.2 * np.cos(y[:, None, None, None] + np.arange(side) / 3)
    sets: dict[str, Any] = {"train": (x[:count], y[:count]), "test": (x[count:], y[count:])}
    model = partial(kind, channels=3, classes=10, width=width, scale_invariant=True)
    return Task(model=model, **sets, batch_size=batch, rule=SPHERE)


class Bench:
    """A stack of a task's runs on a device."""

    def __init__(
        self,
        task: Task,
        strategy: Strategy,
        lrs: Sequence[float],
        device: torch.device,
        *,
        seeds: int = 1,
        dtype: torch.dtype = torch.float32,
        compiled: bool = False,
        mixed: bool = False,
    ) -> None:
        self.task, self.seeds, self.device, self.runs = task_on(task.prepared, device, dtype), seeds, device, 0
        tasks, numbers = [self.task] * seeds, list(range(seeds))
        self.start, buffers, frozen = initial_tensors(tasks, numbers, len(lrs), dtype=dtype, device=device)
        self.program = program_of(self.task, strategy=strategy, compiled=compiled, device=device, mixed_precision=mixed)
        self.stack = start_stack(self.start, buffers, self.task.update)
        self.train, self.test = (samples(tasks, part, frozen, dtype=dtype, device=device) for part in ("train", "test"))
        self.lrs = torch.tensor([*lrs], dtype=dtype, device=device).expand(seeds, -1).contiguous()
        self.runs = self.lrs.numel()

    def advance(self, steps: int, **more: Any) -> Trained:
        """Train on from the current step."""
        first = self.stack.step
        sizes: dict[str, Any] = {"samples": self.task.samples, "batch_size": self.task.samples_per_step}
        order = [batch_indices(seed=seed, start=first, stop=first + steps, **sizes) for seed in range(self.seeds)]
        batches = torch.stack(order, 1).to(self.device)
        trained = train_stack(self.program, self.stack, lrs=self.lrs, batches=batches, train=self.train, **more)
        self.stack = trained.stack
        return trained

    def flat(self) -> Tensor:
        """All weights."""
        return torch.cat([value.flatten() for value in self.stack.weights.values()])

    def wait(self) -> None:
        """Wait for the device."""
        self.stack.alive.tolist()


def apart(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest number; infinite if NaNs differ in place."""
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    if not torch.equal(a.isnan(), b.isnan()):
        return float("inf")
    a, b = a.nan_to_num(), b.nan_to_num()
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) if a.numel() else 0.0


def results(bench: Bench, steps: int) -> dict[str, Tensor]:
    """What a study computes from a stack: traces, weights, averages, and a path from the start to the average."""
    trained = bench.advance(steps, trace_every=1, test=bench.test, snapshots=range(steps - 2, steps + 1))
    tails = {}
    for rank, step in enumerate(sorted(trained.snapshots, reverse=True)):
        tails = add_checkpoint(tails, [3], trained.snapshots[step], rank=rank)
    rule, size = bench.task.update, bench.task.samples_per_step
    mean = average_tails(tails, rule=rule, like=bench.stack.weights)[3]
    pooled = pool_buffers(bench.program, mean, bench.stack.buffers, bench.train, batch_size=size)
    sets = {"train": bench.train, "test": bench.test}
    path = path_errors(bench.program, bench.start, mean, bench.stack.buffers, sets, points=3, batch_size=size)
    return {
        "training losses": torch.stack([row.train_loss for row in trained.rows]),
        "test losses": torch.stack([row.test_loss for row in trained.rows]),
        "gradient norms": torch.stack([row.gradient_norm for row in trained.rows]),
        "weights": bench.flat(),
        "loss of the average": evaluate_stack(bench.program, mean, pooled, bench.test).loss,
        "angle": angular_distance(rule.vector(bench.start), rule.vector(bench.stack.weights)),
        "errors on the path": path["test"],
    }


def sharpness(bench: Bench) -> dict[str, Tensor]:
    """The curvature at the first run."""
    task = bench.task
    model = copy_to(make_model(task, 0), "model", bench.device)
    options = {"batch_size": task.samples_per_step, "limit": 64, "probes": 4, "draws": 2}
    measure = sharpness_measure(model, task.objective, task.update, **options)
    one, kept = ({k: v[0, 0] for k, v in each.items()} for each in (bench.stack.weights, bench.stack.buffers))
    found = measure(one, kept, seed_samples(bench.train, 0), 1)
    names = ("top_eigenvalue", "trace", "fisher_trace", "gradient_norm", "train_loss")
    return {name: torch.tensor(getattr(found, name), dtype=torch.float64) for name in names}


class Check:
    """The parts of the check, their results, and the time that is left."""

    def __init__(self, device: torch.device, out: Path, budget: float, *, quick: bool) -> None:
        self.device, self.out, self.budget, self.quick = device, out, budget, quick
        self.began = time.monotonic()
        self.found: dict[str, Any] = {
            "device": describe_device(str(device)),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "checks": [],
            "rows": [],
            "left out": [],
        }

    def run(self, parts: Sequence[str]) -> None:
        """Run the parts in order; an error in one is recorded, and the next part follows."""
        for name in parts:
            if self.left() < _PARTS[name]:
                self.found["left out"].append(name)
                continue
            try:
                getattr(self, name)()
            except Exception as error:
                self.check(name, ok=False, error=f"{type(error).__name__}: {str(error)[:400]}")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.save()

    def left(self) -> float:
        return self.budget - (time.monotonic() - self.began)

    def save(self) -> None:
        self.found["seconds"] = round(time.monotonic() - self.began, 1)
        (self.out / "gpu.json").write_text(json.dumps(self.found, indent=1), encoding="utf-8")

    def check(self, name: str, *, ok: bool, **numbers: Any) -> None:
        self.found["checks"].append({"check": name, "ok": ok, **numbers})
        print("ok " if ok else "BAD", name, *(f"{key}={value}" for key, value in numbers.items()), flush=True)

    def row(self, **row: Any) -> None:
        self.found["rows"].append(row)
        print(*(f"{key}={value}" for key, value in row.items()), flush=True)

    def images(self, kind: type[ConvNet] | type[ResNet18], width: int) -> Task:
        side, batch = (8, 16) if self.quick else (32, 128)
        return image_task(kind, 4 if self.quick else width, count=8 * batch, side=side, batch=batch)

    def cases(self) -> dict[str, Case]:
        small = partial(image_task, count=160, side=8, batch=32)
        return {
            "SI MLP, sphere_sgd, stack": (ticks_task, "stack", [1e-4, 1e-3, 1e-2]),
            "MLP, AdamW, stack": (partial(vector_task, "adamw"), "stack", [1e-3, 1e-2]),
            "MLP, NAdam of torch.optim, single": (partial(vector_task, torch.optim.NAdam), "single", [1e-3]),
            "SI ConvNet, stack": (partial(small, ConvNet, 4), "stack", [1e-3, 1e-2]),
            "SI ResNet-18, single": (partial(self.images, ResNet18, 4), "single", [1e-3]),
        }

    def right(self) -> None:
        for name, (make, strategy, lrs) in self.cases().items():
            if self.quick and "ResNet" in name:  # it takes long on a CPU
                continue
            steps, kind = 4 if self.quick else 20, torch.float64
            task = make()
            host, there = (Bench(task, strategy, lrs, device, dtype=kind) for device in (HOST, self.device))
            expected, got = results(host, steps), results(there, steps)
            if "ResNet" not in name:
                expected |= sharpness(host)
                got |= sharpness(there)
            far = {key: apart(got[key], value) for key, value in expected.items()}
            # An error rate jumps by a sample, and an eigenvalue has its own tolerance; the rest is rounding.
            allowed = {"errors on the path": 2e-2, "top_eigenvalue": 1e-2}
            self.check(name, ok=all(value <= allowed.get(key, 1e-6) for key, value in far.items()), **far)

    def compiled(self) -> None:
        reason = why_not_compiled(self.device)
        self.check("compilation works", ok=not reason, reason=reason)
        if self.device.type == "cuda":
            # As on a machine that has PyTorch from a package index, without the CUDA toolkit.
            code = (
                "import torch.utils.cpp_extension as extension; extension.CUDA_HOME = None; import torch\n"
                "from lratlas.training.compiling import why_not_compiled\n"
                "print(why_not_compiled(torch.device('cuda')))"
            )
            environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(self.out / "inductor")}
            ran = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
            )
            said = (ran.stdout + ran.stderr).strip()
            self.check("compilation works without the CUDA toolkit", ok=not said, said=said[-400:])
        for strategy in get_args(Strategy) if not self.quick else ():
            lrs, task = [1e-3, 1e-2][: 2 if strategy == "stack" else 1], ticks_task()
            eager, fast = (Bench(task, strategy, lrs, self.device, compiled=each) for each in (False, True))
            for bench in (eager, fast):
                bench.advance(10)
            far = apart(fast.flat(), eager.flat())
            self.check(f"compiled steps against eager ones, {strategy}", ok=far < 1e-3, weights=far)

    def bits(self) -> None:
        steps = 4 if self.quick else 20
        cases: dict[str, Case] = {
            "ticks, stack": (ticks_task, "stack", [1e-3, 1e-2]),
            "ConvNet, single": (partial(self.images, ConvNet, 32), "single", [1e-3]),
            "ConvNet, stack": (partial(self.images, ConvNet, 8), "stack", [1e-3, 1e-2]),
        }
        for name, (make, strategy, lrs) in cases.items():
            ends, task = list[Tensor](), make()
            for lengths in ([steps], [steps], [steps // 2, steps - steps // 2]):
                bench = Bench(task, strategy, lrs, self.device)
                with reproducible(self.device):
                    for length in lengths:
                        bench.advance(length)
                ends.append(bench.flat())
            self.check(f"the same bits twice: {name}", ok=torch.equal(ends[0], ends[1]), far=apart(ends[1], ends[0]))
            self.check(
                f"the same bits interrupted: {name}", ok=torch.equal(ends[0], ends[2]), far=apart(ends[2], ends[0])
            )
        task = self.images(ConvNet, 32)
        exact = Bench(task, "single", [1e-3], self.device, dtype=torch.float64)
        exact.advance(steps)
        for tf32 in (False, True):
            bench = Bench(task, "single", [1e-3], self.device)
            with float32_precision(tf32=tf32):
                bench.advance(steps)
            self.row(case="ConvNet, single", tf32=tf32, weights_far_from_float64=apart(bench.flat(), exact.flat()))

    def speed(self) -> None:
        lrs = [*np.geomspace(1e-5, 1e-1, 4 if self.quick else 46)]
        for seeds in (1,) if self.quick else (5, 50):
            self.time(f"ticks, {seeds * len(lrs)} runs", ticks_task(), "stack", lrs, seeds=seeds, mixed=(False,))
        self.time("ConvNet w32, single", self.images(ConvNet, 32), "single", [1e-3], mixed=(False, True))
        lanes = [*np.geomspace(1e-4, 1e-2, 2 if self.quick else 16)]
        self.time(f"ConvNet w32, {len(lanes)} runs", self.images(ConvNet, 32), "stack", lanes, mixed=(False,))
        if not self.quick:
            self.time("ResNet-18 w32, single", self.images(ResNet18, 32), "single", [1e-3], mixed=(False, True))

    def time(
        self, case: str, task: Task, strategy: Strategy, lrs: Sequence[float], *, seeds: int = 1, mixed: Sequence[bool]
    ) -> None:
        steps = 2 if self.quick else 8
        for compiled in (False,) if self.quick else (False, True):
            for bf16 in mixed:
                if self.left() < (60 if compiled else 20):
                    self.found["left out"].append(f"{case}, compiled {compiled}, bfloat16 {bf16}")
                    continue
                began = time.monotonic()
                bench = Bench(task, strategy, lrs, self.device, seeds=seeds, compiled=compiled, mixed=bf16)
                bench.advance(steps)
                bench.wait()
                first, taken = time.monotonic() - began, list[float]()
                for _ in range(3 if self.quick else 10):
                    bench.stack = replace(bench.stack, step=0)
                    at = time.perf_counter()
                    bench.advance(steps)
                    bench.wait()
                    taken.append((time.perf_counter() - at) / steps * 1e6)
                step = round(median(taken), 1)
                each, begun = round(step / bench.runs, 3), round(first, 1)
                self.row(case=case, compiled=compiled, bf16=bf16, us_step=step, us_run_step=each, first_s=begun)

    def memory(self) -> None:
        if self.device.type != "cuda":
            self.found["left out"].append("memory: it needs a CUDA device")
            return
        total = torch.cuda.get_device_properties(self.device).total_memory
        for compiled in (False, True):
            bench = Bench(
                self.images(ConvNet, 32), "stack", [*np.geomspace(1e-4, 1e-2, 16)], self.device, compiled=compiled
            )
            torch.cuda.empty_cache()
            share = (torch.cuda.memory_allocated() + 1.2 * 2**30) / total
            torch.cuda.set_per_process_memory_fraction(min(1.0, share))
            try:
                bench.advance(2)
                self.check(f"a stack beyond memory is split, compiled {compiled}", ok=True)
            finally:
                torch.cuda.set_per_process_memory_fraction(1.0)

    def several(self) -> None:
        for count in (1,) if self.quick else (1, 2, 4, 8):
            if self.left() < 40:
                self.found["left out"].append(f"{count} processes")
                return
            command = [sys.executable, __file__, "--out", str(self.out), "--steps-for", "1" if self.quick else "5"]
            command += ["--dry-run"] if self.quick else []
            children = [
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                for _ in range(count)
            ]
            try:
                for child in children:
                    assert child.stdout is not None
                    child.stdout.readline()  # it is ready
                rates = _rates(children)
            finally:
                for child in children:
                    child.kill()
                    child.wait()
            self.row(case="ConvNet w32, single", processes=count, steps_per_second=round(sum(rates), 1))

    def steps_for(self, seconds: float) -> None:
        """Train for some seconds after a line on standard input; print the steps per second."""
        bench, steps = Bench(self.images(ConvNet, 32), "single", [1e-3], self.device), 0
        bench.advance(8)
        bench.wait()
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            bench.stack = replace(bench.stack, step=0)
            bench.advance(8)
            bench.wait()
            steps += 8
        print(steps / (time.monotonic() - began), flush=True)


def _rates(children: Sequence["subprocess.Popen[str]"]) -> list[float]:
    """Start all children at once; their steps per second."""
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    return [float(child.stdout.readline()) for child in children if child.stdout]


_PARTS = {"right": 60, "compiled": 60, "bits": 30, "speed": 60, "memory": 60, "several": 60}
"""The parts and their estimates in seconds."""


def end_late(check: Check) -> None:
    """Record that the budget is used up, and end this process and its children, which may hang."""
    check.check("budget", ok=False, seconds=check.budget)
    check.save()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    os._exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--budget", type=float, default=540.0, help="seconds in all")
    parser.add_argument("--only", default=",".join(_PARTS), help="parts, separated by commas")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--steps-for", type=float, help="used by the part several")
    given = parser.parse_args()
    if given.dry_run:
        torch.set_num_threads(1)
    device = HOST if given.dry_run else torch.device("cuda", 0)
    given.out.mkdir(parents=True, exist_ok=True)
    check = Check(device, given.out, given.budget, quick=given.dry_run)
    if given.steps_for:
        check.steps_for(given.steps_for)
        return
    late = threading.Timer(given.budget, end_late, [check])
    late.daemon = True
    late.start()
    check.run(given.only.split(","))
    late.cancel()
    bad = [each["check"] for each in check.found["checks"] if not each["ok"]]
    print(f"{len(check.found['checks']) - len(bad)} checks ok, {len(bad)} bad", *bad)


if __name__ == "__main__":
    main()
