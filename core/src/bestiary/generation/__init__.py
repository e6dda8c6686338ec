"""Text in, text out: tokenizer, chat template, caches, sampling and the loop that joins them."""
