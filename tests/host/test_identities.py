"""Id ranges: of its own for each sandbox, never shared, never the host's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cove.host.identities import FIRST, SLOTS, TEMPLATE_OWNER, SlotAllocator, id_map, layer_map, own_root
from cove.models.errors import CoveError

slots = st.integers(1, SLOTS)


def outer_range(slot: int) -> range:
    first, count = (int(field) for field in id_map(slot).splitlines()[1].split()[1:])
    return range(first, first + count)


@given(slots, slots)
def test_ranges_of_two_slots_do_not_overlap(one: int, other: int) -> None:
    if one != other:
        assert set(outer_range(one)[:: len(outer_range(one)) - 1]).isdisjoint(outer_range(other))


@given(slots)
def test_ranges_are_covers_own_and_fit_into_31_bits(slot: int) -> None:
    assert outer_range(slot).start > FIRST
    assert outer_range(slot).stop < 2**31


@given(slots)
def test_a_root_of_its_own_never_has_the_owner_of_layers(slot: int) -> None:
    inside, first, count = (int(field) for field in id_map(slot, own_root=True).split())
    assert (inside, first, first + count) == (0, own_root(slot), outer_range(slot).stop)
    assert first > TEMPLATE_OWNER
    assert layer_map(slot).split() == [str(TEMPLATE_OWNER), str(own_root(slot)), "1"]


@pytest.mark.parametrize("slot", [0, -1, SLOTS + 1])
def test_other_slots_are_refused(slot: int) -> None:
    with pytest.raises(ValueError, match="slot"):
        id_map(slot)


def test_a_slot_is_given_once_until_released() -> None:
    allocator = SlotAllocator()
    allocator.occupy(2)
    taken = [allocator.take() for _ in range(SLOTS - 1)]
    assert len(set(taken)) == SLOTS - 1
    assert 2 not in taken
    with pytest.raises(CoveError) as caught:
        allocator.take()
    assert caught.value.code == "CAPACITY_EXHAUSTED"
    allocator.release(77)
    assert allocator.take() == 77
