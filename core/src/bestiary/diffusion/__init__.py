"""Pictures out of noise: what image pipelines of all families share."""
