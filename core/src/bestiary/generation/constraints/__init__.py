"""Constrained decoding: what a text may be, and which tokens may come next.

    grammar     what users ask for, as a Grammar
    compiler    from a Grammar and a tokenizer to the ConstraintState of one sequence
    state       the mask of each step
    structured  the finished text as a typed object

The masks come from llguidance, which is imported when the first grammar is compiled.
"""
