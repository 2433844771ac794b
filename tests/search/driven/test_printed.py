"""The metric of a validation set in what trainings print."""

import math

import pytest

from lratlas.search.driven.printed import RETURNED, Heard, Printed, better, make_printed, most_telling


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("Test set: Average loss: 0.0267, Accuracy: 9913/10000 (99%)\n", "test accuracy", 0.9913),
        ("Epoch 3 | train loss 0.4 | val loss 0.5 | val acc 85.1%\n", "val acc", 85.1),
        ("step 250: train loss 2.46, val loss 2.48\n", "val loss", 2.48),
        ("loss: 0.3 - acc: 0.9 - val_loss: 0.4 - val_acc: 0.88\n", "val acc", 0.88),
        ("{'eval_loss': 0.5, 'eval_accuracy': 0.9, 'epoch': 1.0}\n", "eval accuracy", 0.9),
        ("| end of epoch 1 | time: 5.00s | valid loss 4.20 | valid ppl 66.68\n", "valid loss", 4.2),
        ("Test Accuracy of the model on the 10000 test images: 97.2 %\n", "test accuracy", 97.2),
        ("best val acc: 0.9, val acc 0.8\n", "val acc", 0.8),
        ("Val Acc: 0.80 | Best Val Acc: 0.95\n", "val acc", 0.8),
        ("val_acc: 0.80, best_val_acc: 0.95, val_acc_max: 0.97\n", "val acc", 0.8),
        ("val acc 0.80 (best val acc 0.95)\n", "val acc", 0.8),
        ("val_loss 2.31 | val_loss_ema 2.50, val loss weight: 0.1\n", "val loss", 2.31),
        ("val perplexity 1,234.5\n", None, math.nan),
        ("val loss (epoch=3): 0.53\n", "val loss", 0.53),
        ("val/test loss: 3.215/2.950\n", "test loss", 3.215),
        ("val acc=87,5\n", None, math.nan),
        ("val accuracy: 0.7\rval accuracy of class 1: 0.9\n", "val accuracy", 0.7),
        ("No improvement in val loss for epochs: 3\n", None, math.nan),
        ("val_dice_loss: 0.53\n", "val dice_loss", 0.53),
        ("history " + "val_loss: 0.1, acc 0.5 " * 2000 + "\n", None, math.nan),
        ("====> Test set loss: 105.33\n", "test loss", 105.33),
        ("test acc 0.5, validation loss 0.7\n", "validation loss", 0.7),
        ("Epoch 1:  50%|#####| 5/10 [00:01<00:00, 9.1it/s, val_f1=0.4]\rEpoch 1: 100%", "val f1", 0.4),
        ("\x1b[32mvalid\x1b[0m error = nan\n", "valid error", math.nan),
        ("Epoch: [3] Loss 0.4 Acc@1 50.0, train accuracy 0.9, lr 0.1, step 3\n", None, math.nan),
        ("the test begins; 10 samples\n", None, math.nan),
    ],
)
def test_metrics_of_validation_sets_are_found(text: str, name: str | None, value: float):
    heard = Heard()
    for character in text:  # as loops print it, in parts
        heard.hear(character, 7)
    assert most_telling(heard) == name
    if name:
        assert heard.values[name] == {7: pytest.approx(value, nan_ok=True)}


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("val_acc", "val_acc: 0.80 best val_acc: 0.95", [0.8]),
        ("val acc", "Best_Val_Acc=0.95 Val_Acc=0.8", [0.8]),
        ("val acc", "val acc (best so far): 0.95", []),
        ("best val acc", "val_acc: 0.80 best_val_acc: 0.95", [0.95]),
        ("acc", "val: acc 0.9 | train: acc 0.777", [0.9]),
        ("acc", "train: loss 0.3, acc 0.777", []),
        ("acc", "lr 0.1, time 3 s, acc 0.7", [0.7]),
        ("acc", "val acc 0.9, test acc 0.8", [0.9, 0.8]),
        ("acc", "acc 0.9, acc 0.9", [0.9, 0.9]),
        ("train loss", "train: step 3, train_loss 0.4, val_loss 0.5", [0.4]),
        ("loss", "dice_loss 0.4", []),
        ("val loss", "val_loss=0.53", [0.53]),
        ("Val-Loss", "val/loss=0.53", [0.53]),
    ],
)
def test_a_named_metric_is_neither_an_extreme_nor_that_of_the_training_set(name: str, text: str, values: list[float]):
    heard = Heard(sought=make_printed(name, None))
    heard.hear(f"{text}\n", 7)
    assert heard.values == ({name: {7: values[-1]}} if values else {})
    assert heard.unclear == (values if len(set(values)) > 1 else [])


@pytest.mark.parametrize("sought", [None, make_printed("val acc", None)])
def test_different_values_after_one_step_are_noted(sought: Printed | None):
    heard = Heard(sought=sought)
    heard.hear("val acc 0.1\rval acc 0.2\r\rval acc 0.3\n", 8)  # a progress bar
    heard.hear("val acc 0.4\nval acc 0.4\nbest val acc 0.9\n", 16)
    assert not heard.several
    heard.hear("class 0 val acc 0.1\nclass 1 val acc 0.2\n", 24)
    assert heard.several == {"val acc": {24: [0.1, 0.2]}}


def test_of_several_values_the_last_after_a_step_counts():
    heard = Heard(sought=make_printed("val_loss", None))
    assert heard.last(after=0) is None
    heard.hear("val_loss 0.5\rval_loss 0.4\n", 10)
    heard.hear("loss 9, val_loss 0.3\n", 20)
    assert heard.values == {"val_loss": {10: 0.4, 20: 0.3}}
    assert (heard.last(after=19), heard.last(after=20)) == (0.3, None)


def test_what_is_returned_is_a_metric():
    heard = Heard()
    heard.hear("val loss 0.5", 3)  # a line that has not ended
    heard.record_return({"train_accuracy": 0.9, "accuracy": 0.8, "model": object()}, 4)
    assert most_telling(heard) == "val loss"  # it says of which set it is
    assert heard.values == {"val loss": {4: 0.5}, "train_accuracy": {4: 0.9}, "accuracy": {4: 0.8}}
    named = Heard()
    named.record_return({"train_accuracy": 0.9, "accuracy": 0.8, "loss": 0.1, "seconds": 3}, 4)
    assert most_telling(named) == "accuracy"
    spelled = Heard(sought=make_printed("val_acc", None))
    spelled.record_return({"Val acc": 0.8, "val accuracy": 0.9}, 4)
    assert spelled.values == {"val_acc": {4: 0.8}}
    number = Heard()
    number.record_return(0.7, 4)
    assert most_telling(number) == RETURNED
    nothing = Heard()
    nothing.record_return(None, 4)
    assert not nothing.of_return
    assert most_telling(nothing) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("val accuracy", "maximize"), ("eval_f1", "maximize"), ("top-1", "maximize"), ("test_loss", "minimize"),
        ("perplexity", "minimize"), ("val dice_loss", None), ("val/mse", "minimize"), ("accuracy loss", None),
        ("speed", None), ("lossy", None),
    ],
)  # fmt: skip
def test_names_tell_which_way_a_metric_is_better(name: str, expected: str | None):
    assert better(name) == expected
