"""The initial LR of a Hugging Face Trainer: found by `find`, used, and watched.

In this folder:  python hugging_face.py
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, EvalPrediction, Trainer, TrainingArguments, set_seed
from transformers import BertForSequenceClassification as Bert
from transformers.trainer_callback import PrinterCallback

from lratlas.data import digits
from lratlas.integrations.transformers import WatchCallback, find

STEPS = 800  # optimizer steps of a full training
FOLDER = Path("hugging-face-search")
CONFIG = BertConfig(vocab_size=9, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64)
CONFIG.num_labels, CONFIG.initializer_range, CONFIG.hidden_dropout_prob = 10, 0.1, 0.0


def texts(pixels: Tensor, labels: Tensor) -> list[dict[str, Tensor]]:
    """Each digit as a text of 16 words: the ink of each square of 2 x 2 pixels, in shades from 0 to 8."""
    ink = pixels.view(-1, 4, 2, 4, 2).sum((2, 4)).flatten(1)
    return [{"input_ids": x, "labels": y} for x, y in zip((2 * ink).long(), labels, strict=True)]


TRAIN, HELD_OUT = (texts(*pair) for pair in digits())  # for training and for validation


def accuracy(predicted: EvalPrediction) -> dict[str, float]:
    """The share of texts whose digit is found."""
    predictions: Any = predicted.predictions
    return {"accuracy": float((predictions.argmax(1) == predicted.label_ids).mean())}


def trainer_for(lr: float) -> Trainer:
    """An ordinary Trainer, with the linear schedule that is its default."""
    set_seed(0)
    arguments = TrainingArguments(
        output_dir=str(FOLDER / "trainer"),
        learning_rate=lr,
        max_steps=STEPS,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=200,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = Trainer(Bert(CONFIG), arguments, train_dataset=TRAIN, eval_dataset=HELD_OUT, compute_metrics=accuracy)
    trainer.remove_callback(PrinterCallback)
    return trainer


def main() -> None:
    """Search, then train as it is advised."""
    print(advice := find(trainer_for, metric="eval_accuracy", chance=0.1, folder=FOLDER))
    if advice.lr is None:  # no LR differed from the others
        return
    trainer = trainer_for(advice.lr)
    trainer.add_callback(callback := WatchCallback(trainer, schedule="linear"))
    trainer.train()
    print(callback.report())
    print(f"Validation accuracy: {trainer.evaluate()['eval_accuracy']:.3f}")


if __name__ == "__main__":
    main()
