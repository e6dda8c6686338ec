"""Guessing the tokens to come, so that one step of the model confirms several.

Read in this order: ngram (guesses from the text itself), drafter (what the engine asks of whoever guesses), model (a
smaller model, or a head on the model's own states).
"""
