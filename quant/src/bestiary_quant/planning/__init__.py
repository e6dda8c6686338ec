"""Plans: what becomes of each weight of a model that is packed while it loads."""
