"""Keeping Python's small objects together, so that they fit into huge pages."""

import sys
from typing import Final

_BLOCK: Final = 512  # the largest that Python's own allocator serves; it takes arenas of 1 MiB
_BLOCKS_PER_KEEPER: Final = 512


def reserve_arenas(size: int) -> list[bytes]:
    """Have Python allocate arenas for `size` bytes now, side by side.

    Arenas are allocated one by one as modules are imported, and lie scattered between the modules' own mappings: a
    fork has to copy their page tables entry by entry. What is imported while the returned list exists fills these
    instead. Arenas that are still empty when the list goes are freed.
    """
    filler = bytearray(_BLOCK - sys.getsizeof(b""))
    blocks = [b""] * (size // _BLOCK)  # at its full length: a list that grows leaves gaps
    for index in range(len(blocks)):
        blocks[index] = bytes(filler)
    return blocks[::_BLOCKS_PER_KEEPER]
