"""Pictures, videos and sounds in prompts, on their way from a message to rows of a batch.

In that order:

    limits                           how large and how many
    reading, fetching                the bytes behind a path or a URL, if these may be had at all
      (connecting, addresses)        which hosts may be reached, and one connection within one deadline
    decoding, headers, foreign       bytes become RGB pictures; what is told of them before; what they are instead
    opening                          any source becomes frames
    images                           what processors do with frames: resize, crop, tile, normalise
    settings                         what the files of a checkpoint say of its processor, checked
    processor                        what a family's plugin brings: frames become tensors, placeholders tokens
    prepared                         one medium, ready for the model's encoder
    messages                         the media of a chat, found in its messages
    prompt                           which tokens of a prompt stand for which rows of which medium
    reader                           all of that for one model
"""
