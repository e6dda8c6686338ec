"""Many requests at once: who gets which memory, who runs in the next step, and the loop that runs them.

Read in this order: blocks, prefixes, sequence, scheduler (these four import no torch), then the runner and the engine.
"""
