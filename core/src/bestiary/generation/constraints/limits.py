"""How large a grammar may be.

A grammar comes from a request.  llguidance bounds its own time and memory with counters of work, but not everywhere:
long chains of references overflow its stack, which ends the process, and the states of a `multipleOf` are not counted.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds that are checked before llguidance sees a grammar, and two that it checks itself."""

    characters: int = 1 << 20
    """Of a whole grammar, and of a schema given as text."""
    depth: int = 100
    """Nesting of a JSON schema; the parser of llguidance ends at 128."""
    values: int = 50_000
    """Members of a JSON schema: every object, list, number and text in it."""
    properties: int = 1_000
    """Names in one object; the time to compile grows with their square."""
    levels: int = 6_000
    """Nesting of a schema along all its references; each level takes stack."""
    remainders: int = 100_000
    """Sum of the divisors of all `multipleOf`: the automaton has a state for each remainder."""
    definitions: int = 2_000
    """Rules and terminals of a Lark grammar; each level of a chain of them takes stack."""
    choices: int = 10_000
    tools: int = 128
    lexer_states: int = 50_000
    """States of the automata that llguidance may build for one grammar; one or two kilobytes each."""
    stack: int = 256 << 20
    """Bytes of address space for the thread that compiles."""


LIMITS = Limits()
