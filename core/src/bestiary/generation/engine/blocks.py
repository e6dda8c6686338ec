"""A pool of equal blocks of cache memory, by number.

A block is free, used by one or more sequences, or idle: used by none, but its content is kept for a prefix that may
come again.  Idle blocks are given away when no free one is left, the longest idle first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable


class OutOfBlocks(Exception):
    """Every block is in use; the scheduler answers by preempting a sequence."""


class BlockPool:
    """`count` blocks.  `forget` is called with an idle block's number when its content is given up."""

    def __init__(self, count: int, forget: Callable[[int], None] = lambda block: None) -> None:
        self.count = count
        self._forget = forget
        self._free = list(range(count - 1, -1, -1))
        self._users = [0] * count
        self._kept = [False] * count
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Blocks that `take` can give: free and idle ones."""
        return len(self._free) + len(self._idle)

    @property
    def used(self) -> int:
        return self.count - self.available

    def users(self, block: int) -> int:
        """How many sequences use a block; before a write into a shared one it must be copied."""
        return self._users[block]

    def take(self) -> int:
        """A block for one user.  Raises OutOfBlocks."""
        if self._free:
            block = self._free.pop()
        elif self._idle:
            block, _ = self._idle.popitem(last=False)
            self._kept[block] = False
            self._forget(block)
        else:
            raise OutOfBlocks
        self._users[block] = 1
        return block

    def forget_idle(self) -> None:
        """Give up the content of every idle block."""
        while self._idle:
            block, _ = self._idle.popitem()  # the end of a prefix lies idle before its beginning
            self._kept[block] = False
            self._forget(block)
            self._free.append(block)

    def share(self, block: int) -> None:
        """One more user, of a block in use or of an idle one."""
        if self._users[block] == 0:
            del self._idle[block]
        self._users[block] += 1

    def keep(self, block: int) -> None:
        """Keep the content when the last user leaves; for a block in use."""
        self._kept[block] = True

    def release(self, block: int) -> None:
        """One user less."""
        if self._users[block] <= 0:
            raise AssertionError(f"block {block} was released more often than taken")
        self._users[block] -= 1
        if self._users[block] == 0:
            if self._kept[block]:
                self._idle[block] = None
            else:
                self._free.append(block)
