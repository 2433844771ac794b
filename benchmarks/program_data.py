"""What the programs of `benchmarks.programs` would fetch: small data and models, made of this project's own text.

    python -m benchmarks.program_data FOLDER

FOLDER holds copies of the repositories; those that are not there are left out.
"""

import argparse
import json
import pickle
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parents[1]
_WORDS = 1000  # in the texts of words; all others are one
_LINES = 17_000  # of the text of words
_ROWS = 2000
_CARD = """\
---
configs:
- config_name: mrpc
  data_files:
  - split: train
    path: train.jsonl
  - split: validation
    path: validation.jsonl
---
"""
_ACCURACY = '''"""The share of predictions that are right."""

import datasets
import evaluate


class Accuracy(evaluate.Metric):
    def _info(self):
        kinds = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(description="", citation="", features=datasets.Features(kinds))

    def _compute(self, predictions, references):
        right = sum(int(a == b) for a, b in zip(predictions, references, strict=True))
        return {"accuracy": right / len(references)}
'''


def lines_of(folder: str) -> list[str]:
    """The lines of a folder's Python files, but for short ones."""
    texts = [each.read_text(encoding="utf-8") for each in sorted((HERE / folder).rglob("*.py"))]
    return [line for text in texts for line in text.splitlines() if len(line.split()) > 2]


def write_characters(folder: Path) -> None:
    """Characters as nanoGPT's ``data`` has them."""
    text = "\n".join(lines_of("src"))
    known = sorted(set(text))
    codes = {each: at for at, each in enumerate(known)}
    split = len(text) * 9 // 10
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in {"train": text[:split], "val": text[split:]}.items():
        np.array([codes[each] for each in part], dtype=np.uint16).tofile(folder / f"{name}.bin")
    meta = {"vocab_size": len(known), "stoi": codes, "itos": dict(enumerate(known))}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))


def write_words(file: Path) -> None:
    """Words between spaces, the rare ones as one, as in WikiText."""
    lines = [line.split() for line in lines_of("src")]
    common = {word for word, _ in Counter(word for line in lines for word in line).most_common(_WORDS)}
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(" ".join(word if word in common else "<unk>" for word in line) for line in lines[:_LINES])
    file.write_text(text, encoding="utf-8")


def write_waves(folder: Path) -> None:
    """The waves of the program's own generator."""
    subprocess.run([sys.executable, "generate_sine_wave.py"], cwd=folder, check=True)


def write_tokenizer(folder: Path, lines: Sequence[str], *, pairs: bool) -> int:
    """A byte-pair tokenizer of the lines.

    Returns:
        Its number of tokens.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made: Any = Tokenizer(models.BPE(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=_WORDS, special_tokens=special))
    if pairs:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    ready = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="[SEP]", bos_token="[CLS]", **names)
    ready.save_pretrained(folder)
    return len(ready)


def write_answers(root: Path) -> None:
    """A data set of answers, and a small GPT-2 with fresh weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    lines = lines_of("src")
    folder = root / "eli5_category"
    folder.mkdir(exist_ok=True)
    rows = [{"answers": {"text": lines[at : at + 3]}} for at in range(0, 3 * _ROWS, 3)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = root / "distilbert" / "distilgpt2"
    size = write_tokenizer(model, lines, pairs=False)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=size, n_positions=128, n_embd=64, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=3
    )
    GPT2LMHeadModel(config).save_pretrained(model)


def write_pairs(root: Path) -> None:
    """Pairs of lines, of this project's tests or of its code, and a small BERT with fresh weights."""
    from transformers import BertConfig, BertForSequenceClassification

    code, tests = lines_of("src"), lines_of("tests")
    drawn = random.Random(0)
    rows: list[dict[str, Any]] = []
    for at in range(_ROWS + _ROWS // 2):
        one, two = drawn.sample(tests if at % 2 else code, 2)
        rows.append({"sentence1": one, "sentence2": two, "label": at % 2, "idx": at})
    folder = root / "nyu-mll" / "glue"
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in {"train": rows[:_ROWS], "validation": rows[_ROWS:]}.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    (folder / "README.md").write_text(_CARD)
    (root / "glue").mkdir(exist_ok=True)
    (root / "glue" / "glue.py").write_text(_ACCURACY)
    model = root / "bert-base-cased"
    size = write_tokenizer(model, code + tests, pairs=True)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=256,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(model)


WRITERS: dict[str, Callable[[Path], None]] = {
    "nanoGPT": lambda folder: write_characters(folder / "data" / "chars"),
    "lightning/examples/pytorch/basics": lambda folder: write_words(folder / "data" / "wikitext-2.txt"),
    "examples/time_sequence_prediction": write_waves,
    "llm-train-scripts": write_answers,
    "accelerate/examples": write_pairs,
}


def main() -> None:
    """Whatever the repositories that are there need."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name, write in WRITERS.items():
        if (folder / name).is_dir():
            write(folder / name)


if __name__ == "__main__":
    main()
