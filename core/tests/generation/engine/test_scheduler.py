"""The scheduler under random arrivals, steps, forks and aborts, against sequences that run alone.

The memory is real, the model a toy: a token's key is the token itself with its position, written into the blocks; the
next token is a hash of every key that the sequence can see, read back through its block tables.  A recurrent group's
block holds a hash of all the tokens so far.  A wrong block, a lost copy or a stale prefix changes the hash.
"""

import functools
import hashlib
from collections.abc import Sequence as Many
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bestiary.errors import RequestError
from bestiary.generation.engine import prefixes
from bestiary.generation.engine.scheduler import Group, Limits, Scheduler
from bestiary.generation.engine.sequence import Plan, Sequence

VOCABULARY = 3
SIZE = 4


def following(seen: Many[Any]) -> int:
    """The toy model: the next token from the (position, token) pairs and the states that are seen."""
    return hashlib.sha256(repr(list(seen)).encode()).digest()[0] % VOCABULARY


def after(state: str, token: int) -> str:
    """The toy recurrent layer."""
    return hashlib.sha256(f"{state} {token}".encode()).hexdigest()[:8]


def alone(tokens: Many[int], count: int, groups: Many[Group]) -> list[int]:
    """`count` more tokens of a sequence that has all the memory it wants."""
    made = list(tokens)
    for _ in range(count):
        seen: list[Any] = []
        for group in groups:
            if group.recurrent:
                seen.append(functools.reduce(after, made, ""))
            else:
                pairs = list(enumerate(made))
                seen += pairs if group.window is None else pairs[-group.window :]
        made.append(following(seen))
    return made[len(tokens) :]


class Memory:
    """What the blocks hold."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.blocks: list[list[Any]] = [
            ["unwritten"] * group.blocks if group.recurrent else [[None] * SIZE for _ in range(group.blocks)]
            for group in scheduler.groups
        ]

    def run(self, plan: Plan) -> dict[int, list[int]]:
        """Write the keys of a step and return, by sequence, the tokens that follow where they are wanted."""
        for group, source, target in plan.copies:
            content = self.blocks[group][source]
            self.blocks[group][target] = content if isinstance(content, str) else list(content)
        made: dict[int, list[int]] = {}
        for work in plan.work:
            sequence = work.sequence
            decisive = len(sequence.tokens) - sequence.drafts - 1
            for position in range(work.start, work.end):
                for group, table in enumerate(sequence.tables):
                    self.write(group, table, position, sequence.tokens[position])
                if position >= decisive:
                    made.setdefault(id(sequence), []).append(following(self.seen(sequence, position + 1)))
        return made

    def write(self, group: int, table: list[int | None], position: int, token: int) -> None:
        recurrent = self.scheduler.groups[group].recurrent
        block = table[0 if recurrent else position // SIZE]
        assert block is not None, "a block that is written to was given back"
        users = self.scheduler.pools[group].users(block)
        assert users == 1, f"a block with {users} users is written to"
        if recurrent:
            assert not self.scheduler.tree.holds(group, block), "a state that is kept for others is written to"
            self.blocks[group][block] = after(self.blocks[group][block] if position else "", token)
        else:
            self.blocks[group][block][position % SIZE] = (position, token)

    def seen(self, sequence: Sequence, length: int) -> list[Any]:
        seen: list[Any] = []
        for index, (group, table) in enumerate(zip(self.scheduler.groups, sequence.tables, strict=True)):
            if group.recurrent:
                assert table[0] is not None
                seen.append(self.blocks[index][table[0]])
                continue
            for position in range(0 if group.window is None else max(0, length - group.window), length):
                block = table[position // SIZE]
                assert block is not None, "a block that is seen was given back"
                pair = self.blocks[index][block][position % SIZE]
                assert pair is not None
                seen.append(pair)
        return seen


def steps(scheduler: Scheduler, memory: Memory, wanted: dict[int, int], done: list[Sequence], forced: int = 0) -> Plan:
    """One step; drafts count as far as they are right, and sequences that have their `wanted` number of tokens go.

    `forced` tokens follow without a step, as a grammar may have it.
    """
    plan = scheduler.plan()
    made = memory.run(plan)
    for work in plan.work:
        sequence = work.sequence
        drafts = sequence.tokens[len(sequence.tokens) - sequence.drafts :] if sequence.drafts else []
        sequence.keep_drafts(0)
        sequence.sound = len(sequence.tokens)
        for place, token in enumerate(made.get(id(sequence), [])):
            sequence.tokens.append(token)
            if place >= len(drafts) or token != drafts[place]:
                break
            sequence.sound += 1
        if id(sequence) in made:
            left = wanted[id(sequence)] - (len(sequence.tokens) - sequence.prompt_length)
            sequence.tokens += alone(sequence.tokens, max(0, min(forced, left)), scheduler.groups)
            sequence.wanted = len(sequence.tokens) - 1
    scheduler.commit(plan)
    for work in plan.work:
        sequence = work.sequence
        if len(sequence.tokens) - sequence.prompt_length >= wanted[id(sequence)]:
            scheduler.remove(sequence)
            done.append(sequence)
    return plan


class Machine(RuleBasedStateMachine):
    """Any order of arrivals, steps, forks and aborts."""

    groups: tuple[Group, ...] = (Group(12),)

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(self.groups, SIZE, Limits(tokens=7, sequences=4))
        self.memory = Memory(self.scheduler)
        self.wanted: dict[int, int] = {}
        self.alive: list[Sequence] = []
        self.done: list[Sequence] = []

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=18),
        count=st.integers(1, 12),
        priority=st.integers(0, 2),
        salt=st.sampled_from([b"", b"a"]),
    )
    def add(self, prompt: list[int], count: int, priority: int, salt: bytes) -> None:
        sequence = Sequence(list(prompt), len(prompt), priority, salt)
        self.scheduler.add(sequence, len(prompt) + count)
        self.wanted[id(sequence)] = count
        self.alive.append(sequence)

    @precondition(lambda self: self.alive)
    @rule(forced=st.integers(0, 2))
    def step(self, forced: int) -> None:
        before = len(self.done)
        plan = steps(self.scheduler, self.memory, self.wanted, self.done, forced)
        assert plan.work, "sequences wait and nothing runs"
        assert sum(work.count for work in plan.work) <= self.scheduler.limits.tokens
        for sequence in self.done[before:]:
            self.alive.remove(sequence)
            self.check(sequence)

    @precondition(lambda self: self.scheduler.running)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        """Only while decoding, as for several answers to one prompt."""
        ready = [sequence for sequence in self.scheduler.running if sequence.pending == 1]
        if ready and len(self.scheduler.running) < self.scheduler.limits.sequences:
            sequence = data.draw(st.sampled_from(ready))
            twin = self.scheduler.fork(sequence, sequence.computed)
            assert twin is not None
            twin.wanted = sequence.wanted
            self.wanted[id(twin)] = self.wanted[id(sequence)]
            self.alive.append(twin)

    @precondition(lambda self: self.scheduler.running and not any(group.recurrent for group in self.groups))
    @rule(data=st.data(), guesses=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=3))
    def guess(self, data: st.DataObject, guesses: list[int]) -> None:
        """Only while decoding, as drafts come; right ones and wrong ones."""
        ready = [sequence for sequence in self.scheduler.running if sequence.pending == 1]
        if ready:
            sequence = data.draw(st.sampled_from(ready))
            made = len(sequence.tokens) - sequence.prompt_length
            right = alone(sequence.tokens, len(guesses), self.groups)
            mixed = [good if data.draw(st.booleans()) else bad for good, bad in zip(right, guesses, strict=True)]
            sequence.guess(mixed[: self.wanted[id(sequence)] - made - 1])

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.alive))
        self.scheduler.remove(sequence)
        self.scheduler.remove(sequence)
        self.alive.remove(sequence)

    @invariant()
    def blocks_add_up(self) -> None:
        for index, pool in enumerate(self.scheduler.pools):
            held = [block for member in self.scheduler.running for block in member.tables[index] if block is not None]
            assert pool.used == len(set(held))
            for block in set(held):
                assert pool.users(block) == held.count(block)

    def check(self, sequence: Sequence) -> None:
        prompt = sequence.tokens[: sequence.prompt_length]
        expected = alone(prompt, len(sequence.tokens) - sequence.prompt_length, self.groups)
        assert sequence.tokens[sequence.prompt_length :] == expected

    def teardown(self) -> None:
        """All that is alive runs to its end, and every block comes back."""
        for _ in range(5000):
            if not self.alive:
                break
            self.step(0)
        assert not self.alive
        assert [pool.available for pool in self.scheduler.pools] == [group.blocks for group in self.groups]


class Windowed(Machine):
    groups = (Group(14), Group(14, 5))


class OnlyWindows(Machine):
    groups = (Group(14, 3), Group(14, 9))


class Tight(Machine):
    groups = (Group(8),)


class Hybrid(Machine):
    groups = (Group(14), Group(8, recurrent=True))


class Recurrent(Machine):
    groups = (Group(9, recurrent=True),)


for machine in (Machine, Windowed, OnlyWindows, Tight, Hybrid, Recurrent):
    machine.TestCase.settings = settings(
        max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
TestMachine = Machine.TestCase
TestWindowed = Windowed.TestCase
TestOnlyWindows = OnlyWindows.TestCase
TestTight = Tight.TestCase
TestHybrid = Hybrid.TestCase
TestRecurrent = Recurrent.TestCase


def ran(scheduler: Scheduler, *sequences: Sequence, count: int = 4, memory: Memory | None = None) -> list[Plan]:
    """Run sequences to their end; the plans of all steps."""
    memory = memory or Memory(scheduler)
    done: list[Sequence] = []
    wanted = {id(sequence): count for sequence in sequences}
    for sequence in sequences:
        scheduler.add(sequence, len(sequence.tokens) + count)
    plans = []
    while len(done) < len(sequences):
        plans.append(steps(scheduler, memory, wanted, done))
    return plans


def test_a_prefix_is_computed_once() -> None:
    scheduler = Scheduler([Group(32)], SIZE)
    memory = Memory(scheduler)
    prompt = [0, 1, 0, 0, 1, 1, 0, 1, 0, 1]
    ran(scheduler, Sequence(list(prompt), len(prompt)), memory=memory)
    again = Sequence(list(prompt), len(prompt))
    plans = ran(scheduler, again, memory=memory)
    assert again.reused == 8
    assert plans[0].work[0].start == 8 and plans[0].work[0].count == 2


def test_other_salts_share_nothing() -> None:
    scheduler = Scheduler([Group(32)], SIZE)
    prompt = [0, 1] * 6
    ran(scheduler, Sequence(list(prompt), len(prompt), salt=b"one"))
    other = Sequence(list(prompt), len(prompt), salt=b"two")
    ran(scheduler, other)
    assert other.reused == 0


def test_forged_equal_hashes_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hash of one bit nearly all prefixes collide; the tokens decide."""
    strong = prefixes.extended
    monkeypatch.setattr(prefixes, "extended", lambda digest, tokens: bytes([strong(digest, tokens)[0] & 1]))
    scheduler = Scheduler([Group(64)], SIZE)
    memory = Memory(scheduler)
    for seed in range(24):
        prompt = [int(bit) for bit in f"{seed * 37 % 4096:012b}"]
        sequence = Sequence(list(prompt), len(prompt))
        ran(scheduler, sequence, memory=memory)
        assert sequence.tokens[12:] == alone(prompt, 4, (Group(0),))


def test_decoding_is_not_held_up_by_a_long_prompt() -> None:
    scheduler = Scheduler([Group(64)], SIZE, Limits(tokens=8, sequences=4))
    short, long = Sequence([1], 1), Sequence([0] * 60, 60)
    plans = ran(scheduler, short, long, count=6)
    decoding = [plan for plan in plans if any(work.sequence is short for work in plan.work)]
    assert len(decoding) == 6 and decoding == plans[:6], "the short one had a token in each of the first steps"
    assert all(sum(work.count for work in plan.work) <= 8 for plan in plans)


def test_lower_priority_numbers_run_first() -> None:
    scheduler = Scheduler([Group(64)], SIZE, Limits(tokens=4, sequences=1))
    late, urgent = Sequence([1] * 4, 4, priority=5), Sequence([0] * 4, 4, priority=0)
    plans = ran(scheduler, late, urgent, count=2)
    assert plans[0].work[0].sequence is urgent


def test_what_can_never_fit_is_refused_at_once() -> None:
    scheduler = Scheduler([Group(4)], SIZE)
    with pytest.raises(RequestError, match="5 blocks"):
        scheduler.add(Sequence([0] * 10, 10), 17)
    scheduler.add(Sequence([0] * 10, 10), 16)


def test_a_window_gives_its_blocks_back_while_it_slides() -> None:
    scheduler = Scheduler([Group(6, window=6)], SIZE, Limits(tokens=8))
    sequence = Sequence([0, 1, 1], 3)
    ran(scheduler, sequence, count=100)
    assert sequence.tokens[3:] == alone([0, 1, 1], 100, (Group(0, 6),))


def test_a_preempted_sequence_finishes_with_the_same_tokens() -> None:
    scheduler = Scheduler([Group(9)], SIZE, Limits(tokens=16, sequences=4))
    sequences = [Sequence([bit, 1, 0, bit], 4) for bit in (0, 1)] + [Sequence([1, 1, 1], 3)]
    ran(scheduler, *sequences, count=20)
    assert sum(sequence.preemptions for sequence in sequences) > 0
    for sequence in sequences:
        prompt = sequence.tokens[: sequence.prompt_length]
        assert sequence.tokens[sequence.prompt_length :] == alone(prompt, 20, (Group(0),))


def test_under_pressure_the_beginning_of_a_prefix_is_kept_longest() -> None:
    """The first blocks are what other prompts can share; without them the rest of the chain is of no use."""
    scheduler = Scheduler([Group(8)], SIZE)
    memory = Memory(scheduler)
    prompt = [0, 1, 1, 0] * 5
    ran(scheduler, Sequence(list(prompt), len(prompt)), count=1, memory=memory)
    other = [2] * 16
    ran(scheduler, Sequence(list(other), len(other)), count=1, memory=memory)
    again = Sequence(list(prompt), len(prompt))
    ran(scheduler, again, count=1, memory=memory)
    assert again.reused >= 8, "the chain was cut at its root"
