"""The objects that `bestiary.load` returns, one for each task."""
