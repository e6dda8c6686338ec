"""Pictures, videos and sounds in prompts, on their way from a message to rows of a batch.

In that order:

    limits      how large and how many
    fetching    what lies behind an http URL, if anything may be fetched at all
    opening     a path, bytes, a data URL, an array or a picture becomes RGB frames
    images      what the processors of families do with frames: resize, crop, tile, normalise, cut into patches
    processor   what a family's plugin brings: frames become tensors, placeholders become tokens and positions
    prepared    one picture, ready for the model's encoder
    messages    the media of a chat, found in its messages
    prompt      which tokens of a prompt stand for which rows of which picture
    reader      all of that for one model
"""
