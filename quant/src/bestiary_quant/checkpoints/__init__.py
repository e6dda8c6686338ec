"""Reading checkpoints that are stored quantised in safetensors, each weight under its plain name."""
