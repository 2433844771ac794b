"""Whatever stands in a spec, a plan, a study's file or a file of data: it is read, or refused in a sentence."""

import gzip
import io
import json
import tomllib
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fuzzing import mutated, refusal
from lratlas import files
from lratlas.config.spec import read_spec, spec_from
from lratlas.data.readers import read_images
from lratlas.errors import DamagedFile, DataError, SpecError, StudyError
from lratlas.study.plan import read_plan, read_stored_plan
from lratlas.study.records import read_failures, read_note, wall_time
from lratlas.study.store import Store
from lratlas.study.verify import NOTES
from study.running import damaged

fuzzed = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

SPEC = """
name = "digits"
[task]
preset = "digits"
batch_size = 32
rule = { name = "sgd", momentum = 0.9 }
[pretrain]
lrs = { low = 1e-3, high = 1.0, per_decade = 2 }
epochs = 3
repeats = 2
[finetune]
lrs = [1e-3]
steps = 10
[average]
counts = [2, 5]
[measure]
geometry = true
[training]
segment_steps = 100
"""


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed_specs(draw: st.DrawFn) -> dict[str, Any]:
    """A good spec with one field, known or not, that holds anything."""
    spec: dict[str, Any] = tomllib.loads(SPEC)
    section = spec[draw(st.sampled_from(["task", "pretrain", "finetune", "average", "measure", "training"]))]
    section[draw(st.sampled_from([*section, "unknown"]) | st.text(max_size=6))] = draw(VALUES)
    return spec


@fuzzed
@given(text=mutated(SPEC.encode()) | st.binary(max_size=60))
def test_any_text_is_a_spec_or_refused(tmp_path: Path, text: bytes):
    path = tmp_path / "spec.toml"
    path.write_bytes(text)
    assert "\n" not in refusal(lambda: read_spec(path), SpecError)


@fuzzed
@given(spec=changed_specs())
def test_any_field_is_taken_or_refused(spec: dict[str, Any]):
    said = refusal(lambda: spec_from(spec), SpecError)
    assert "\n" not in said
    if not said:
        read = spec_from(spec)
        assert spec_from(tomllib.loads(tomli_w.dumps(read.model_dump(exclude_none=True)))) == read


@fuzzed
@given(data=st.data())
def test_any_damage_to_a_plan_or_a_note_is_noticed(whole_study: Path, tmp_path: Path, data: st.DataObject):
    """A flipped bit in any of the small files too, since they hold a checksum."""
    store = Store.open(whole_study)
    note = store.files("sittings")[0]
    good = store.read_bytes(f"sittings/{note}")
    copy = Store.create(tmp_path / "study", SPEC)
    bad = data.draw(mutated(good) | st.binary(max_size=60))
    for kind in NOTES:
        copy.write_bytes(f"{kind.folder}/{note}", bad)
        said = refusal(partial(read_note, copy, f"{kind.folder}/{note}", kind), DamagedFile)
        assert "\n" not in said
        if bad != good and json_of(bad) != json_of(good):
            assert said
    assert read_failures(copy) == []
    assert wall_time(copy).sessions == (json_of(bad) == json_of(good))
    plan = store.read_bytes("plan.json")
    spoiled = data.draw(mutated(plan))
    copy.write_bytes("plan.json", spoiled)
    if json_of(spoiled) == json_of(plan):
        assert read_stored_plan(copy) == read_stored_plan(store)
    else:
        assert refusal(lambda: read_stored_plan(copy), StudyError)


def json_of(text: bytes) -> object:
    """What JSON says, or the bytes where it says nothing: a space more changes no meaning."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


@fuzzed
@given(data=st.data())
def test_any_weights_are_read_or_refused(tmp_path: Path, data: st.DataObject):
    """Also such as are sealed, as a stranger may have made them."""
    store = Store.create(tmp_path / "study", SPEC)
    store.write_weights("part", {"run/weights/a": torch.ones(2, 3)})
    path = "checkpoints/part.safetensors"
    good = store.read_bytes(path)
    bad = data.draw(mutated(good))
    with suppress(ValueError):
        bad = files.seal(bad)
    store.write_bytes(path, bad)
    said = refusal(lambda: store.read_weights("part"), DamagedFile)
    assert "\n" not in said
    assert said or bad == good or files.is_intact(bad)


@fuzzed
@given(text=st.text(max_size=40) | VALUES.map(str) | st.just('{"checksum": 1, "format": "x"}'))
def test_any_text_is_no_plan(text: str):
    with pytest.raises(StudyError):
        read_plan(text, where="plan.json", how=str)


@fuzzed
@given(data=st.data())
def test_any_bytes_among_the_parts_are_damage(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    from lratlas.tables import empty

    store = Store.create(tmp_path_factory.mktemp("study") / "study", SPEC)
    store.write_table("runs", "part", empty("runs"))
    store.write_weights("part", {})
    for path, read in (
        ("tables/runs/part.parquet", lambda: store.read_table("runs")),
        ("checkpoints/part.safetensors", lambda: store.read_weights("part")),
    ):
        good = store.read_bytes(path)
        bad = data.draw(mutated(good) | st.binary(max_size=50))
        store.write_bytes(path, bad)
        if bad != good:
            with pytest.raises(DamagedFile):
                read()
            assert damaged(store) == [path]
            store.write_bytes(path, good)
        read()


def zipped() -> bytes:
    """Two classes of two images, for training and testing."""
    buffer, picture = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(picture, "PNG")
    with zipfile.ZipFile(buffer, "w") as file:
        for part in ("train", "test"):
            for kind in ("cat", "dog"):
                file.writestr(f"{part}/{kind}/1.png", picture.getvalue())
    return buffer.getvalue()


def arrays() -> bytes:
    buffer = io.BytesIO()
    images, labels = np.zeros((4, 1, 4, 4), np.uint8), np.arange(4) % 2
    np.savez(buffer, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    return buffer.getvalue()


@pytest.mark.parametrize(("name", "make"), [("images.zip", zipped), ("images.npz", arrays)])
@fuzzed
@given(data=st.data())
def test_any_file_of_images_is_read_or_refused(
    tmp_path: Path, name: str, make: Callable[[], bytes], data: st.DataObject
):
    path, good = tmp_path / name, make()
    path.write_bytes(data.draw(mutated(good) | st.binary(max_size=50)))
    assert "\n" not in refusal(lambda: read_images(str(path)), DataError)


@fuzzed
@given(data=st.data())
def test_any_idx_files_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    root = tmp_path_factory.mktemp("root")
    (root / "mnist").mkdir()
    images = b"\x00\x00\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (2, 2, 2)) + bytes(8)
    labels = b"\x00\x00\x08\x01" + (2).to_bytes(4, "big") + bytes(2)
    for part in ("train", "t10k"):
        for kind, good in (("images-idx3", images), ("labels-idx1", labels)):
            content = data.draw(st.just(good) | mutated(good))
            packed = data.draw(st.just(gzip.compress(content)) | mutated(gzip.compress(content)))
            (root / "mnist" / f"{part}-{kind}-ubyte.gz").write_bytes(packed)
    assert "\n" not in refusal(lambda: read_images("mnist", root=root), DataError)
