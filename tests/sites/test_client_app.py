from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fedai_site import intake
from fedai_site.client_app import Bench, app
from fedai_site.home import SiteHome
from flwr.app import Context, Message, Metadata, RecordDict
from homes import add_patients, make_home
from replies_to import LAYOUT, STUDY, start_weights, task_of
from studies import small_study

from fedai import wire
from fedai.aggregation import WeightedMean
from fedai.errors import ConfigError, DataError, RefusedByPolicy, TrainingError
from fedai.metrics import ScoreHistogram
from fedai.score import Score
from fedai.study import Study
from fedai.weights import Weights, applied


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    return make_home(tmp_path_factory.mktemp("site"), patients=28)


def bench_at(home: SiteHome, study: Study = STUDY) -> Bench:
    return Bench(home, study, lambda: True)


@pytest.mark.parametrize("kind", ["ready", "train", "train_alone", "score"])
def test_each_answer_is_exactly_what_its_task_asks_for(kind: wire.TaskKind, home: SiteHome) -> None:
    task = task_of(kind)
    wire.check(bench_at(home).answer(task, 7), task, STUDY, LAYOUT)


def test_models_that_were_scored_can_be_placed(home: SiteHome) -> None:
    bench, models = bench_at(home), ("federated", "local:north")
    scored = [bench.answer(task_of("score", model=model), 7) for model in models]
    histograms = np.stack([reply.arrays["histogram"] for reply in scored])
    task = task_of("place", models=models, arrays=pools(histograms))
    reply = bench_at(home).answer(task, 7)  # another process finds the kept scores too
    wire.check(reply, task, STUDY, LAYOUT)
    assert reply.metrics["cases"] == scored[0].metrics["cases"]


def pools(histograms: object) -> dict[str, np.ndarray]:
    return {"histograms": np.asarray(histograms, np.uint32)}


def test_a_model_that_was_never_scored_can_not_be_placed(home: SiteHome) -> None:
    with pytest.raises(TrainingError, match="never scored the model federated"):
        bench_at(home).answer(task_of("place", run="small-9"), 9)


def test_what_another_run_or_another_study_scored_can_not_be_placed(home: SiteHome) -> None:
    """A revoked study's kept scores must be out of the reach of every other one."""
    scored = bench_at(home).answer(task_of("score", model="federated", run="same-name"), 1)
    facts = {"models": ("federated",), "arrays": pools([scored.arrays["histogram"]]), "run": "same-name"}
    other = small_study(name="other")
    for study, run_id in ((STUDY, 2), (other, 1), (other, 2)):
        with pytest.raises(TrainingError, match="never scored"):
            bench_at(home, study).answer(task_of("place", **facts, study=study.sha256), run_id)
    bench_at(home).answer(task_of("place", **facts), 1)


def test_a_pool_without_this_sites_own_cases_is_refused(home: SiteHome) -> None:
    """Histograms that are steps would read single cases out of the sums."""
    scored = bench_at(home).answer(task_of("score", model="federated"), 3).arrays["histogram"]
    steps = np.zeros_like(scored)
    steps[0, :, [0, -1]] = scored.sum()
    moved = scored.copy()
    taken = np.flatnonzero(moved[0, 1])[0]
    moved[0, 1, taken] -= 1
    moved[0, 1, taken + 1] += 1
    for counts in (steps, moved):
        task = task_of("place", models=("federated",), arrays=pools([counts]))
        with pytest.raises(RefusedByPolicy, match="don't hold this site's own"):
            bench_at(home).answer(task, 3)
    more = scored + steps
    bench_at(home).answer(task_of("place", models=("federated",), arrays=pools([more])), 3)


def test_readiness_accounts_for_every_image(tmp_path: Path) -> None:
    home = make_home(tmp_path, patients=30)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "labels.csv").write_text("PatientID,label\nP9,other\n")
    junk = tmp_path / "more" / "images"
    junk.mkdir()
    (junk / "junk.dcm").write_text("junk")
    from fedai_site.adding import add_data

    add_data(home.folder, junk, tmp_path / "more" / "labels.csv")
    reply = bench_at(home).answer(task_of("ready"), 7)
    numbers = reply.metrics
    assert (numbers["found"], numbers["deidentified"], numbers["used"]) == (61, 60, 58)
    assert (numbers["excluded_quarantined"], numbers["excluded_label_not_in_study"]) == (1, 2)
    lost = sum(count for name, count in numbers.items() if name.startswith("excluded_"))
    assert numbers["found"] - lost == numbers["used"] == int(reply.arrays["split_cases"].sum())
    assert int(reply.arrays["split_patients"].sum()) == 29
    assert numbers["overlapping_patients"] == 0
    assert set(reply.words) == set(wire.VERSIONS)


def test_data_that_were_added_count_in_the_next_run(tmp_path: Path) -> None:
    home = make_home(tmp_path, patients=12)
    bench = bench_at(home)
    before = bench.answer(task_of("ready"), 7).metrics["used"]
    bench.answer(task_of("train"), 7)
    add_patients(home, tmp_path / "later", range(20, 28))
    after = bench.answer(task_of("ready", run="small-2"), 7)
    assert after.metrics["used"] == before + 16
    trained = bench.answer(task_of("train", run="small-2"), 7)
    assert trained.metrics["cases"] == int(after.arrays["split_cases"][0].sum())


CHOOSING = {"checkpoint": {"choose": "best"}}  # so that all kinds may be asked


@pytest.mark.parametrize("kind", wire.REPLY_OF)
def test_too_few_patients_are_too_few_whatever_is_asked(kind: wire.TaskKind, home: SiteHome) -> None:
    study = small_study(cohort={"minimum_patients": 1000}, training=CHOOSING)
    with pytest.raises(TrainingError, match="the study wants 1000"):
        bench_at(home, study).answer(task_of(kind, study=study.sha256), 7)


@pytest.mark.parametrize("kind", wire.REPLY_OF)
def test_a_site_without_an_eligible_case_has_no_data(kind: wire.TaskKind, home: SiteHome) -> None:
    study = small_study(cohort={"modality": ["MG"]}, training=CHOOSING)
    with pytest.raises(DataError, match="no case of this site is eligible"):
        bench_at(home, study).answer(task_of(kind, study=study.sha256), 7)


def test_the_same_task_gives_the_same_update(home: SiteHome) -> None:
    one, other = (bench_at(home).answer(task_of("train"), 7) for _ in range(2))
    assert all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)
    assert one.metrics == other.metrics
    warm = bench_at(home)
    warm.answer(task_of("train_alone"), 7)
    again = warm.answer(task_of("train"), 7)
    assert np.array_equal(one.arrays["parameters"], again.arrays["parameters"])


def test_an_update_is_the_change_of_the_weights(home: SiteHome) -> None:
    bench = bench_at(home)
    reply = bench.answer(task_of("train_alone"), 7)
    from fedai.weights import pack

    now = applied(start_weights()[1], Weights.of(dict(reply.arrays)))
    np.testing.assert_allclose(now.parameters, pack(bench.model.network, LAYOUT).parameters, atol=1e-6)


def test_validation_is_of_the_weights_that_came_in(home: SiteHome) -> None:
    bench = bench_at(home)
    first = bench.answer(task_of("train"), 7)
    histogram = ScoreHistogram.from_arrays(first.arrays)
    assert int(np.sum(histogram.counts)) == first.metrics["validation_cases"]
    assert first.metrics["validation_cases"] == len(bench.labels("validation"))
    again = bench.answer(task_of("train"), 7)
    assert again.metrics["validation_loss"] == first.metrics["validation_loss"]


def test_the_second_epoch_opens_no_dicom_file(home: SiteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    bench_at(home).answer(task_of("train"), 7)
    opened = []
    monkeypatch.setattr(intake, "decode", lambda data: opened.append(data))
    bench_at(home).answer(task_of("train"), 7)
    assert opened == []


def test_a_run_of_the_tasks_teaches_the_network(home: SiteHome) -> None:
    wide = {"block_inplanes": [8, 8, 16, 16], "conv1_t_size": 3, "no_max_pool": True}
    study = small_study(network=wide, training={"rounds": 3, "local_epochs": 2})
    bench = bench_at(home, study)
    from fedai.weights import pack

    weights = pack(bench.model.network, bench.layout)
    facts = {"study": study.sha256, "layout": bench.layout.to_json()}
    losses = []
    for number in (1, 2, 3):
        reply = bench.answer(task_of("train", round=number, arrays=dict(weights.arrays()), **facts), 7)
        mean = WeightedMean(bench.layout)
        mean.add("north", Weights.of(dict(reply.arrays)), int(reply.metrics["cases"]))
        weights = applied(weights, mean.update())
        losses.append(reply.metrics["train_loss"])
    assert losses[2] < losses[0]
    scored = bench.answer(task_of("score", arrays=dict(weights.arrays()), **facts), 7)
    assert Score.from_arrays(scored.arrays).histogram.auroc()[0] > 0.9


def test_of_a_split_of_fewer_than_three_patients_nothing_leaves(tmp_path: Path) -> None:
    bench = bench_at(make_home(tmp_path, patients=8))
    assert [len(set(bench.patients(split))) for split in wire.SPLITS] == [4, 0, 0]
    ready = bench.answer(task_of("ready"), 7)
    assert not ready.arrays["split_patients"].any()
    assert not ready.arrays["split_cases"].any(), "nor of a class of fewer: there are two of each"
    trained = bench.answer(task_of("train"), 7)
    wire.check(trained, task_of("train"), STUDY, LAYOUT)
    assert (trained.metrics["validation_cases"], trained.metrics["validation_loss"]) == (0, 0.0)
    assert not trained.arrays["histogram"].any()
    for kind in ("score", "place"):
        with pytest.raises(TrainingError, match="fewer than 3 test patients"):
            bench.answer(task_of(kind), 7)  # type: ignore[arg-type]
    assert not list(bench.home.runs.rglob("*.npy"))


def test_nobody_trains_on_fewer_than_three_patients_whatever_the_study_says(tmp_path: Path) -> None:
    home = make_home(tmp_path, patients=2)
    with pytest.raises(TrainingError, match="2 training patients, the study wants 3"):
        bench_at(home).answer(task_of("ready"), 7)


@pytest.mark.parametrize("kind", ["train", "train_alone", "score"])
def test_training_and_scoring_stop_when_the_site_says_so(kind: wire.TaskKind, home: SiteHome) -> None:
    with pytest.raises(TrainingError, match="was stopped"):
        Bench(home, STUDY, lambda: False).answer(task_of(kind), 7)


@pytest.mark.parametrize(
    "change",
    [{"study": "0" * 64}, {"round": 99}, {"layout": ""}, {"arrays": {}}, {"model": "../../keys/agent.key"}],
)
def test_a_task_that_does_not_fit_the_study_reads_no_case(
    change: dict[str, object], home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    monkeypatch.setattr("fedai_site.cohort.select", lambda *_: read.append(1))
    with pytest.raises(RefusedByPolicy, match="doesn't fit the study"):
        bench_at(home).answer(task_of("train", **change), 7)
    assert read == []


def test_a_network_that_is_not_installed_here_is_a_config_error(home: SiteHome) -> None:
    study = small_study(preprocessing={"image_size": [16, 16]}).model_dump(mode="json")
    tiny = Study.model_validate({**study, "network": {"name": "DenseNet121"}})
    with pytest.raises(ConfigError, match="can't be built"):
        bench_at(home, tiny).answer(task_of("ready", study=tiny.sha256), 7)


def test_the_homes_threads_are_used(tmp_path: Path) -> None:
    home = make_home(tmp_path, patients=2)
    limited = SiteHome(home.folder, home.settings.model_copy(update={"threads": 1}))
    before = torch.get_num_threads()
    try:
        assert bench_at(limited).model.network is not None
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["train", "evaluate", "query"])
def test_flowers_own_client_gets_nothing_from_the_bundle(kind: str) -> None:
    metadata = Metadata(
        run_id=1, message_id="m", src_node_id=1, dst_node_id=2, reply_to_message_id="", group_id="",
        created_at=time.time(), ttl=60, message_type=kind,
    )  # fmt: skip
    message = Message(RecordDict(), metadata=metadata)
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    with pytest.raises(RefusedByPolicy, match="only inside its agent"):
        app(message, context)


def test_a_validation_by_itself_tells_what_a_round_with_the_same_weights_would(home: SiteHome) -> None:
    study = small_study(training=CHOOSING)
    bench = bench_at(home, study)
    alone = bench.answer(task_of("validate", study=study.sha256), 7)
    trained = bench.answer(task_of("train", study=study.sha256), 7)
    assert set(alone.arrays) == {"histogram"}
    assert np.array_equal(alone.arrays["histogram"], trained.arrays["histogram"])
    assert dict(alone.metrics) == {name: trained.metrics[name] for name in alone.metrics}
    assert set(alone.metrics) == {"validation_loss", "validation_cases"}
