"""Quantization: from plain numbers to packed weights, in plain torch."""
