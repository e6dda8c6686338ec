"""Who runs in the next step, with which memory.

Sequences that decode come first, each with its one token; what is left of the token budget goes to prompts, in chunks,
so that a long prompt never stops the others for longer than one step.  Where blocks run out, the last in order gives
its blocks back and starts again later: what it had computed is often still in the prefix tree.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence as Many
from dataclasses import dataclass

from bestiary.errors import RequestError
from bestiary.generation.engine.blocks import BlockPool, OutOfBlocks
from bestiary.generation.engine.prefixes import Prefix, PrefixTree
from bestiary.generation.engine.sequence import Plan, Sequence, Work


@dataclass(frozen=True)
class Group:
    """Layers that share a block table: those with the same window (None: they see everything), or the recurrent ones.

    Of a recurrent group a sequence has one block, with its state; what the prefix tree keeps of it is the state at the
    end of a block of tokens, and nothing of what came before.
    """

    blocks: int
    window: int | None = None
    recurrent: bool = False


@dataclass(frozen=True)
class Limits:
    """Bounds of one step."""

    tokens: int = 2048
    sequences: int = 64
    logits: int = 256
    """Positions of one sequence whose logits are made in one step; each is a row as long as the vocabulary."""


class Scheduler:
    """The queue, the running sequences and the blocks of each cache group; owned by one thread at a time."""

    def __init__(self, groups: Many[Group], block_size: int = 16, limits: Limits | None = None) -> None:
        self.groups, self.block_size, self.limits = tuple(groups), block_size, limits or Limits()
        self._recurrent = any(group.recurrent for group in groups)
        self.tree = PrefixTree(block_size, len(groups))
        self.pools = tuple(
            BlockPool(group.blocks, forget=lambda block, index=index: self.tree.forget(index, block))  # type: ignore[misc]
            for index, group in enumerate(groups)
        )
        self.waiting: list[tuple[tuple[int, int], Sequence]] = []
        self.running: list[Sequence] = []

    @property
    def capacity(self) -> int:
        """Tokens of the longest sequence that fits when it is alone."""
        return min(pool.count * self.block_size for pool in self._full_pools) if self._full_pools else 1 << 62

    @property
    def _full_pools(self) -> list[BlockPool]:
        pairs = zip(self.groups, self.pools, strict=True)
        return [pool for group, pool in pairs if group.window is None and not group.recurrent]

    # Requests

    def add(self, sequence: Sequence, longest: int | None = None) -> None:
        """Queue a sequence that may grow to `longest` tokens.  Raises RequestError where that can never fit."""
        needed = max(longest or 0, len(sequence.tokens))
        for group, pool in zip(self.groups, self.pools, strict=True):
            if group.recurrent:
                continue
            # A window needs its own span, the chunk in flight, and the block that it leaves at either end.
            span = needed if group.window is None else min(needed, group.window + self.limits.tokens + self.block_size)
            if self._blocks_for(span) > pool.count:
                raise RequestError(
                    f"The request needs {self._blocks_for(span)} blocks of cache; the pool has {pool.count}.",
                    fix="shorten the prompt or max_tokens, or give the cache more memory",
                )
        heapq.heappush(self.waiting, (sequence.order, sequence))

    def remove(self, sequence: Sequence) -> None:
        """A sequence finished or was aborted: its blocks go back at once.  Harmless when repeated."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        else:
            self.waiting = [entry for entry in self.waiting if entry[1] is not sequence]
            heapq.heapify(self.waiting)

    def fork(self, sequence: Sequence, computed: int) -> Sequence | None:
        """A twin of a running sequence that shares its blocks until one of the two writes into them.

        `computed` is how much of it the step that has just run left in the cache.  None where no more may run.
        """
        assert sequence in self.running
        if len(self.running) >= self.limits.sequences:
            return None
        twin = Sequence(
            list(sequence.tokens),
            sequence.prompt_length,
            sequence.priority,
            sequence.salt,
            sequence.adapter,
            sequence.media,
        )
        twin.computed = twin.reused = computed
        twin.shadow = min(sequence.shadow, computed)
        # What was reserved for drafts that were refused is its own.
        twin.tables = [table[: max(1, self._blocks_for(computed))] for table in sequence.tables]
        twin.prefix, twin.noted = sequence.prefix, sequence.noted
        for pool, table in zip(self.pools, twin.tables, strict=True):
            for block in table:
                if block is not None:
                    pool.share(block)
        self.running.append(twin)
        return twin

    def forget(self) -> None:
        """Nothing that was computed counts any more: what runs begins again, with the tokens that it has."""
        for sequence in list(self.running):
            self._preempt(sequence)
        for pool in self.pools:
            pool.forget_idle()

    # Steps

    def plan(self) -> Plan:
        """The next step; without work only where nothing waits."""
        work: list[Work] = []
        copies: list[tuple[int, int, int]] = []
        budget = self.limits.tokens
        # Decoding first, then prompts that were begun; each in order.
        for sequence in sorted(self.running, key=lambda member: (member.pending - member.drafts > 1, member.order)):
            if sequence not in self.running or budget == 0:
                continue  # preempted for one before it, or no room left in this step
            count = self._next(sequence, budget)
            if not count:
                continue
            while not self._reserve(sequence, count, copies):
                if sequence.drafts and count > sequence.pending - sequence.drafts:
                    count = sequence.pending - sequence.drafts  # guesses are not worth another's place
                    continue
                victim = max(self.running, key=lambda member: member.order)
                dropped = [entry for entry in work if entry.sequence is victim]
                for entry in dropped:
                    work.remove(entry)
                    budget += entry.count
                self._preempt(victim)
                if victim is sequence:
                    break
            else:
                work.append(Work(sequence, sequence.computed, count))
                budget -= count
        while self.waiting and budget > 0 and len(self.running) < self.limits.sequences:
            sequence = self.waiting[0][1]
            self._admit(sequence)
            count = self._next(sequence, budget)
            if not count:
                self._release(sequence)
                break
            # Room for a block more of each running sequence, or the newcomer would be sent back in the next step.
            if not self._reserve(sequence, count, copies) or any(
                pool.available < len(self.running) for pool in self.pools
            ):
                self._release(sequence)
                break  # in order: nobody behind may pass, or a large request would wait for ever
            heapq.heappop(self.waiting)
            self.running.append(sequence)
            work.append(Work(sequence, sequence.computed, count))
            budget -= count
        planned = {id(entry.sequence): entry.count for entry in work}
        for sequence in self.running:
            if sequence.drafts:
                sequence.keep_drafts(max(0, planned.get(id(sequence), 0) - (sequence.pending - sequence.drafts)))
        return Plan(tuple(work), tuple(copies))

    def commit(self, plan: Plan) -> None:
        """The step ran: its tokens are in the cache.

        Call when the tokens that it chose are appended and the drafts that it refused are gone.
        """
        for entry in plan.work:
            if entry.sequence in self.running:
                sequence = entry.sequence
                sequence.computed, sequence.sound = min(entry.end, sequence.sound), len(sequence.tokens)
                sequence.shadow = min(sequence.shadow, sequence.computed)
                self._note(sequence)
                self._leave_behind(sequence)

    def _next(self, sequence: Sequence, budget: int) -> int:
        """How many tokens a sequence computes in a step."""
        silent = max(0, sequence.wanted - sequence.computed)
        count = min(sequence.pending, budget, silent + self.limits.logits)
        if self._recurrent:
            # A state can be kept for others only where a step ends with a block.
            beyond = (sequence.computed + count) % self.block_size
            count -= beyond if beyond < count else 0
        run = sequence.media.run_across(sequence.computed + count) if sequence.media is not None else None
        if run is not None:  # it waits for a step that has room for all of it; where no step has, one makes room
            whole = budget == self.limits.tokens and run[0] <= sequence.computed
            count = (run[1] if whole else max(run[0], sequence.computed)) - sequence.computed
        return count

    # Memory

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def _admit(self, sequence: Sequence) -> None:
        """Give a waiting sequence the blocks of the longest prefix that the tree holds for every group."""
        sequence.tables = [[] for _ in self.groups]
        sequence.computed = sequence.shadow = sequence.noted = 0
        sequence.prefix = None
        # What logits are wanted of is always computed.
        path = self.tree.find(sequence.identities(0, sequence.wanted), sequence.salt)
        length = self._usable(path)
        for index, pool in enumerate(self.pools):
            first = self._first_seen(index, length * self.block_size)
            for place, node in enumerate(path[:length]):
                block = node.blocks[index] if place >= first else None
                if block is not None:
                    pool.share(block)
                if block is not None or not self.groups[index].recurrent:
                    sequence.tables[index].append(block)
        if length:
            sequence.prefix, sequence.noted = path[length - 1], length
            sequence.computed = sequence.shadow = length * self.block_size
        if sequence.preemptions == 0:
            sequence.reused = sequence.computed

    def _usable(self, path: Many[Prefix]) -> int:
        """The largest number of leading nodes whose blocks are all there, as far back as each group looks."""
        for length in range(len(path), 0, -1):
            starts = [self._first_seen(index, length * self.block_size) for index in range(len(self.groups))]
            if all(
                path[place].blocks[index] is not None
                for index, first in enumerate(starts)
                for place in range(first, length)
            ):
                return length
        return 0

    def _first_seen(self, group: int, position: int) -> int:
        """The first block that a token at `position` sees in a group; of states the one before its own block."""
        window = self.groups[group].window
        if self.groups[group].recurrent:
            return position // self.block_size - 1
        return 0 if window is None else max(0, position - window + 1) // self.block_size

    def _reserve(self, sequence: Sequence, count: int, copies: list[tuple[int, int, int]]) -> bool:
        """Blocks for `count` more tokens, shared ones copied before they are written; all of them or none."""
        swapped: list[tuple[int, int, int, int]] = []
        grown: list[tuple[int, int]] = []
        try:
            for index, (pool, table) in enumerate(zip(self.pools, sequence.tables, strict=True)):
                recurrent = self.groups[index].recurrent
                begin = 0 if recurrent else sequence.computed // self.block_size
                end = 1 if recurrent else self._blocks_for(sequence.computed + count)
                old = table[begin] if begin < len(table) else None
                # A state that the tree keeps is written to in every step; a full block of tokens never again.
                if old is not None and (pool.users(old) > 1 or (recurrent and self.tree.holds(index, old))):
                    swapped.append((index, begin, old, pool.take()))
                for _ in range(len(table), end):
                    grown.append((index, pool.take()))  # one by one: what was taken must be known when a take fails
        except OutOfBlocks:
            for index, block in [*grown, *((index, fresh) for index, _, _, fresh in swapped)]:
                self.pools[index].release(block)
            return False
        for index, begin, old, fresh in swapped:
            sequence.tables[index][begin] = fresh
            self.pools[index].release(old)
            copies.append((index, old, fresh))
        for index, block in grown:
            sequence.tables[index].append(block)
        return True

    def _release(self, sequence: Sequence) -> None:
        for pool, table in zip(self.pools, sequence.tables, strict=True):
            # The end first: idle blocks go in this order, and a prefix without its beginning is never found.
            for block in reversed(table):
                if block is not None:
                    pool.release(block)
        sequence.tables = []
        sequence.computed = sequence.noted = 0
        sequence.prefix = None

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        sequence.keep_drafts(0)
        sequence.preemptions += 1
        heapq.heappush(self.waiting, (sequence.order, sequence))

    def _note(self, sequence: Sequence) -> None:
        """Enter the blocks that became full into the tree."""
        size = self.block_size
        while (sequence.noted + 1) * size <= sequence.computed:
            place = sequence.noted
            # The state is that of the last token: of a block that ended before, there is none.
            current = (place + 1) * size == sequence.computed
            blocks = [
                (table[0] if current else None) if group.recurrent else table[place]
                for group, table in zip(self.groups, sequence.tables, strict=True)
            ]
            part = sequence.identities(place * size, (place + 1) * size)
            sequence.prefix = self.tree.add(sequence.prefix, part, sequence.salt, blocks)
            for index, block in enumerate(blocks):
                if block is not None and self.tree.holds(index, block):
                    self.pools[index].keep(block)
            sequence.noted += 1

    def _leave_behind(self, sequence: Sequence) -> None:
        """Give back the blocks that no further token of the sequence can see."""
        for index, (pool, table) in enumerate(zip(self.pools, sequence.tables, strict=True)):
            if self.groups[index].recurrent:
                continue
            # A drafting model may lag behind by one token.
            for place in range(self._first_seen(index, sequence.computed - 1) - 1, -1, -1):
                block = table[place]
                if block is None:
                    break
                pool.release(block)
                table[place] = None
