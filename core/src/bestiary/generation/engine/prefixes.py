"""Which prefixes are in the cache: a tree of full blocks of tokens.

A node is found by a sha256 chain over everything that its content depends on: a salt (tenant, adapter) and every token
up to its end, where the rows of a picture are numbers made of its hash (`Sequence.identities`).  A hash alone is not
believed: a node is taken only if its own tokens equal those asked for and its parent is the node found before it, so
equal hashes of different prefixes (short or forged ones) share nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(eq=False)
class Prefix:
    """One block of tokens after its parent's, and where each cache group holds it (None: given up)."""

    parent: Prefix | None
    tokens: tuple[int, ...]
    digest: bytes
    blocks: list[int | None] = field(default_factory=list)
    children: int = 0


def salted(salt: bytes) -> bytes:
    """The root of a chain: prefixes under different salts never meet."""
    return hashlib.sha256(b"bestiary" + salt).digest()


def extended(digest: bytes, tokens: Sequence[int]) -> bytes:
    """The chain one block further."""
    parts = (token.to_bytes(8 if token < 1 << 63 else 48, "little") for token in tokens)
    return hashlib.sha256(digest + b"".join(parts)).digest()


class PrefixTree:
    """The prefixes that are in the cache, of `groups` cache groups that share one block size."""

    def __init__(self, block_size: int, groups: int) -> None:
        self.block_size, self.groups = block_size, groups
        self._nodes: dict[bytes, Prefix] = {}
        self._holders: list[dict[int, Prefix]] = [{} for _ in range(groups)]

    def __len__(self) -> int:
        return len(self._nodes)

    def find(self, tokens: Sequence[int], salt: bytes) -> list[Prefix]:
        """The nodes that a sequence begins with, from the first; their blocks may be given up in part."""
        found: list[Prefix] = []
        digest, parent = salted(salt), None
        for start in range(0, len(tokens) - self.block_size + 1, self.block_size):
            part = tuple(tokens[start : start + self.block_size])
            digest = extended(digest, part)
            node = self._nodes.get(digest)
            if node is None or node.parent is not parent or node.tokens != part:
                break
            found.append(node)
            parent = node
        return found

    def add(self, parent: Prefix | None, tokens: Sequence[int], salt: bytes, blocks: Sequence[int | None]) -> Prefix:
        """Note a full block, or fill in what an existing node of the same prefix lacks.  Returns the node.

        Blocks that the node holds already stay; the caller's own copies are then simply not kept.
        """
        part = tuple(tokens)
        digest = extended(parent.digest if parent else salted(salt), part)
        node = self._nodes.get(digest)
        if node is not None and (node.parent is not parent or node.tokens != part):
            # Another prefix has this hash: the newcomer stays out of the tree, and is never found.
            return Prefix(parent, part, digest, [None] * self.groups)
        if node is None:
            node = self._nodes[digest] = Prefix(parent, part, digest, [None] * self.groups)
            if parent is not None:
                parent.children += 1
        for group, block in enumerate(blocks):
            if block is not None and node.blocks[group] is None:
                node.blocks[group] = block
                self._holders[group][block] = node
        return node

    def holds(self, group: int, block: int) -> bool:
        """Whether a node needs this block's content."""
        return block in self._holders[group]

    def forget(self, group: int, block: int) -> None:
        """A block's content is given up; nodes that lead to nothing go."""
        node: Prefix | None = self._holders[group].pop(block)
        assert node is not None
        node.blocks[group] = None
        while node is not None and node.children == 0 and all(held is None for held in node.blocks):
            if self._nodes.get(node.digest) is node:
                del self._nodes[node.digest]
            if node.parent is not None:
                node.parent.children -= 1
            node = node.parent
