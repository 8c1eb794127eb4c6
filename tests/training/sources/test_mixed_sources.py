"""Sources in turn, the same whatever reads them; broken videos replaced, named and counted."""

import json
import os
from collections import Counter

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, DataLoader, Dataset

from processing import VideoReadingError
from training.sources.clip_sampling import TranscriptError
from training.sources.mixed_sources import MAX_REPLACEMENTS, MixedSources, SampleKey, TurnSampler
from training.sources.unusable_videos import BrokenVideos, TooManyBrokenVideosError

NUM_PATCHES = 16


class FakeClips(Dataset):
    """`size` videos of K transcripts whose pixels say which item of which epoch they are; some are broken."""

    def __init__(self, name, size, num_transcripts=4, broken=(), error=VideoReadingError):
        self.name, self.size, self.num_transcripts = name, size, num_transcripts
        self.broken, self.error = broken, error

    def __len__(self):
        return self.size

    def __getitem__(self, key):
        epoch, index = key
        if index in self.broken:
            raise self.error(f"{self.name}/{index}.mp4 is broken")
        return {
            "frames": torch.tensor([index, epoch]),
            "transcripts": [f"{self.name} {index} at {place}" for place in range(self.num_transcripts)],
            "video_id": f"{self.name}/{index}",
        }


@pytest.fixture
def mix(tmp_path):
    """Makes a MixedSources of the given sources that writes into tmp_path."""

    def make(*sources, mask_ratio=0.5, seed=3):
        broken_videos_file = tmp_path / "broken_videos.jsonl"
        return MixedSources(
            list(sources),
            num_patches=NUM_PATCHES,
            mask_ratio=mask_ratio,
            seed=seed,
            broken_videos_file=broken_videos_file,
        )

    return make


def same(one, other):
    """Whether two samples are equal to the bit."""
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )


# --- order ---


def keys_of(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return list(sampler)


def sources_of_steps(keys, samples_per_step):
    """The one source of every step."""
    steps = [keys[first : first + samples_per_step] for first in range(0, len(keys), samples_per_step)]
    assert all(len(step) == samples_per_step and len({key.source for key in step}) == 1 for step in steps)
    return [step[0].source for step in steps]


def test_two_sources_alternate_a_step_each():
    sampler = TurnSampler([12, 8], [1, 1], samples_per_step=4, seed=0)
    keys = keys_of(sampler)
    assert sources_of_steps(keys, 4) == [0, 1] * 3
    assert len(keys) == len(sampler) == 24


def test_weights_are_steps_of_a_turn():
    sampler = TurnSampler([12, 4, 4], [2, 1, 1], samples_per_step=4, seed=0)
    keys = keys_of(sampler)
    assert sources_of_steps(keys, 4) == [0, 0, 1, 2] * 2
    assert len(keys) == len(sampler)


def test_an_epoch_sees_every_source_once_at_least():
    sampler = TurnSampler([40, 6], [1, 1], samples_per_step=4, seed=0)
    keys = keys_of(sampler)
    assert {key.index for key in keys if key.source == 0} == set(range(40))
    # The small one starts over, in another order and under another number, so its samples are drawn anew.
    rounds = [key.epoch for key in keys if key.source == 1]
    assert sorted(set(rounds)) == list(range(10)) and rounds == sorted(rounds)


@pytest.mark.parametrize(("size", "step"), [(12, 4), (13, 4), (7, 7)])
def test_nothing_is_lost_or_doubled_within_a_round(size, step):
    sizes = [size, 4 * size]
    sampler = TurnSampler(sizes, [1, 1], samples_per_step=step, seed=0)
    epochs = [keys_of(sampler, epoch) for epoch in range(3)]
    assert set(Counter(key for keys in epochs for key in keys).values()) == {1}  # no round's number comes again
    for keys in epochs:
        for source in (0, 1):
            per_round = Counter(key.epoch for key in keys if key.source == source)
            *whole, last = (per_round[number] for number in sorted(per_round))
            assert set(whole) <= {sizes[source] // step * step}  # less than a step is left over
            assert last == sizes[source] // step * step or source == 0  # the end of an epoch cuts the smaller one's


def test_left_overs_differ_from_round_to_round():
    sampler = TurnSampler([13], [1], samples_per_step=4, seed=0)
    left_over = {(set(range(13)) - {key.index for key in keys_of(sampler, epoch)}).pop() for epoch in range(20)}
    assert len(left_over) > 5


def test_order_is_a_function_of_seed_and_epoch():
    first, again = (TurnSampler([12, 8], [1, 1], 4, seed=5) for _ in range(2))
    keys_of(again, 1)  # what was asked before does not matter
    assert keys_of(first, 2) == keys_of(again, 2)
    assert keys_of(first, 2) != keys_of(first, 3)
    assert [key.index for key in keys_of(first, 0)] != [
        key.index for key in keys_of(TurnSampler([12, 8], [1, 1], 4, 6))
    ]
    by_source = [[key.index for key in keys_of(TurnSampler([8, 8], [1, 1], 8, 0)) if key.source == s] for s in (0, 1)]
    assert by_source[0] != by_source[1]


@pytest.mark.parametrize(("num_processes", "accumulation"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_steps_of_several_processes_and_accumulated_batches_see_one_source(num_processes, accumulation):
    samples_per_step = 12
    batch_size = samples_per_step // (num_processes * accumulation)
    sampler = TurnSampler([30, 24], [1, 1], samples_per_step, seed=1)
    shards = [
        list(BatchSamplerShard(BatchSampler(sampler, batch_size, drop_last=False), num_processes, rank))
        for rank in range(num_processes)
    ]
    num_steps = len(sampler) // samples_per_step
    assert [len(shard) for shard in shards] == [num_steps * accumulation] * num_processes
    wanted = keys_of(sampler)
    for step in range(num_steps):
        batches = [batch for shard in shards for batch in shard[step * accumulation : (step + 1) * accumulation]]
        keys = [key for batch in batches for key in batch]
        assert {key.source for key in keys} == {step % 2}
        assert sorted(keys) == sorted(wanted[step * samples_per_step : (step + 1) * samples_per_step])


@pytest.mark.parametrize("weights", [[1], [1, 0], [1, -1], [1, 0.5], [1, "2"]])
def test_weights_must_be_whole_numbers(weights):
    with pytest.raises(ValueError, match=r"needs a weight, a whole number"):
        TurnSampler([8, 8], weights, 4, 0)


def test_a_source_smaller_than_a_step():
    with pytest.raises(ValueError, match=r"takes 9 samples of one source, but the sources have \[12, 8\]"):
        TurnSampler([12, 8], [1, 1], 9, 0)


# --- content ---


def test_labels_say_when_each_transcript_was_spoken(mix):
    samples = mix(FakeClips("a", 30))
    orders = set()
    for index in range(30):
        sample = samples[SampleKey(0, 1, index)]
        places = [int(transcript.split()[-1]) for transcript in sample["transcripts"]]
        assert places == sample["sorting_labels"].tolist()
        orders.add(tuple(places))
    assert len(orders) > 10  # of 24


def test_samples_are_functions_of_seed_source_epoch_and_index(mix):
    samples = mix(FakeClips("a", 9), FakeClips("b", 9))
    key = SampleKey(0, 2, 5)
    sample = samples[key]
    samples[SampleKey(1, 7, 3)]
    assert same(sample, samples[key])
    assert sample["frames"].tolist() == [5, 2]
    assert sample["bool_masked_pos"].sum() == NUM_PATCHES // 2 and sample["num_broken"] == 0
    others = [samples[other] for other in (SampleKey(1, 2, 5), SampleKey(0, 3, 5), SampleKey(0, 2, 6))]
    others.append(mix(FakeClips("a", 9), seed=4)[key])
    for other in others:
        assert not torch.equal(sample["bool_masked_pos"], other["bool_masked_pos"])


def test_content_does_not_depend_on_workers_or_processes(mix):
    sampler = TurnSampler([12, 12], [1, 1], samples_per_step=4, seed=1)

    def read(num_workers, num_processes):
        batches = BatchSampler(sampler, 4 // num_processes, drop_last=False)
        shards = [BatchSamplerShard(batches, num_processes, rank) for rank in range(num_processes)]
        samples = mix(FakeClips("a", 12, broken=(1, 2)), FakeClips("b", 12, num_transcripts=1))
        loaders = [
            DataLoader(samples, batch_sampler=shard, num_workers=num_workers, collate_fn=list) for shard in shards
        ]
        return [sample for step in zip(*loaders, strict=True) for batch in step for sample in batch]

    alone = read(num_workers=0, num_processes=1)
    assert [sample["video_id"][0] for sample in alone[:8]] == list("aaaabbbb")
    for setting in ((2, 1), (0, 2), (2, 2)):
        assert all(same(one, other) for one, other in zip(alone, read(*setting), strict=True)), setting


def test_no_mask_at_ratio_zero(mix):
    assert not mix(FakeClips("a", 3), mask_ratio=0.0)[SampleKey(0, 0, 0)]["bool_masked_pos"].any()


# --- broken videos ---


@pytest.mark.parametrize("error", [VideoReadingError, TranscriptError])
def test_a_broken_video_is_replaced_and_written_down_once(mix, error):
    samples = mix(FakeClips("a", 9, broken=(4,), error=error))
    sample = samples[SampleKey(0, 2, 4)]
    assert sample["video_id"] != "a/4" and sample["num_broken"] >= 1
    records = [json.loads(line) for line in samples.broken_videos_file.read_text().splitlines()]
    assert len(records) == sample["num_broken"] == samples.num_broken
    assert records[0] == {"source": 0, "epoch": 2, "index": 4, "error": "a/4.mp4 is broken"}
    assert same(sample, samples[SampleKey(0, 2, 4)])  # the same replacement every time
    assert samples.num_broken == len(records)  # and no second count
    assert len({samples[SampleKey(0, epoch, 4)]["video_id"] for epoch in range(20)}) > 3  # and another one elsewhere


def test_a_replacement_may_be_broken_too(mix):
    samples = mix(FakeClips("a", 10, broken=range(7)))
    for index in range(10):
        sample = samples[SampleKey(0, 0, index)]
        assert sample["video_id"] in ("a/7", "a/8", "a/9")
        assert (sample["num_broken"] > 0) == (index < 7)
    records = [json.loads(line) for line in samples.broken_videos_file.read_text().splitlines()]
    assert sorted(record["index"] for record in records) == list(range(7))  # each once, though many met it
    assert all(record["error"] == f"a/{record['index']}.mp4 is broken" for record in records)


def test_whole_videos_leave_no_ledger(mix):
    samples = mix(FakeClips("a", 3))
    samples[SampleKey(0, 0, 0)]
    assert not samples.broken_videos_file.exists() and samples.num_broken == 0


@pytest.mark.parametrize(("size", "num_tried"), [(5, 5), (1, 1), (100, MAX_REPLACEMENTS + 1)])
def test_nothing_but_broken_videos_is_an_error(mix, size, num_tried):
    samples = mix(FakeClips("a", size, broken=range(size)))
    with pytest.raises(TooManyBrokenVideosError, match=rf"^{num_tried} of {size} videos .*a/\d+\.mp4 is broken$"):
        samples[SampleKey(0, 0, 0)]
    records = [json.loads(line) for line in samples.broken_videos_file.read_text().splitlines()]
    assert len({record["index"] for record in records}) == len(records) == samples.num_broken == num_tried


def test_nothing_but_broken_videos_is_one_line_from_a_loading_worker_too(mix):
    samples = mix(FakeClips("a", 2, broken=range(2)))
    with pytest.raises(TooManyBrokenVideosError) as caught:
        list(DataLoader(samples, batch_sampler=[[SampleKey(0, 0, 0)]], num_workers=1, collate_fn=list))
    assert str(caught.value).startswith("2 of 2 videos") and "\n" not in str(caught.value)


def test_a_replacement_is_never_one_that_was_just_tried(mix):
    tried = []

    class Recorder(FakeClips):
        def __getitem__(self, key):
            tried.append(key.index)
            return super().__getitem__(key)

    samples = mix(Recorder("a", 4, broken=(0, 1, 2)))
    for epoch in range(50):
        tried.clear()
        assert samples[SampleKey(0, epoch, 0)]["video_id"] == "a/3"
        assert len(set(tried)) == len(tried)


def test_the_ledger_knows_what_others_wrote_before_a_restart_and_beside_it(mix):
    one, other = (mix(FakeClips("a", 9, broken=range(8))) for _ in range(2))
    one[SampleKey(0, 0, 0)]
    before = one.broken_videos_file.read_bytes()
    other[SampleKey(0, 0, 0)]  # the same draws
    assert other.broken_videos_file.read_bytes() == before
    with other.broken_videos_file.open("ab") as file:
        file.write(b'{"source": 0, "epo')  # a kill in the middle
    for samples in (one, other, one):
        samples[SampleKey(0, 1, 0)]
    lines = one.broken_videos_file.read_bytes().splitlines()
    assert len(set(lines)) == len(lines) and b'{"source": 0, "epo' in lines
    assert one.num_broken == other.num_broken == len(lines)


def test_names_that_are_not_utf8_are_written_down(tmp_path):
    videos = BrokenVideos(tmp_path / "broken.jsonl")
    for _ in range(2):
        videos.add({"path": os.fsdecode(b"caf\xe9.mp4"), "error": "naïve"})
    (line,) = videos.path.read_text(encoding="utf-8").splitlines()
    assert os.fsencode(json.loads(line)["path"]) == b"caf\xe9.mp4" and "naïve" in line


def test_other_errors_are_not_taken_for_broken_videos(mix):
    with pytest.raises(MemoryError):
        mix(FakeClips("a", 5, broken=(0,), error=MemoryError))[SampleKey(0, 0, 0)]


def test_lines_of_many_workers_stay_whole(mix):
    samples = mix(FakeClips("ä" * 300, 64, broken=range(0, 64, 2)))
    keys = [[SampleKey(0, epoch, index)] for epoch in range(4) for index in range(0, 64, 2)]
    for batch in DataLoader(samples, batch_sampler=keys, num_workers=2, collate_fn=list):
        assert batch[0]["num_broken"] >= 1
    records = [json.loads(line) for line in samples.broken_videos_file.read_text(encoding="utf-8").splitlines()]
    assert len(records) == len({(record["epoch"], record["index"]) for record in records}) == len(keys)


@pytest.mark.parametrize("sources", [[], [FakeClips("a", 3), FakeClips("b", 0)]])
def test_sources_without_samples(mix, sources):
    with pytest.raises(ValueError, match=r"at least one source, none of them empty"):
        mix(*sources)


@pytest.mark.parametrize("mask_ratio", [-0.1, 1.0, 0.99])
def test_an_impossible_mask_ratio_is_an_error_before_the_first_sample(mix, mask_ratio):
    with pytest.raises(ValueError, match=r"mask_ratio must lie in"):
        mix(FakeClips("a", 3), mask_ratio=mask_ratio)


def test_length_is_that_of_all_sources(mix):
    assert len(mix(FakeClips("a", 3), FakeClips("b", 4))) == 7


def test_masks_are_drawn_evenly(mix):
    samples = mix(FakeClips("a", 200))
    masks = np.stack([samples[SampleKey(0, 0, index)]["bool_masked_pos"].numpy() for index in range(200)])
    assert masks.mean(axis=0).min() > 0.3 and masks.mean(axis=0).max() < 0.7
