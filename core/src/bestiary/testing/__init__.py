"""The test kit for plugins.

    from bestiary.testing.conformance import ArchitectureTests

    class TestNewt(ArchitectureTests):
        plugin = bestiary_newt

checks what a plugin registers: its import is light, its records are valid, its weight map is exact in both directions,
its logits and greedy tokens equal transformers', prefill equals decode, and a batch equals each sequence alone.
Needs pytest and transformers: `pip install bestiary-core[testing]`.
"""
