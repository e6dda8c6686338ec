"""The weight files that llama.cpp read before GGUF: "ggml", "ggmf" and "ggjt"."""
