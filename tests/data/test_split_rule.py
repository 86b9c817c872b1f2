"""The rule that makes missing splits: stratified, seeded, stable."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data import split


def assigned(labels, origins, seed=0, val=0.1, test=0.2):
    return split.assign(np.array(labels), origins, seed=seed, val_fraction=val, test_fraction=test)


def test_shares_round_and_never_take_all():
    assert [split.share(n, 0.1) for n in (0, 1, 2, 3, 4, 15, 100)] == [0, 0, 0, 1, 1, 2, 10]
    assert [split.share(n, 0.5) for n in (1, 2, 3)] == [0, 1, 2]
    assert split.share(100, 0) == 0


def test_every_class_is_split_alike():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    codes = assigned(labels, [f"{i}.png" for i in range(160)])
    for label, (train, val, test) in enumerate([(72, 8, 20), (36, 4, 10), (7, 1, 2)]):
        assert np.bincount(codes[labels == label], minlength=3).tolist() == [train, val, test]


def test_seed_changes_the_choice_and_repeats_it():
    origins = [f"{i}.png" for i in range(200)]
    first = assigned([0] * 200, origins)
    np.testing.assert_array_equal(first, assigned([0] * 200, origins))
    assert (first != assigned([0] * 200, origins, seed=1)).any()


def test_choice_does_not_depend_on_the_order_of_the_files():
    origins = [f"{i}.png" for i in range(200)]
    forward = dict(zip(origins, assigned([0] * 200, origins), strict=True))
    backward = dict(zip(origins[::-1], assigned([0] * 200, origins[::-1]), strict=True))
    assert forward == backward


def test_a_new_picture_moves_few_others():
    origins = [f"{i}.png" for i in range(1000)]
    before = assigned([0] * 1000, origins)
    after = assigned([0] * 1010, [*origins, *(f"new{i}.png" for i in range(10))])[:1000]
    assert (before != after).sum() <= 10


@given(
    labels=st.lists(st.integers(0, 3), max_size=60),
    seed=st.integers(0, 2**32),
    val=st.floats(0, 0.5),
    test=st.floats(0, 0.5),
)
def test_every_class_keeps_something_to_train_on(labels, seed, val, test):
    codes = assigned(np.array(labels, np.int64), [f"x/{i}" for i in range(len(labels))], seed, val, test)
    for label in set(labels):
        assert (codes[np.array(labels) == label] == 0).any()


def test_names_that_are_not_utf8_are_split_too():
    assert len(assigned([0] * 5, [f"\udcff{i}.png" for i in range(5)])) == 5


def test_rule_is_recorded_without_the_splits_the_source_has():
    assert split.rule(3, 0.1, 0) == {"rule": "stratified-hash", "seed": 3, "val_fraction": 0.1}


def test_an_automatic_validation_share_is_a_thousand_images_within_bounds() -> None:
    assert split.val_share("auto", 50_000) == 0.02
    assert split.val_share("auto", 20_000) == 0.05
    assert split.val_share("auto", 500) == 0.1
    assert split.val_share(0.3, 500) == 0.3
