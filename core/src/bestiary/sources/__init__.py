"""The places that core itself can open: a folder, a single weight file, and the Hugging Face hub.

Each is registered through `bestiary_sources` like any third party's.  Importing one of these modules opens no socket,
and imports neither torch nor huggingface_hub.
"""
