"""How weights are held: for each format what a kernel reads out of the bytes, and the same in plain torch.

A decoder `decode(codes, scales, addends, rows, inside, first, GROUP, COLUMNS, SPAN)` gives the numbers
[len(rows), SPAN] in float32 of columns `first` to `first + SPAN`.  `codes`, `scales` and `addends` point to the parts
of a `Weight`; rows [BN] int64, and those which are not `inside` are zeros and are not read, as are columns from COLUMNS
on.  SPAN is a power of two that the format's blocks divide, and so is `first` a multiple of it.

The plain twin `numbers(codes, scales, addends)` gives all numbers [..., COLUMNS] in float32.
"""
