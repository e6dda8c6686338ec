"""Speech out of texts: what pipelines of all families share."""
