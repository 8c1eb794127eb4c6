"""The study in miniature: every comparison at its smallest, and what its conclusions rest on."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import benchmarks.study.__main__ as study_main
from benchmarks.study.comparisons import COMPARISONS
from benchmarks.study.drawing import DIRECTIONS, ICONS
from benchmarks.study.evaluation import Embedder, direction_accuracy, order_accuracy, sentences
from benchmarks.study.metrics import linear_cka, neighbors_kept, recall_at_1, recognition
from benchmarks.study.models import start_from_clip
from benchmarks.study.runs import Run, StudyFolder, make_trainer
from benchmarks.study.sentences import (
    MOTIONS,
    OTHER_COLORS,
    OTHER_MOTIONS,
    OTHER_PLACES,
    OTHER_SHAPES,
    SHAPE_NAMES,
    SPOKEN,
    STYLES,
    UNSEEN,
    WRITTEN,
    Attributes,
)
from benchmarks.study.settings import Arm, read_study
from benchmarks.study.step_costs import activation_bytes
from benchmarks.study.summary import summarize, summarize_differences
from benchmarks.study.synthetic_videos import CLASSES, SyntheticVideos
from benchmarks.study.training_loop import Source

CONFIGS = Path(study_main.CONFIG).parent
SMALLEST = CONFIGS / "smallest.yaml"
SEED = 0


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """The whole smallest study, run by its command."""
    folder = tmp_path_factory.mktemp("study")
    study_main.main(["--config", str(SMALLEST), "--folder", str(folder), "--records", str(folder / "records")])
    return folder


@pytest.fixture
def study_folder(done) -> StudyFolder:
    return StudyFolder(read_study(SMALLEST), done)


@pytest.fixture(scope="module")
def synthetic() -> SyntheticVideos:
    return SyntheticVideos(read_study(SMALLEST).videos, SEED)


def run_again(done: Path, *options: str) -> None:
    study_main.main(["--config", str(SMALLEST), "--folder", str(done), "--records", str(done / "records"), *options])


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparison_has_every_number_of_its_tables_with_an_interval(name, done):
    record = json.loads((done / "records" / f"{name}.json").read_text())
    assert record["state"] == "complete"
    assert (done / "records" / f"{name}.png").stat().st_size > 5000
    last_arm = list(record["summary"])[-1]
    for columns in COMPARISONS[name].tables.values():
        for _, number in columns:
            assert record["summary"][last_arm][number]["seeds"] == 2, number
            assert record["summary"][last_arm][number]["half_width"] is not None
    assert str(done) not in json.dumps(record)


def test_tables_show_what_runs_hold(done):
    runs = [json.loads(file.read_text()) for file in (done / "runs" / "language").glob("full-*.json")]
    mean = np.mean([run["metrics"]["retrieval/asr"] for run in runs])
    row = re.search(r"^\| full \| ([\d.]+) ± ", (done / "records" / "language.md").read_text(), re.MULTILINE)
    assert float(row[1]) == pytest.approx(mean, abs=0.051)


def test_the_start_has_not_drifted_and_training_has(done):
    metrics = {
        name: json.loads(next((done / "runs" / "language").glob(f"{name}-seed0-*.json")).read_text())["metrics"]
        for name in ("start", "full")
    }
    for style in STYLES:
        assert metrics["start"][f"cosine/{style}"] == pytest.approx(1, abs=1e-6)
        assert metrics["start"][f"neighbors/{style}"] == 1
        assert metrics["full"][f"cosine/{style}"] < 0.9999


def test_a_lost_run_is_repeated_to_the_same_numbers_and_no_other_is(done):
    files = sorted((done / "runs").rglob("*.json"))
    before = {file: (file.read_text(), file.stat().st_mtime_ns) for file in files}
    lost = next(file for file in files if file.name.startswith("sorting-seed1"))
    lost.unlink()
    run_again(done, "--only", "sorting")
    assert json.loads(lost.read_text())["metrics"] == json.loads(before[lost][0])["metrics"]
    assert all(file.stat().st_mtime_ns == before[file][1] for file in files if file != lost)


def test_a_run_without_time_begins_nothing_and_says_partial(done):
    lost = next((done / "runs" / "sorting").glob("sorting-seed1*.json"))
    content = lost.read_text()
    lost.unlink()
    run_again(done, "--only", "sorting", "--seconds", "0")
    record = json.loads((done / "records" / "sorting.json").read_text())
    lost.write_text(content)
    run_again(done, "--only", "sorting")
    assert (record["state"], record["runs_done"], record["runs_planned"]) == ("partial", 3, 4)
    assert record["summary"]["sorting"]["order"]["half_width"] is None  # one seed has no interval


def test_a_run_that_breaks_off_leaves_nothing(study_folder, monkeypatch):
    def break_off(study_folder, seed, arm):
        raise KeyboardInterrupt

    run = Run("language", Arm("never done"), SEED)
    monkeypatch.setitem(study_main.EVALUATIONS, "language", break_off)
    before = sorted(study_folder.folder.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        study_main.execute_run(run, study_folder, study_main.EVALUATIONS["language"])
    assert sorted(study_folder.folder.rglob("*")) == before


def test_another_setting_is_another_run(study_folder):
    run = Run("language", Arm("full"), SEED)
    files = {study_folder.run_file(run)}
    for change in ({"mask_ratio": 0.4}, {"num_tuned_blocks": 2}, {"sorts": False}):
        files.add(study_folder.run_file(Run("language", dataclasses.replace(run.arm, **change), SEED)))
    files.add(study_folder.run_file(Run("language", run.arm, 1)))
    longer = dataclasses.replace(study_folder.study.claims["language"], num_steps=3)
    study = dataclasses.replace(study_folder.study, claims=study_folder.study.claims | {"language": longer})
    files.add(StudyFolder(study, study_folder.folder).run_file(run))
    assert len(files) == 6


# What is trained


@pytest.mark.parametrize(
    "arm, frozen",
    [
        (Arm("partly", num_tuned_blocks=1), r"text_model\.encoder\.layers\.0\..*"),
        (Arm("frozen", num_tuned_blocks=0, tunes_rest_of_text=False), r"text_(model|projection)\..*"),
        (Arm("full", num_tuned_blocks=2), r"nothing"),
    ],
    ids=lambda value: value.name if isinstance(value, Arm) else "",
)
def test_frozen_text_stays_bit_equal_and_the_rest_moves(study_folder, arm, frozen):
    trainer, _ = make_trainer(study_folder, SEED, arm)
    before = {name: each.detach().clone() for name, each in trainer.model.named_parameters()}
    trainer.train(3)
    after = dict(trainer.model.named_parameters())
    stayed = {name for name in before if torch.equal(before[name], after[name])}
    expected = {name for name in before if re.fullmatch(frozen, name)}
    # A key's bias cannot move (softmax cancels it); time attention starts at a saddle (see training's notes).
    exempt = {name for name in before if name.endswith("k_proj.bias") or ".temporal_attn." in name}
    assert stayed - exempt == expected - exempt


def test_weight_of_contrast_scales_its_gradient_and_not_that_of_sorting(study_folder):
    gradients = []
    for weight in (1.0, 1 / 80):
        trainer, _ = make_trainer(study_folder, SEED, Arm("x", contrastive_loss_weight=weight, adam_epsilon=1e-6))
        trainer.train(1)
        assert trainer.optimizer.defaults["eps"] == 1e-6
        model = trainer.model
        gradients.append((model.text_projection.weight.grad.clone(), model.sorter.head.weight.grad.clone()))
    (text, sorter), (weighted_text, weighted_sorter) = gradients
    # Only the contrastive loss reaches the text tower, only the sorting loss the sorter.
    assert torch.allclose(weighted_text, text / 80, rtol=1e-4, atol=1e-9)
    assert torch.equal(weighted_sorter, sorter) and sorter.abs().max() > 0


def test_runs_of_a_seed_start_from_the_same_clip(study_folder):
    clip = study_folder.clip(SEED)
    one, other = (start_from_clip(clip, study_folder.study, arm, SEED) for arm in (Arm("a"), Arm("b", mask_ratio=0.0)))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    loaded = study_folder.start(clip).model.state_dict()
    shared = [name for name in one.state_dict() if name in loaded]
    assert len(shared) > 40
    assert all(torch.equal(one.state_dict()[name], loaded[name]) for name in shared)


def test_without_stop_gradient_the_values_are_the_same_and_sorting_reaches_the_text(study_folder):
    gradients, losses = [], []
    for stops in (True, False):
        trainer, _ = make_trainer(study_folder, SEED, Arm("x", stop_gradient=stops, num_tuned_blocks=2))
        outputs = trainer.model(**trainer.sources[0].next_batch())
        losses.append(outputs.sorting_loss.item())
        outputs.sorting_loss.backward()
        gradient = trainer.model.text_projection.weight.grad
        gradients.append(None if gradient is None else gradient.abs().max().item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert not gradients[0]
    assert gradients[1] > 0


def test_random_time_attention_starts_as_the_specified_one_does(study_folder):
    batch = make_trainer(study_folder, SEED, Arm("x"))[0].sources[0].next_batch()["pixel_values_videos"]
    arms = (Arm("specified"), Arm("random", random_time_attention=True))
    models = [start_from_clip(study_folder.clip(SEED), study_folder.study, arm, SEED).eval() for arm in arms]
    one, other = (model.get_video_features(batch).pooler_output for model in models)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert models[1].vision_model.encoder.layers[0].temporal_attn.q_proj.weight.abs().max() > 0


def test_a_source_too_small_for_a_batch_says_so(study_folder, synthetic):
    tokenizer = study_folder.start(study_folder.clip(SEED)).tokenizer
    texts = synthetic.narrated.say(SPOKEN, SEED)
    with pytest.raises(ValueError, match="8 samples never fill a batch of 9"):
        Source(synthetic.narrated, texts, tokenizer, batch_size=9, num_patches=4, mask_ratio=0.5, seed=0)


def test_batches_go_through_all_clips_and_shuffle_transcripts(study_folder, synthetic):
    tokenizer = study_folder.start(study_folder.clip(SEED)).tokenizer
    texts = synthetic.narrated.say(SPOKEN, SEED)
    source = Source(synthetic.narrated, texts, tokenizer, batch_size=4, num_patches=4, mask_ratio=0.5, seed=0)
    batches = [source.next_batch() for _ in range(2)]
    spoken = set()
    for batch in batches:
        assert batch["bool_masked_pos"].sum(dim=1).tolist() == [2] * 4
        for ids, order in zip(batch["input_ids"], batch["sorting_labels"], strict=True):
            in_time = [ids[list(order).index(place)] for place in range(4)]
            spoken.add(tuple(tokenizer.decode(each, skip_special_tokens=True) for each in in_time))
    assert spoken == {tuple(each) for each in texts}
    assert not all(batch["sorting_labels"].equal(torch.arange(4).expand(4, 4)) for batch in batches)


def test_masking_saves_memory_for_the_backward_pass(study_folder):
    needed = []
    for ratio in (0.0, 0.75):
        trainer, _ = make_trainer(study_folder, SEED, Arm("x", mask_ratio=ratio))
        needed.append(activation_bytes(trainer.model, trainer.sources[0].next_batch()))
    assert needed[1] < 0.8 * needed[0]


def test_the_time_study_has_one_run_per_arm_and_seed():
    runs = study_main.list_runs(read_study(CONFIGS / "time.yaml"), "sorting")
    assert len(runs) == len({(run.arm.name, run.seed) for run in runs}) == 13 * 8
    assert all(run.arm.sources == ["narrated"] for run in runs)


# What is seen and said


def test_held_out_combinations_are_in_no_training_clip(synthetic):
    held_out = set(synthetic.test_attributes)
    assert len(held_out) == 144
    kinds = (
        synthetic.stills,
        synthetic.narrated,
        synthetic.captioned,
        synthetic.ordered,
        synthetic.probe,
        synthetic.probe_ordered,
    )
    for clips in kinds:
        assert not held_out & {attributes for events in clips.events for attributes in events}
    for clips in (synthetic.test, synthetic.test_ordered, synthetic.test_narrated):
        assert held_out >= {attributes for events in clips.events for attributes in events}
    assert sorted(map(str, held_out)) == sorted(str(attributes) for (attributes,) in synthetic.test.events)


def test_unseen_styles_do_not_leak_into_post_pretraining(synthetic):
    def words(texts) -> set[str]:
        return {word for text in texts for word in re.findall(r"[\w']+", text.lower())}

    every = [*synthetic.test_attributes, *synthetic.train_attributes]
    of_style = {style: words(sentences(every, style)) for style in STYLES}
    trained = words(text for each in synthetic.narrated.narrate(SEED, 0.2) for text in each)
    trained |= words(text for (text,) in synthetic.captioned.say("caption", SEED))
    trained |= words(right for right, _ in synthetic.ordered.say_order(SEED))
    names = [OTHER_COLORS, OTHER_SHAPES, OTHER_MOTIONS, OTHER_PLACES]
    vocabulary = words(text for table in names for texts in table.values() for text in texts)
    assert len(vocabulary & of_style["paraphrase"]) > 40
    assert not vocabulary & trained
    for style in set(STYLES) - {"paraphrase"}:
        assert not vocabulary & of_style[style]
    assert not (of_style["passive"] & {"being", "someone", "pushed"}) & trained
    assert SPOKEN not in WRITTEN
    assert not {SPOKEN, "caption"} & set(UNSEEN)


@pytest.mark.parametrize("style", WRITTEN)
def test_every_written_sentence_tells_its_attributes(style):
    """From the sentence alone the attributes can be read, so that no style is at a loss by what it leaves out."""
    names = {
        "color": OTHER_COLORS if style == "paraphrase" else {name: (name,) for name in OTHER_COLORS},
        "shape": OTHER_SHAPES if style == "paraphrase" else SHAPE_NAMES,
        "place": OTHER_PLACES if style == "paraphrase" else {name: (name,) for name in CLASSES["place"]},
        "motion": OTHER_MOTIONS if style == "paraphrase" else {name: (*MOTIONS[name], name) for name in DIRECTIONS},
    }
    attributes = SyntheticVideos(read_study(SMALLEST).videos, SEED).test_attributes
    for each, sentence in zip(attributes, sentences(attributes, style), strict=True):
        for attribute, table in names.items():
            found = {name for name, said in table.items() if name and any(part in sentence for part in said)}
            assert getattr(each, attribute) in found, (sentence, attribute)
            assert len(found) == 1 or (attribute == "motion" and "up" in found), (
                sentence,
                attribute,
                found,
            )  # "up" is in "cup"


def test_shapes_move_where_they_are_said_to(synthetic):
    for frames, ((attributes), *_) in zip(synthetic.test.frames, synthetic.test.events, strict=True):
        grounds = np.median(frames.reshape(len(frames), -1, 3), axis=1)[:, None, None]
        ink = np.abs(frames - grounds).sum(axis=-1)
        grid = np.arange(frames.shape[1])
        across = (ink.sum(axis=1) * grid).sum(axis=1) / ink.sum(axis=(1, 2))
        along = (ink.sum(axis=2) * grid).sum(axis=1) / ink.sum(axis=(1, 2))
        moved = np.array([across[-1] - across[0], along[-1] - along[0]])
        wanted = np.array(DIRECTIONS[attributes.motion])
        assert (moved * wanted).sum() > 1.5, attributes
        assert abs((moved * (1 - np.abs(wanted))).sum()) < 1.0, attributes


def test_icons_are_all_different_also_turned_over():
    icons = list(ICONS.values())
    for number, icon in enumerate(icons):
        for other in icons[number + 1 :]:
            assert min(np.abs(icon - turned).sum() for turned in (other, other[::-1], other[:, ::-1])) >= 4


def test_moments_of_a_video_differ_by_sight_and_by_word(synthetic):
    for events in synthetic.narrated.events:
        assert len({attributes.color for attributes in events}) == len({attributes.shape for attributes in events}) == 4
        assert len({attributes.place for attributes in events}) == 1


# What is measured


class Oracle:
    """Knows what clips show and reads captions. Order: first events count once, second events twice."""

    def __init__(self, knows_order: bool = True):
        self.weights = (1.0, 2.0) if knows_order else (1.0, 1.0)
        self.attributes = [(name, value) for name, values in CLASSES.items() for value in values]

    def embed(self, events: list[Attributes]) -> np.ndarray:
        vectors = [[float(getattr(each, name) == value) for name, value in self.attributes] for each in events]
        # Pairs, so that a red star and a blue ring are not a blue star and a red ring.
        total = sum(weight * np.outer(v, v).ravel() for weight, v in zip(self.weights, vectors, strict=False))
        return total / np.linalg.norm(total)

    def clips(self, clips) -> np.ndarray:
        events = [[dataclasses.replace(e, place="") for e in each] if len(each) > 1 else each for each in clips.events]
        return np.stack([self.embed(each) for each in events])

    def texts(self, texts: list[str]) -> np.ndarray:
        return np.stack([self.embed([self.read(part) for part in self.split(text.lower())]) for text in texts])

    @staticmethod
    def split(text: str) -> list[str]:
        return re.split(r", then | and after that | before ", text)

    @staticmethod
    def read(phrase: str) -> Attributes:
        words = set(re.findall(r"\w+", phrase))
        shape = next(name for name, said in SHAPE_NAMES.items() if words & set(said))
        motion = next(name for name in DIRECTIONS if name in words)
        place = next((name for name in CLASSES["place"] if name in words), "")
        return Attributes(next(name for name in CLASSES["color"] if name in words), shape, motion, place)


def test_an_oracle_knows_the_order_and_a_bag_of_words_does_not(synthetic):
    assert order_accuracy(Oracle(), synthetic.test_ordered) == 100
    assert order_accuracy(Oracle(knows_order=False), synthetic.test_ordered) == 50


def test_an_oracle_knows_directions_and_who_sees_none_does_not(synthetic):
    class Blind(Oracle):
        def clips(self, clips):
            events = [[dataclasses.replace(attributes, motion="") for attributes in each] for each in clips.events]
            return np.stack([self.embed(each) for each in events])

    assert direction_accuracy(Oracle(), synthetic.test) == 100
    assert direction_accuracy(Blind(), synthetic.test) == 50


def test_an_oracle_retrieves_and_recognizes_everything(synthetic):
    oracle = Oracle()
    videos = oracle.clips(synthetic.test)
    texts = oracle.texts(sentences([attributes for (attributes,) in synthetic.test.events], "caption"))
    assert recall_at_1(texts, videos) == 100
    assert recall_at_1(texts[::-1], videos) < 5
    labels = synthetic.test.labels("shape")
    assert recognition(videos, labels, texts, labels) == 100
    assert recognition(videos, (labels + 1) % 6, texts, labels) == 0


def test_a_constant_model_gets_nothing_right(synthetic):
    same = np.ones((144, 4)) / 2
    labels = synthetic.test.labels("shape")
    assert recall_at_1(same, same) == recognition(same, labels, same, labels) == 0


def test_drift_does_not_see_rotations_where_it_should_not():
    rng = np.random.default_rng(0)
    before = rng.normal(size=(40, 6))
    before /= np.linalg.norm(before, axis=1, keepdims=True)
    rotated = before @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert linear_cka(3 * rotated, before) == pytest.approx(1)
    assert neighbors_kept(rotated, before) == 1
    other = rng.normal(size=(40, 6))
    assert linear_cka(other, before) < 0.4
    assert neighbors_kept(other, before) < 0.5


def test_linear_cka_is_the_centered_kernels_cosine():
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(2, 7, 3))
    center = np.eye(7) - 1 / 7
    kernels = [center @ each @ each.T @ center for each in (one, other)]
    expected = np.sum(kernels[0] * kernels[1]) / np.linalg.norm(kernels[0]) / np.linalg.norm(kernels[1])
    assert linear_cka(one, other) == pytest.approx(expected)


@pytest.mark.parametrize("num, quantile", [(2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262), (31, 2.042)])
def test_intervals_are_students(num, quantile):
    """97.5 % quantiles as in the tables of every textbook."""
    values = np.random.default_rng(num).normal(50, 3, num)
    summary = summarize(list(values))
    assert summary["seeds"] == num
    assert summary["mean"] == pytest.approx(values.mean(), abs=1e-4)
    assert summary["half_width"] == pytest.approx(quantile * values.std(ddof=1) / num**0.5, rel=3e-4)


def test_differences_are_paired_by_seed():
    own, reference = {0: 10.0, 1: 20.0, 2: 30.0}, {2: 29.0, 1: 19.0, 0: 9.0, 7: 0.0}
    assert summarize_differences(own, reference) == {"mean": 1.0, "half_width": 0.0, "seeds": 3}
    assert summarize_differences({5: 1.0}, reference) is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"post": None}, "PostSettings.* must be a mapping"),
        ({"sedes": [1]}, "unexpected keyword argument 'sedes'"),
        ({"seeds": [0, "one"]}, "index 1 in list 'seeds'"),
        ({"claims": {"language": {"num_steps": 1, "arms": [{"name": "a"}], "comparisons": {"drift": ["b"]}}}}, "'b'"),
        (
            {"claims": {"language": {"num_steps": 1, "arms": [{"name": "a", "sources": ["x"]}], "comparisons": {}}}},
            "'x'",
        ),
    ],
)
def test_settings_say_what_is_wrong(tmp_path, change, message):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(SMALLEST.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        read_study(file)


def test_a_comparison_that_the_study_has_not_is_named(tmp_path):
    file = tmp_path / "study.yaml"
    content = yaml.safe_load(SMALLEST.read_text())
    del content["claims"]["masking"]
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match="no comparison 'masking'"):
        study_main.main(["--config", str(file), "--folder", str(tmp_path), "--only", "masking"])


def test_averaged_frames_stand_for_a_clip_of_mini_clip(study_folder, synthetic):
    start = study_folder.start(study_folder.clip(SEED))
    frames = [dataclasses.replace(synthetic.test, frames=synthetic.test.frames[:, [t]]) for t in range(4)]
    mean = np.mean([start.clips(each) for each in frames], axis=0)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(start.clips(synthetic.test), mean, atol=1e-5)
    assert isinstance(start, Embedder)
