"""`find` for public training programs, with no line of them changed.

Each is searched as `lratlas find --script` does, then trained in full at the advised LR, at half and at three times of
it. Seconds are those of the CPU, in one thread. FOLDER holds copies of the repositories; those that are not there are
left out. Where torchvision is not installed, `benchmarks/stand_in` takes its place, and images are of
Fashion-MNIST; `benchmarks.program_data` makes the other data, of this project's own text.

    python -m benchmarks.programs FOLDER [NAME ...]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lratlas.search.driven.drive import Driven, begin_trial
from lratlas.search.driven.find import find_by_script
from lratlas.search.driven.outputs import Outputs
from lratlas.search.driven.printed import Heard, most_telling
from lratlas.search.driven.script import fill_arguments, placeholders_in, script_body
from lratlas.search.driven.steps import follow_steps
from lratlas.search.driven.trial import ENDLESS
from lratlas.search.driven.validation import make_validation
from lratlas.search.driven.world import several_trainings
from lratlas.search.segments import Segment, make_segment

FACTORS = {"half": 0.5, "advised": 1.0, "three times": 3.0}
TUTORIAL = "pytorch-tutorial/tutorials"
OUT = Path(__file__).parents[1] / "docs" / "results" / "programs" / "programs.jsonl"


def accuracy(shape: str = "", samples: int = 2000) -> dict[str, Any]:
    """The accuracy on the test set, in the words of the tutorials' variables."""
    right = f"sum((model(x{shape}).argmax(1) == y).sum().item() for x, y in test_loader)"
    return {"value": f"(model.eval(), {right} / len(test_dataset))[1]"} | share(samples)


def share(samples: int, classes: int = 10) -> dict[str, Any]:
    """What is said of an accuracy."""
    return {"direction": "maximize", "samples": samples, "chance": 1 / classes, "limit": 1}


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program of a public repository.

    Attributes:
        kind: The optimizer, and its schedule.
        metric: What its validation metric is, for the table.
        script: Below the folder of all repositories.
        words: Its arguments.
        settings: Of the search: the validation metric, and what is said of it; the length, where the program gets it.
        images: Of Fashion-MNIST to train on; half as many test, 10,000 at most.
    """

    kind: str
    metric: str
    script: str
    words: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    images: int = 0


TESTED: dict[str, Any] = {"pattern": r"Accuracy: (\d+)/"}
NAMES = ("-i", "names.txt", "-o", "{scratch}", "--num-workers=0", "--max-steps={steps}", "-l", "{lr}")
MEASURED = {"value": "evaluate(model, test_dataset, batch_size=100, max_batches=10)"}
NLL = "F.nll_loss(model.model(x, y), y.view(-1)).item()"
MSE = "F.mse_loss(cli.model(x.flatten(1)), x.flatten(1)).item()"
HITS = "(model(**batch).logits.argmax(-1) == batch['labels']).sum().item()"
FLAT = ".reshape(-1, 28 * 28)"
GPT = (
    "--dataset=chars --device=cpu --compile=False --eval_iters=10 --eval_interval=100000 --block_size=32"
    " --batch_size=8 --gradient_accumulation_steps=1 --n_layer=2 --n_head=2 --n_embd=32 --dropout=0.0"
    " --max_iters={steps} --lr_decay_iters={steps} --warmup_iters=10 --min_lr=0.0 --learning_rate={lr}"
    " --log_interval=1000 --out_dir={scratch}"
)
PROGRAMS = {
    "mnist (CNN, Adadelta)": Program(
        kind="Adadelta, × 0.7 an epoch",
        metric="right of 2,000",
        script="examples/mnist/main.py",
        words=("--lr={lr}", "--epochs=4", "--no-accel"),
        settings={"value": "test(model, device, test_loader)", **TESTED},
        images=4000,
    ),
    "mnist_rnn, as it prints": Program(
        kind="Adadelta, × 0.7 an epoch",
        metric="accuracy",
        script="examples/mnist_rnn/main.py",
        words=("--lr={lr}",),
        images=8000,
    ),
    "mnist_rnn (LSTM)": Program(
        kind="Adadelta, × 0.7 an epoch",
        metric="right of 4,000",
        script="examples/mnist_rnn/main.py",
        words=("--lr={lr}",),
        settings={"value": "test(args, model, device, test_loader)", **TESTED},
        images=8000,
    ),
    "vae": Program(
        kind="Adam",
        metric="loss",
        script="examples/vae/main.py",
        words=("--no-accel",),
        settings={"value": "test(epoch)", "pattern": r"Test set loss: ([\d.]+)"},
        images=12_000,
    ),
    "forward-forward": Program(
        kind="two of Adam, one after the other",
        metric="accuracy",
        script="examples/mnist_forward_forward/main.py",
        words=("--lr={lr}", "--epochs=100", "--no_accel", "--train_size=1000"),
        settings={"value": "sum(net.predict(x).eq(y).float().mean().item() for x, y in test_loader)"} | share(2000),
        images=4000,
    ),
    "time sequences (LBFGS)": Program(
        kind="L-BFGS",
        metric="loss",
        script="examples/time_sequence_prediction/train.py",
        words=("--steps=6",),
        settings={"value": "criterion(seq(test_input), test_target).item()"},
    ),
    "convolutional network": Program(
        kind="Adam",
        metric="accuracy",
        script=f"{TUTORIAL}/02-intermediate/convolutional_neural_network/main.py",
        settings=accuracy(),
        images=4000,
    ),
    "feedforward network": Program(
        kind="Adam",
        metric="accuracy",
        script=f"{TUTORIAL}/01-basics/feedforward_neural_network/main.py",
        settings=accuracy(FLAT, 10_000),
        images=60_000,
    ),
    "logistic regression": Program(
        kind="SGD",
        metric="accuracy",
        script=f"{TUTORIAL}/01-basics/logistic_regression/main.py",
        settings=accuracy(FLAT, 10_000),
        images=60_000,
    ),
    "bidirectional network": Program(
        kind="Adam",
        metric="accuracy",
        script=f"{TUTORIAL}/02-intermediate/bidirectional_recurrent_neural_network/main.py",
        settings=accuracy(".reshape(-1, sequence_length, input_size)"),
        images=4000,
    ),
    "makemore (MLP, AdamW)": Program(
        kind="AdamW",
        metric="loss",
        script="makemore/makemore.py",
        words=(*NAMES, "--type=mlp"),
        settings={"steps": 4000, **MEASURED},
    ),
    "makemore (transformer)": Program(
        kind="AdamW",
        metric="loss",
        script="makemore/makemore.py",
        words=(*NAMES, "--type=transformer", "--n-layer=2", "--n-embd=32", "--n-embd2=32"),
        settings={"steps": 2000, **MEASURED},
    ),
    "nanoGPT (warm-up, cosine)": Program(
        kind="AdamW, warm-up and cosine",
        metric="loss",
        script="nanoGPT/train.py",
        words=tuple(GPT.split()),
        settings={"steps": 4000, "value": "estimate_loss()['val']"},
    ),
    "minGPT adder": Program(
        kind="AdamW",
        metric="loss",
        script="minGPT/projects/adder/adder.py",
        words=("--trainer.learning_rate={lr}", "--trainer.max_iters={steps}", "--system.work_dir='{scratch}'"),
        settings={"steps": 600, "value": "model(*next(iter(DataLoader(test_dataset, batch_size=500))))[1].item()"},
    ),
    "Fabric, image classifier": Program(
        kind="Adadelta, × 0.7 an epoch",
        metric="accuracy",
        script="lightning/examples/fabric/image_classifier/train_fabric.py",
        words=("--lr={lr}", "--epochs=4"),
        settings=accuracy(),
        images=4000,
    ),
    "Lightning, transformer": Program(
        kind="SGD, clipped",
        metric="loss",
        script="lightning/examples/pytorch/basics/transformer.py",
        settings={"value": f"sum({NLL} for (x, y), _ in zip(val_dataloader, range(20))) / 20"},
    ),
    "Lightning CLI, autoencoder": Program(
        kind="Adam",
        metric="loss",
        script="lightning/examples/pytorch/basics/autoencoder.py",
        words=("--model.learning_rate={lr}", "--trainer.max_epochs=2", "--trainer.default_root_dir={scratch}"),
        settings={"value": f"sum({MSE} for x, _ in cli.datamodule.val_dataloader())"},
        images=60_000,
    ),
    "Accelerate, BERT": Program(
        kind="AdamW, warm-up and linear",
        metric="accuracy",
        script="accelerate/examples/nlp_example.py",
        words=("--cpu",),
        settings={"value": f"sum({HITS} for batch in eval_dataloader) / 1000"} | share(1000, 2),
    ),
    "Trainer, GPT-2": Program(
        kind="AdamW, linear",
        metric="loss",
        script="llm-train-scripts/train_clm_eli5_hftrainer.py",
        settings={"value": "trainer.evaluate()['eval_loss']"},
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
    trial = begin_trial(driven, whole, full=steps, outputs=outputs, output=output, heard=heard)
    before = cpu_seconds()
    with follow_steps(lambda: trial), several_trainings():
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
    settings = program.settings
    before = cpu_seconds()
    advice = find_by_script(script, words, folder=scratch / "search", **settings)
    searched = cpu_seconds() - before
    found: dict[str, Any] = {
        "program": name, "lr": advice.lr, "low": advice.low, "high": advice.high, "verdict": advice.verdict,
        "finish": advice.finish, "cost": advice.cost, "steps": advice.steps, "counted": "steps" not in settings,
        "seconds": searched, "notes": advice.warnings,
    }  # fmt: skip
    if advice.lr is None:
        return found
    told, run = placeholders_in(words), script_body(script)

    def start(segment: Segment, epochs: int) -> object:
        return run(fill_arguments(words, segment, epochs))

    value = settings.get("value")
    validation = make_validation(value, pattern=settings.get("pattern")) if value else None
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
    """Each program in a separate process."""
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
    stand_in = None if find_spec("torchvision") else str(here / "stand_in")
    for name in given.names or PROGRAMS:
        if (root / PROGRAMS[name].script).is_file():
            paths = [stand_in if PROGRAMS[name].images else None, str(root / "minGPT"), str(here.parent)]
            environment = os.environ | {
                "PYTHONPATH": os.pathsep.join(filter(None, [*paths, os.environ.get("PYTHONPATH")])),
                "PROGRAM_IMAGES": str(PROGRAMS[name].images),
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
                "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
            }
            command = [sys.executable, "-m", "benchmarks.programs", str(root), name, "--here"]
            print(name, "failed" if subprocess.run(command, env=environment, check=False).returncode else "done")
        else:
            print(f"{name}: {root / PROGRAMS[name].script} is not there.")


if __name__ == "__main__":
    main()
