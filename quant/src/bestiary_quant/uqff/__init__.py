"""UQFF, the quantised format of mistral.rs, version 1.2 (docs/src/content/docs/reference/uqff-format.md there)."""
