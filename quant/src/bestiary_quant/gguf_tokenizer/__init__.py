"""The tokenizer and the chat templates of a GGUF file, rebuilt from its metadata alone."""
