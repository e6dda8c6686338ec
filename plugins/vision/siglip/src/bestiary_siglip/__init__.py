"""The vision tower of SigLIP for Bestiary's models that see."""

from bestiary_siglip.model import SiglipVision, build

__all__ = ["SiglipVision", "build"]
