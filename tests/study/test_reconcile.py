"""What a study keeps of an earlier session."""

from pathlib import Path

import pytest
import torch

from lratlas.errors import StudyError
from lratlas.study.folder import Folder
from lratlas.study.formats import FORMAT
from lratlas.study.jobs import Lane, Seed, Training
from lratlas.study.plan import Plan
from lratlas.study.reconcile import check_task_holds, forget_segments
from lratlas.study.store import Store
from lratlas.tables import empty

SEED = Seed(seed=0, training_seed=1, fingerprint="task")


def training(name: str) -> Training:
    return Training(
        id=name,
        stage="pretrain",
        seeds=(SEED,),
        lanes=(Lane(plr=0.1),),
        runs=((f"run-of-{name}",),),
        segments=(5, 10),
        trace_every=5,
    )


def test_leftover_segments_of_finished_jobs_go_and_folders_are_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = Plan(
        strategy="stack",
        dtype="float32",
        device="cpu",
        compiled=False,
        chance_loss=1.0,
        elr=False,
        trainings=tuple(training(f"job-{at}") for at in range(6)),
    )
    store = Store.create(tmp_path / "study", 'name = "kept"\n')
    for job in plan.trainings:
        store.write_weights(f"{job.id}-5", {"x": torch.zeros(1)})
    for job in plan.trainings[:4]:  # these came to their end
        store.write_weights(job.id, {"x": torch.zeros(1)})
        store.write_table("runs", job.id, empty("runs"))
        for end in job.segments:
            store.write_table("traces", f"{job.id}-{end}", empty("traces"))
    listed, files = list[str](), Folder.files

    def counted(self: Folder, folder: str) -> list[str]:
        listed.append(folder)
        return files(self, folder)

    monkeypatch.setattr(Folder, "files", counted)
    forget_segments(store, plan)
    assert sorted(listed) == ["checkpoints", "tables/runs", "tables/traces"]
    assert store.weights() == ["job-0", "job-1", "job-2", "job-3", "job-4-5", "job-5-5"]


def study_of(*seeds: Seed, form: int) -> Plan:
    job = training("job").model_copy(update={"seeds": seeds, "runs": tuple((f"run-{seed.seed}",) for seed in seeds)})
    return Plan(
        format=form,
        strategy="stack",
        dtype="float32",
        device="cpu",
        compiled=False,
        chance_loss=1.0,
        elr=False,
        trainings=(job,),
    )


@pytest.mark.parametrize(
    ("form", "words"), [(5, "made by an earlier version of lratlas"), (FORMAT, "of a different task")]
)
def test_a_study_whose_repetitions_share_a_training_seed_is_not_continued(tmp_path: Path, form: int, words: str):
    store = Store.create(tmp_path / "study", 'name = "kept"\n')
    crossed = [Seed(seed=r, data_seed=1 + r, training_seed=1, fingerprint="same task") for r in range(2)]
    own = [seed.model_copy(update={"training_seed": 1 + seed.seed}) for seed in crossed]
    check_task_holds(store, study_of(*own, form=form), own, {})
    with pytest.raises(StudyError, match=words):
        check_task_holds(store, study_of(*crossed, form=form), own, {})
