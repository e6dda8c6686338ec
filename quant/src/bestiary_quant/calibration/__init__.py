"""What a model's inputs say about its weights: importance matrices, and schemes that are calibrated on a text."""
