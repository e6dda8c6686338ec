"""The tokenizer that a file before GGUF carries: texts and scores, which make one of SentencePiece.

What converters wrote (`SentencePieceVocab` of convert.py; convert_llama_ggml_to_gguf.py reads it so): ids 0 to 2 are
the unknown, first and last token, whose texts were replaced; a byte token is the byte itself, within ids 3 to 258; in
all others a space stands for U+2581.  Tokens of added_tokens.json follow with the score -1000.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Sequence

from bestiary.errors import TokenizerError, shown
from bestiary.generation.carried import CarriedText
from bestiary.generation.tokenizer import Tokenizer
from bestiary.protocols import Repository
from bestiary_quant.ggml.checkpoint import read_file
from bestiary_quant.ggml.header import GgmlHeader
from bestiary_quant.ggml.selection import files
from bestiary_quant.gguf.cursor import Cursor
from bestiary_quant.gguf.metadata import Metadata, read_metadata
from bestiary_quant.gguf_tokenizer.pieces import SPACE
from bestiary_quant.gguf_tokenizer.reading import read_gguf_tokenizer
from bestiary_quant.gguf_tokenizer.special import end_ids
from bestiary_quant.gguf_tokenizer.vocabulary import BYTE, CONTROL, NORMAL, PREFIX, UNKNOWN, USER_DEFINED

log = logging.getLogger("bestiary.quant")

SPECIAL = (("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL))
BYTES = range(3, 259)
ADDED = -1000.0
"""The score of a token that the model's makers added to the vocabulary."""
FIX = 'give tok_model_id, the id of the model of which the file was made: tok_model_id="org/name"'
_STRING, _ARRAY, _INT32, _FLOAT32 = 8, 9, 5, 6


def carried_text(repository: Repository, name: str) -> CarriedText:
    """The tokenizer and the ends of the model of a repository; `name` may be any of its files of the format.

    Where the file has no tokenizer that can be rebuilt, tokenizer.json beside it serves.  There is never a template.
    Raises TokenizerError or CheckpointError.
    """
    header, mapped = read_file(repository, files(repository)[0])
    mapped.close()
    try:
        metadata = tokenizer_metadata(header)
        return CarriedText(read_gguf_tokenizer(metadata), {}, end_ids(metadata))
    except TokenizerError as error:
        if "tokenizer.json" not in repository.files():
            raise TokenizerError(error.what, where=error.where, fix=FIX) from error
        log.warning("%s: %s tokenizer.json is taken instead", header.origin, error.what)
        return CarriedText(Tokenizer.from_repository(repository), {}, frozenset())


def tokenizer_metadata(header: GgmlHeader) -> Metadata:
    """The vocabulary as a GGUF file of the model states it.  Raises TokenizerError where it has no scores."""
    scores = header.scores
    if scores is None or not any(scores):  # programs that rewrote a file without scores put zeros
        raise TokenizerError(
            f"The file ({header.version}) has no scores of its tokens, without which no text can be cut into them.",
            where=header.origin,
            fix=FIX,
        )
    typed = list(_typed(header.tokens, scores, header.origin))
    count = len(typed)
    texts = b"".join(_text(token) for token, _ in typed)
    pairs = (
        _pair("model", _STRING, _text("llama")),
        _array("tokens", _STRING, count, texts),
        _array("scores", _FLOAT32, count, struct.pack(f"<{count}f", *scores)),
        _array("token_type", _INT32, count, struct.pack(f"<{count}i", *(kind for _, kind in typed))),
    )
    data = b"".join(pairs)
    return read_metadata(Cursor(data, len(data), header.origin), len(pairs))


def _typed(tokens: Sequence[bytes], scores: Sequence[float], origin: str) -> Iterator[tuple[str, int]]:
    """Each token with its type; one that repeats the text of another cannot be reached, and becomes empty."""
    seen = set[str]()
    for place, (raw, score) in enumerate(zip(tokens, scores, strict=True)):
        if place < len(SPECIAL):
            token, kind = SPECIAL[place]
        elif place in BYTES and len(raw) == 1:
            token, kind = f"<0x{raw[0]:02X}>", BYTE
        else:
            kind = USER_DEFINED if score == ADDED and place not in BYTES else NORMAL
            try:
                token = raw.decode()
            except UnicodeDecodeError:
                raise TokenizerError(f"Token {place} is not UTF-8: {shown(raw)}.", where=origin, fix=FIX) from None
            token = token if kind == USER_DEFINED else token.replace(" ", SPACE)
        yield ("", CONTROL) if token in seen else (token, kind)
        seen.add(token)


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return _text(PREFIX + key) + struct.pack("<I", kind) + value


def _array(key: str, kind: int, count: int, items: bytes) -> bytes:
    return _pair(key, _ARRAY, struct.pack("<IQ", kind, count) + items)
