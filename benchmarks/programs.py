"""`find` for public training programs, with no line of them changed.

Each is searched as `lratlas find --script` does, then trained in full at the advised LR, at half and at three times of
it. Seconds are those of the CPU, in one thread. FOLDER holds copies of the repositories; those that are not there are
left out. Where torchvision is not installed, `benchmarks/stand_in` takes its place, and images are the first 4,000 of
Fashion-MNIST; texts are this project's own.

    python -m benchmarks.programs FOLDER [NAME ...]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from lratlas.search.driven.drive import Driven, begun
from lratlas.search.driven.find import find_by_script
from lratlas.search.driven.hooks import followed
from lratlas.search.driven.outputs import Outputs
from lratlas.search.driven.printed import Heard, most_telling
from lratlas.search.driven.script import filled, placeholders_in, script_body
from lratlas.search.driven.trial import ENDLESS
from lratlas.search.driven.validation import make_validation
from lratlas.search.driven.world import several_trainings
from lratlas.search.segments import Segment, make_segment

FACTORS = {"half": 0.5, "advised": 1.0, "three times": 3.0}
TUTORIAL = "pytorch-tutorial/tutorials"
OUT = Path(__file__).parents[1] / "docs" / "results" / "programs" / "programs.jsonl"


def accuracy(shape: str = "") -> str:
    """The accuracy on the test set, in the words of the tutorials' variables."""
    right = f"sum((model(x{shape}).argmax(1) == y).sum().item() for x, y in test_loader)"
    return f"(model.eval(), {right} / len(test_dataset))[1]"


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program of a public repository.

    Attributes:
        script: Below the folder of all repositories.
        words: Its arguments.
        value: The validation metric; None for what the program prints.
        pattern: Finds the metric in what the value prints.
        steps: Of a full training, where the program gets them.
        direction: Of the metric, where its name does not tell.
        accuracy: Whether the metric is an accuracy on 2,000 images.
    """

    script: str
    words: tuple[str, ...] = ()
    value: str | None = None
    pattern: str | None = None
    steps: int | None = None
    direction: Literal["minimize", "maximize"] | None = None
    accuracy: bool = False


TESTED: dict[str, Any] = {"pattern": r"Accuracy: (\d+)/"}
NAMES = ("-i", "names.txt", "-o", "{scratch}", "--num-workers=0", "--max-steps={steps}", "-l", "{lr}")
MEASURED = "evaluate(model, test_dataset, batch_size=100, max_batches=10)"
GPT = (
    "--dataset=chars --device=cpu --compile=False --eval_iters=10 --eval_interval=100000 --block_size=32"
    " --batch_size=8 --gradient_accumulation_steps=1 --n_layer=2 --n_head=2 --n_embd=32 --dropout=0.0"
    " --max_iters={steps} --lr_decay_iters={steps} --warmup_iters=10 --min_lr=0.0 --learning_rate={lr}"
    " --log_interval=1000 --out_dir={scratch}"
)
PROGRAMS = {
    "mnist (CNN, Adadelta)": Program(
        script="examples/mnist/main.py",
        words=("--lr={lr}", "--epochs=4", "--no-accel"),
        value="test(model, device, test_loader)",
        **TESTED,
    ),
    "mnist_rnn, as it prints": Program(script="examples/mnist_rnn/main.py", words=("--lr={lr}", "--epochs=10")),
    "mnist_rnn (LSTM)": Program(
        script="examples/mnist_rnn/main.py",
        words=("--lr={lr}", "--epochs=10"),
        value="test(args, model, device, test_loader)",
        **TESTED,
    ),
    "vae": Program(
        script="examples/vae/main.py",
        words=("--epochs=15", "--no-accel"),
        value="test(epoch)",
        pattern=r"Test set loss: ([\d.]+)",
    ),
    "forward-forward": Program(
        script="examples/mnist_forward_forward/main.py", words=("--lr={lr}", "--epochs=100", "--no_accel")
    ),
    "time sequences (LBFGS)": Program(
        script="examples/time_sequence_prediction/train.py",
        words=("--steps=8",),
        value="criterion(seq(test_input, future=1000)[:, :-1000], test_target).item()",
    ),
    "convolutional network": Program(
        script=f"{TUTORIAL}/02-intermediate/convolutional_neural_network/main.py", value=accuracy(), accuracy=True
    ),
    "feedforward network": Program(
        script=f"{TUTORIAL}/01-basics/feedforward_neural_network/main.py",
        value=accuracy(".reshape(-1, 28 * 28)"),
        accuracy=True,
    ),
    "logistic regression": Program(
        script=f"{TUTORIAL}/01-basics/logistic_regression/main.py",
        value=accuracy(".reshape(-1, 28 * 28)"),
        accuracy=True,
    ),
    "bidirectional network": Program(
        script=f"{TUTORIAL}/02-intermediate/bidirectional_recurrent_neural_network/main.py",
        value=accuracy(".reshape(-1, sequence_length, input_size)"),
        accuracy=True,
    ),
    "makemore (MLP, AdamW)": Program(
        script="makemore/makemore.py", words=(*NAMES, "--type=mlp"), value=MEASURED, steps=4000
    ),
    "makemore (transformer)": Program(
        script="makemore/makemore.py",
        words=(*NAMES, "--type=transformer", "--n-layer=2", "--n-embd=32", "--n-embd2=32"),
        value=MEASURED,
        steps=2000,
    ),
    "nanoGPT (warm-up, cosine)": Program(
        script="nanoGPT/train.py", words=tuple(GPT.split()), value="estimate_loss()['val']", steps=4000
    ),
    "minGPT adder": Program(
        script="minGPT/projects/adder/adder.py",
        words=("--trainer.learning_rate={lr}", "--trainer.max_iters={steps}", "--system.work_dir={scratch}"),
        value="eval_split(trainer, 'test', max_batches=2)",
        steps=300,
        direction="maximize",
    ),
}


def cpu_seconds() -> float:
    """Of this process and of those that have ended."""
    used = [resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def trained(driven: Driven, lr: float, steps: int, output: Path) -> dict[str, float | None]:
    """The metric of a full training, and its seconds."""
    validation = driven.validation
    stop = steps if validation else ENDLESS  # what is printed last is printed after the last step
    whole = make_segment(lr=lr, seed=0, start=0, stop=stop, parent=None)
    outputs, heard = Outputs(), Heard()
    trial = begun(driven, whole, full=steps, outputs=outputs, output=output, heard=heard)
    before = cpu_seconds()
    with followed(lambda: trial), several_trainings():
        reached = trial.run(whole)
        seconds = cpu_seconds() - before
        trial.leave()
    printed = heard.values.get(most_telling(heard) or "", {})
    value = reached.value if validation else printed.get(max(printed, default=0))
    return {"value": value, "averaged": reached.averaged, "seconds": seconds}


def row(name: str, root: Path, scratch: Path) -> dict[str, Any]:
    """Search, and train in full."""
    program = PROGRAMS[name]
    script = root / program.script
    os.chdir(script.parent)
    words = tuple(word.replace("{scratch}", str(scratch / "out")) for word in program.words)
    known: dict[str, Any] = {"value": program.value, "pattern": program.pattern, "steps": program.steps}
    known["direction"] = program.direction or ("maximize" if program.accuracy else None)
    known |= {"samples": 2000, "chance": 0.1, "limit": 1} if program.accuracy else {}
    before = cpu_seconds()
    advice = find_by_script(script, words, folder=scratch / "search", **known)
    searched = cpu_seconds() - before
    found: dict[str, Any] = {
        "program": name, "lr": advice.lr, "low": advice.low, "high": advice.high, "verdict": advice.verdict,
        "finish": advice.finish, "cost": advice.cost, "steps": advice.steps, "counted": program.steps is None,
        "seconds": searched, "notes": advice.warnings,
    }  # fmt: skip
    if advice.lr is None:
        return found
    told, run = placeholders_in(words), script_body(script)

    def start(segment: Segment, epochs: int) -> object:
        return run(filled(words, segment, epochs))

    validation = make_validation(program.value, pattern=program.pattern) if program.value else None
    driven = Driven(
        start=start,
        imposed="lr" not in told,
        validation=validation,
        roots=(script.resolve().parent,),
        shrinks="steps" if "steps" in told else None,
    )
    for factor, times in FACTORS.items():
        found |= {
            f"{factor}: {what}": value
            for what, value in trained(driven, times * advice.lr, advice.steps, scratch / f"{factor}.txt").items()
        }
    return found


def main() -> None:
    """Each program in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--here", action="store_true", help="this program, in this process")
    given = parser.parse_args()
    root = given.folder.absolute()
    if given.here:
        with tempfile.TemporaryDirectory() as scratch:
            found = row(given.names[0], root, Path(scratch))
        OUT.parent.mkdir(exist_ok=True)
        with OUT.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
        return
    here = Path(__file__).parent
    paths = [str(root / "minGPT"), *([] if find_spec("torchvision") else [str(here / "stand_in")])]
    paths += [str(here.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    for name in given.names or PROGRAMS:
        if (root / PROGRAMS[name].script).is_file():
            command = [sys.executable, "-m", "benchmarks.programs", str(root), name, "--here"]
            print(name, "failed" if subprocess.run(command, env=environment, check=False).returncode else "done")
        else:
            print(f"{name}: {root / PROGRAMS[name].script} is not there.")


if __name__ == "__main__":
    main()
