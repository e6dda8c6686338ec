"""Writing models in fewer bits: GGUF files, and safetensors that other programs read."""
