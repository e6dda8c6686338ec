"""Kernels for GPUs, in Triton, each beside its reference in plain torch.

Nothing here imports triton before a module with a kernel is imported; it comes with the extra `triton`.
"""
