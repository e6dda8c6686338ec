"""Sounds on their way in and out.

In that order:

    limits            how long, how many channels, and from where
    waveform          what a sound is here: samples and their rate
    headers           what a file tells before it is decoded, and what it is instead
    decoding          bytes become samples
    opening           any source becomes a waveform
    resampling        another rate
    stretching        another speed, at the same pitch
    mel, spectral     spectrograms, and the mel scale that models hear in
    saving            a waveform becomes a file
    transcript        what was said in one
    plot              a picture of one

Files are read and written by libsndfile: `pip install "bestiary-core[audio]"`.
"""
