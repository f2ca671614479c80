import numpy as np
import pytest

from data.order import epoch_key, hash_indices, mix, permutation, training_order, validation_order


def test_hash_is_splitmix64_with_its_published_first_outputs():
    # Vigna's splitmix64.c from seed 1234567: state advances by the golden ratio, then is mixed.
    golden, state, outputs = 0x9E3779B97F4A7C15, 1234567, []
    for _ in range(3):
        state += golden
        outputs.append(mix(state))
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_hash_of_arrays_is_the_hash_of_their_elements():
    key = epoch_key(3, 5, 1)
    expected = [mix((i ^ key) + 0x9E3779B97F4A7C15) for i in range(50)]
    assert hash_indices(key, 50).tolist() == expected


def test_order_of_an_epoch_never_changes_between_versions():
    assert permutation(seed=0, epoch=0, count=8).tolist() == [2, 1, 5, 6, 3, 4, 0, 7]


def test_permutation_is_one_and_depends_on_seed_and_epoch():
    orders = [permutation(seed, epoch, 100).tolist() for seed in (0, 1, -1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({tuple(order) for order in orders}) == len(orders)


def test_numpy_integers_are_as_good_a_seed():
    assert epoch_key(np.int64(-3), np.int32(4), 1) == epoch_key(-3, 4, 1)


def test_first_position_is_uniform_over_epochs():
    firsts = [permutation(7, epoch, 5)[0] for epoch in range(5000)]
    counts = np.bincount(firsts, minlength=5)
    assert (abs(counts - 1000) < 5 * np.sqrt(1000 * 0.8)).all()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_global_batches_are_the_same_for_any_number_of_workers(world_size):
    count, batch_size = 41, 12
    ranks = [
        training_order(4, seed=9, count=count, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    share = batch_size // world_size
    batches = [np.concatenate([order[k * share : (k + 1) * share] for order in ranks]) for k in range(3)]
    assert np.concatenate(batches).tolist() == permutation(9, 4, count)[:36].tolist()


@pytest.mark.parametrize("world_size", [1, 2, 3, 12])
def test_validation_meets_each_image_once_over_all_ranks(world_size):
    parts = [validation_order(0, count=11, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(11))
