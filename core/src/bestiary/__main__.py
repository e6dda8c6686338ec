"""`python -m bestiary` is the `bestiary` command."""

from bestiary.cli import main

main()
