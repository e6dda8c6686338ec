"""How large media may be, how many, and from where they may come.

The defaults suit a program that opens its own media.  What opens media for others, such as a server, turns off `local`
and decides on `remote`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from bestiary.asking import check_whole
from bestiary.errors import OptionError, shown

_HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[0-9a-f]*:[0-9a-f:.]+", re.IGNORECASE)


@dataclass(frozen=True)
class MediaLimits:
    """What `open_media` accepts.  Raises OptionError for values out of bounds."""

    bytes: int = 64 << 20
    """Of one file, upload, data URL or download."""
    pixels: int = 33_000_000
    """Of one picture, or of one frame.  A file's header tells them, so that nothing larger is ever decoded."""
    edge: int = 32_768
    """Pixels of the longer side."""
    frames: int = 768
    """Of one video."""
    video_pixels: int = 1 << 28
    """Of all frames of a video together, which lie in memory at once with three bytes each."""
    max_edge: int | None = None
    """Pixels to which the longer side of a larger picture is scaled down (Lanczos), before anything else sees it."""
    count: int = 64
    """Media in one request."""
    remote: str | tuple[str, ...] = "public"
    """What of http(s) may be fetched: "public", any host whose addresses are all public; a tuple of names, these hosts
    alone ("*.example.com" are all below example.com); "off", nothing."""
    local: bool = True
    """Whether paths and file:// URLs are opened."""
    private: bool = False
    """Whether hosts may also have addresses that are not public: this machine, or its network.  The addresses at which
    clouds hand out credentials (link-local) stay out of reach."""
    seconds: float = 30.0
    """For everything that one medium fetches, from its first name to its last byte."""
    redirects: int = 3
    """That are followed from one URL."""

    def __post_init__(self) -> None:
        check_whole("bytes", self.bytes, 1, 1 << 40)
        check_whole("pixels", self.pixels, 1, 1 << 40)
        check_whole("edge", self.edge, 1, 1 << 31)
        check_whole("frames", self.frames, 1, 1 << 20)
        check_whole("video_pixels", self.video_pixels, 1, 1 << 44)
        check_whole("max_edge", self.max_edge, 1, 1 << 31, optional=True)
        check_whole("count", self.count, 0, 1 << 20)
        check_whole("redirects", self.redirects, 0, 20)
        for name in ("local", "private"):
            if not isinstance(getattr(self, name), bool):
                raise OptionError(f"{name} is {shown(getattr(self, name))}; True or False is due.")
        # NaN is in no interval.
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, int | float) or not 0 < self.seconds <= 3600:
            raise OptionError(f"seconds is {shown(self.seconds)}; a number above 0, up to 3600, is due.")
        _check_remote(self.remote)


def _check_remote(remote: Any) -> None:
    if isinstance(remote, str) and remote in ("public", "off"):
        return
    # A lone name would read as a tuple of letters, and a URL or a port would never match: neither passes in silence.
    if not isinstance(remote, tuple):
        raise OptionError(f'remote is {shown(remote)}; "public", "off" or a tuple of names of hosts is due.')
    for host in remote:
        if not isinstance(host, str) or not _HOST.fullmatch(host):
            raise OptionError(
                f"remote has {shown(host)}, which is no name of a host.",
                fix='write "example.com" or "*.example.com", without scheme, port and path',
            )


DEFAULT = MediaLimits()
"""For a program's own media."""
