"""The vision tower of CLIP for Bestiary's models that see."""

from bestiary_clip.model import ClipVision, build

__all__ = ["ClipVision", "build"]
