"""Weight-file formats: the readers that the core brings, and the refusal of those that it never opens."""
