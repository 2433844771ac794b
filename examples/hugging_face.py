"""The initial LR of a Hugging Face Trainer: found by ask-and-tell, from checkpoint to checkpoint, used, and watched.

In this folder:  python hugging_face.py
"""

import math
import shutil
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.optim.swa_utils import AveragedModel
from transformers import BertConfig, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers import BertForSequenceClassification as Bert
from transformers.trainer_callback import PrinterCallback
from transformers.utils.logging import disable_progress_bar

import lratlas
from lratlas.integrations.transformers import WatchCallback
from lratlas.search.segments import Segment, make_segment

STEPS = 800  # optimizer steps of a full training
LRS = lratlas.lr_grid(1e-5, 0.1, per_decade=3)
FOLDER = Path("hugging-face-search")
CHECKPOINTS = FOLDER / "checkpoints"
CONFIG = BertConfig(vocab_size=9, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64)
CONFIG.num_labels, CONFIG.initializer_range, CONFIG.hidden_dropout_prob = 10, 0.1, 0.0

pixels, digits = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
# A digit as a text of 16 words: the ink of each square of 2 x 2 pixels, in shades from 0 to 8.
SQUARES = pixels[order].view(-1, 4, 2, 4, 2).sum((2, 4)).flatten(1)
TEXTS, DIGITS = (SQUARES // 8).long(), digits[order]
TRAINED = 1_200  # texts; the rest is for validation
DATA = [{"input_ids": x, "labels": y} for x, y in zip(TEXTS[:TRAINED], DIGITS[:TRAINED], strict=True)]


class Follow(TrainerCallback):
    """Averages the weights of the last steps, keeps all losses, and ends a training that has diverged."""

    def __init__(self, model: torch.nn.Module, part: Segment) -> None:
        self.model, self.averaged = model, AveragedModel(model)
        self.part, self.losses = part, list[float]()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step > self.part.average_from:
            self.averaged.update_parameters(self.model)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if "loss" in kwargs["logs"]:
            self.losses.append(kwargs["logs"]["loss"])
            control.should_training_stop |= not math.isfinite(self.losses[-1])


def trainer_for(part: Segment) -> tuple[Trainer, Follow]:
    """A trainer that goes through a segment, at its LRs, and leaves a checkpoint at its end."""
    arguments = TrainingArguments(
        output_dir=str(CHECKPOINTS / part.name),
        max_steps=part.stop,
        save_steps=10 * STEPS,  # only at the end
        seed=part.seed,  # of the batches too: the same for all LRs
        data_seed=part.seed,
        per_device_train_batch_size=32,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a divergence is to be seen
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    set_seed(part.seed)
    model = Bert(CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), lr=part.lr)
    # What a checkpoint holds of a schedule is how many steps were done; the LRs are the segment's own.
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, part.share_at)
    trainer = Trainer(model, arguments, train_dataset=DATA, optimizers=(optimizer, schedule))
    trainer.remove_callback(PrinterCallback)
    follow = Follow(model, part)  # the trainer has brought the model to its device
    trainer.add_callback(follow)
    return trainer, follow


@torch.no_grad()
def accuracy(model: torch.nn.Module) -> float:
    """On the validation set."""
    device = next(model.eval().parameters()).device
    logits = model(input_ids=TEXTS[TRAINED:].to(device)).logits
    return (logits.argmax(1).cpu() == DIGITS[TRAINED:]).float().mean().item()


def train(part: Segment) -> dict[str, Any]:
    """Train a segment from its parent's checkpoint, and return what the finder is told."""
    trainer, follow = trainer_for(part)
    checkpoint = CHECKPOINTS / str(part.parent) / f"checkpoint-{part.start}"
    trainer.train(resume_from_checkpoint=str(checkpoint) if part.parent else None)
    return {"value": accuracy(follow.model), "averaged": accuracy(follow.averaged), "losses": follow.losses}


def main() -> None:
    """Search, then train as it is advised, and have each change of regime told."""
    disable_progress_bar()
    samples = len(DIGITS) - TRAINED
    finder = lratlas.Finder(FOLDER, steps=STEPS, lrs=LRS, direction="maximize", chance=0.1, samples=samples)
    while part := finder.ask():
        finder.tell(part, **train(part))
        for folder in CHECKPOINTS.glob("*"):
            if folder.name not in finder.needed():
                shutil.rmtree(folder)
    print(advice := finder.advice())
    if advice.lr is None:  # no LR could be told from the others
        return
    anneal_from = STEPS * 4 // 5 if advice.finish == "anneal" else None
    whole = make_segment(lr=advice.lr, seed=0, start=0, stop=STEPS, parent=None, anneal_from=anneal_from)
    trainer, follow = trainer_for(whole)
    trainer.add_callback(WatchCallback(trainer, on_change=lambda look: print(f"Step {look.step}: {look.regime}")))
    trainer.train()
    value, averaged = accuracy(follow.model), accuracy(follow.averaged)
    print(f"Validation accuracy: {value:.3f}, of the averaged weights {averaged:.3f}")


if __name__ == "__main__":
    main()
