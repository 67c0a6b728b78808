import numpy as np

from urzoo.models import PixelSequenceImageProcessor
from urzoo.training.batches import EpochOrder, LengthOrder, PairedData, SequenceData
from urzoo.training.kinds.images import PixelData


def images(rows=50):
    return np.random.default_rng(0).integers(1, 256, size=(rows, 6, 6), dtype=np.uint8)


def test_an_epoch_has_each_row_at_most_once_and_whole_batches():
    order = EpochOrder(50, batch_size=8, seed=0)
    rows = [row for _, row in order]
    assert len(order) == len(rows) == len(set(rows)) == 48


def test_the_order_is_a_function_of_seed_and_epoch():
    order, other = EpochOrder(50, batch_size=8, seed=0), EpochOrder(50, batch_size=8, seed=0)
    first = list(order)
    order.epoch = other.epoch = 1
    assert list(order) == list(other)
    assert list(order) != first
    assert list(order) != list(EpochOrder(50, batch_size=8, seed=1))


def test_a_batch_is_what_the_processor_makes_of_each_image():
    processor = PixelSequenceImageProcessor(size={"height": 6, "width": 6})
    data = PixelData(images(), np.arange(50), processor)
    batch = data.__getitems__([(0, 4), (0, 9)])
    assert batch["pixel_values"].shape == (2, 36, 1)
    assert batch["labels"].tolist() == [4, 9]
    for position, row in enumerate((4, 9)):
        alone = processor(images()[row], return_tensors="pt")["pixel_values"][0]
        assert np.array_equal(batch["pixel_values"][position], alone)


def test_batches_of_similar_length_hold_each_row_at_most_once():
    lengths = np.random.default_rng(0).integers(1, 1000, size=103)
    order = LengthOrder(lengths, batch_size=8, pool_batches=4, seed=0)
    rows = np.array([row for _, row in order])
    assert len(order) == len(rows) == len(set(rows.tolist())) == 96

    def spread(rows):
        batches = lengths[rows].reshape(-1, 8)
        return (batches.max(1) - batches.min(1)).mean()

    by_chance = np.array([row for _, row in EpochOrder(103, batch_size=8, seed=0)])
    assert spread(rows) < spread(by_chance) / 2
    longest = lengths[rows].reshape(-1, 8).max(1)
    assert not (np.diff(longest) > 0).all()


def test_batches_of_similar_length_are_a_function_of_seed_and_epoch():
    lengths = np.arange(40)
    order, other = (LengthOrder(lengths, batch_size=4, pool_batches=5, seed=1) for _ in range(2))
    first = list(order)
    assert first == list(other)
    order.epoch = 1
    assert list(order) != first


def test_a_pool_of_one_batch_leaves_the_batches_to_chance():
    plain = EpochOrder(40, batch_size=4, seed=1)
    assert list(LengthOrder(np.arange(40), batch_size=4, pool_batches=1, seed=1)) == list(plain)


def test_a_text_goes_with_one_of_its_length_and_another_in_the_next_epoch():
    def texts(rows, seed):
        lengths = np.random.default_rng(seed).integers(1, 100, rows)
        return SequenceData("input_ids", [np.full(n, n, np.int32) for n in lengths], np.zeros(rows, np.int64))

    data = PairedData(texts(200, 0), texts(500, 1), seed=0)
    rows = np.arange(200)
    partners = [data.partners(rows, epoch) for epoch in range(4)]
    # Of 500 the row is the one at some share of the way; the lengths at that share are nearly the same in both.
    apart = [abs(data.labelled.lengths() - data.others.lengths()[chosen]).mean() for chosen in partners]
    assert max(apart) < 5
    assert all(len(set(chosen.tolist())) > 170 for chosen in partners), "hardly one twice an epoch"
    assert len(set(np.concatenate(partners).tolist())) > 350
    # Whoever reads the rows of a batch, alone or in parts, gets the same.
    assert np.array_equal(data.partners(rows[50:60], 3), partners[3][50:60])
    batch = data.__getitems__([(3, 7), (3, 9)])
    assert sorted(batch) == sorted(
        ["input_ids", "attention_mask", "labels", *map("unlabelled_{}".format, ("input_ids", "attention_mask"))]
    )
    assert batch["unlabelled_attention_mask"].sum(1).tolist() == data.others.lengths()[partners[3][[7, 9]]].tolist()
