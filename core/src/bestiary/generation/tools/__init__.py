"""Tool calls and reasoning in the text that a model writes: one parser for each format, chosen by `choose`."""
