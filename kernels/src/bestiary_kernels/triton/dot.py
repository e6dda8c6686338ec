# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""The product of two tiles, of which Triton's interpreter knows less than its compiler."""

import triton
import triton.language as tl

# The interpreter holds bfloat16 as 16-bit words and multiplies those.  As float32 the same numbers have the same
# products, so that it can be told what the compiler does.
_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def dot(left, right, sums):
    """sums [M, N] + left [M, K] right [K, N], of one type, in float32.

    float32 is multiplied as such, not rounded to tf32: who wants speed gives bfloat16.
    """
    if _INTERPRETED:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, sums, input_precision="ieee")
