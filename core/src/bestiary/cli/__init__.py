"""The `bestiary` command: its entry point, and how errors look."""

from __future__ import annotations

import logging
import os
import sys
import traceback

from bestiary.errors import BestiaryError, BrokenPlugin

FAILED, UNKNOWN, INTERRUPTED = 1, 70, 130
"""Exit statuses: an error with a remedy, a fault of Bestiary's own, Ctrl-C."""


def main() -> None:
    """Run the command line and exit.  An error is one screen that says what to do."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: list[str]) -> int:
    """Run one command line; returns the exit status."""
    from bestiary.cli.app import make_app
    from bestiary.registry import default_registry

    show_traceback = "--traceback" in arguments
    verbose = "--verbose" in arguments or "-v" in arguments
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, format="%(name)s: %(message)s")
    try:
        app = make_app()
        default_registry().add_commands(app)
        app([argument for argument in arguments if argument != "--traceback"], prog_name="bestiary")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone: leave quietly, and keep the interpreter from writing to the pipe again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except BestiaryError as error:
        report(error, show_traceback)
        return FAILED
    except Exception as error:
        print(
            f"error: Bestiary failed in a way that it does not know: {type(error).__name__}: {error}", file=sys.stderr
        )
        print("  fix:   this is a fault of Bestiary; the same command with --traceback shows where", file=sys.stderr)
        if show_traceback:
            traceback.print_exc()
        return UNKNOWN
    return 0


def report(error: BestiaryError, show_traceback: bool) -> None:
    """Print an error to stderr: what is wrong, where it was read, what mends it."""
    print(f"error: {error}", file=sys.stderr)
    if show_traceback:
        traceback.print_exception(error)
        if isinstance(error, BrokenPlugin) and error.traceback:
            print(error.traceback, file=sys.stderr)
