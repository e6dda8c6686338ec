"""Block types: how GGUF stores numbers in fewer bits, and what the bytes mean."""
