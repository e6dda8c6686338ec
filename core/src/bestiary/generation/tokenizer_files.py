"""From the files of a checkpoint to a tokenizer of the `tokenizers` library."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from bestiary.errors import TokenizerError
from bestiary.protocols import Repository

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The special tokens that have a role; any other is special without one."""

LARGEST = 512 << 20
"""A tokenizer file above this size is refused; the largest in use (262 144 tokens) are about 35 MB."""

# The split of Qwen's tokenizers, from the published tokenizer.json of Qwen2.
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# The words of CLIP's tokenizer, from the published tokenizer.json of clip-vit-base-patch16.
_CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

# What the classes of transformers mean where tokenizer_config.json does not say (old repositories say almost nothing).
_DEFAULTS: dict[str, dict[str, str]] = {
    "GPT2Tokenizer": dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
    "Qwen2Tokenizer": dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
    "LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "T5Tokenizer": {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    "CLIPTokenizer": {"bos_token": "<|startoftext|>"}
    | dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
}


@contextmanager
def rust_edge(doing: str, where: object = None) -> Iterator[None]:
    """Turns every failure of the Rust side into a TokenizerError.

    A panic there arrives as PanicException, which is no subclass of Exception; a tokenizer.json with a regular
    expression that backtracks too far is enough to cause one.
    """
    try:
        yield
    except MemoryError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"The tokenizer failed while {doing}: {error}", where=where) from error


@dataclass(frozen=True)
class TokenizerFiles:
    """A backend with every token of the files added, and what the files say besides."""

    backend: tokenizers.Tokenizer
    special_tokens: Mapping[str, str]
    """"bos_token" and its like -> the text of the token."""
    clean_up: bool
    """Whether decoding removes the spaces before punctuation (`clean_up_tokenization_spaces`)."""
    origin: str


def read_tokenizer(repository: Repository) -> TokenizerFiles:
    """Raises TokenizerError where the files are absent, malformed, or of a kind that needs a conversion."""
    files = repository.files()
    config = read_json(repository, "tokenizer_config.json") or {}
    kind = str(config.get("tokenizer_class") or "").removesuffix("Fast")
    if "tokenizer.json" in files:
        _check_size(repository, "tokenizer.json")
        where = f"{repository.origin}: tokenizer.json"
        with rust_edge("reading its file", where):
            backend = tokenizers.Tokenizer.from_file(str(repository.path("tokenizer.json")))
            # Limits for training batches; a text that is silently cut would be a wrong prompt.
            backend.no_truncation()
            backend.no_padding()
    elif {"vocab.json", "merges.txt"} <= set(files) and kind in ("Qwen2Tokenizer", "GPT2Tokenizer", "CLIPTokenizer"):
        where = f"{repository.origin}: vocab.json, merges.txt"
        if kind == "CLIPTokenizer":
            backend = _clip(repository, config.get("unk_token"), where)
        else:
            backend = _byte_level(repository, kind, bool(config.get("add_prefix_space")), where)
    else:
        raise _no_tokenizer(repository, kind)
    where = f"{repository.origin}: tokenizer_config.json" if config else where
    added = _added_tokens(repository, config, where)
    special_tokens = _special_tokens(repository, config, kind, backend, where)
    _add(backend, added, special_tokens.values(), _extra_tokens(repository, config, special_tokens), where)
    if kind == "CLIPTokenizer" and "tokenizer.json" not in files:
        _add_clip_ends(backend, special_tokens, where)
    _add_ends(backend, config, special_tokens, where)
    if config.get("split_special_tokens"):
        backend.encode_special_tokens = True
    # Meant for WordPiece; on BPE it eats spaces that the model wrote, so transformers 5 ignores it there too.
    forced = bool(config.get("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"))
    clean_up = bool(config.get("clean_up_tokenization_spaces"))
    clean_up = clean_up and (forced or type(backend.model).__name__ != "BPE")
    return TokenizerFiles(backend, special_tokens, clean_up, repository.origin)


def read_json(repository: Repository, name: str) -> dict[str, Any] | None:
    """A JSON object of the repository, None where there is no such file."""
    if name not in repository.files():
        return None
    _check_size(repository, name)
    where = f"{repository.origin}: {name}"
    try:
        value = json.loads(repository.path(name).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{name} is not JSON: {error}", where=where) from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{name} holds a {type(value).__name__} where an object is expected", where=where)
    return value


def _check_size(repository: Repository, name: str) -> None:
    size = repository.files()[name]
    if size > LARGEST:
        raise TokenizerError(f"{name} has {size} bytes, more than any tokenizer needs", where=repository.origin)


def _byte_level(repository: Repository, kind: str, prefix_space: bool, where: str) -> tokenizers.Tokenizer:
    """The byte-level BPE that Qwen2Tokenizer and GPT2Tokenizer make of a vocabulary and its merges."""
    _check_size(repository, "vocab.json")
    _check_size(repository, "merges.txt")
    with rust_edge("building a byte-level BPE", where):
        model = models.BPE.from_file(str(repository.path("vocab.json")), str(repository.path("merges.txt")))
        backend = tokenizers.Tokenizer(model)
        backend.decoder = decoders.ByteLevel()
        if kind == "GPT2Tokenizer":
            backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
        else:
            backend.normalizer = normalizers.NFC()
            backend.pre_tokenizer = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(_QWEN_SPLIT), "isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=False),
                ]
            )
    return backend


def _clip(repository: Repository, unknown: Any, where: str) -> tokenizers.Tokenizer:
    """The BPE of lower-case words that CLIPTokenizer makes of a vocabulary and its merges."""
    _check_size(repository, "vocab.json")
    _check_size(repository, "merges.txt")
    token = _token(_DEFAULTS["CLIPTokenizer"]["unk_token"] if unknown is None else unknown, where)
    with rust_edge("building the BPE of CLIP", where):
        model = models.BPE.from_file(
            str(repository.path("vocab.json")),
            str(repository.path("merges.txt")),
            unk_token=token.content,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
        )
        backend = tokenizers.Tokenizer(model)
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_CLIP_WORDS), "removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
    return backend


def _add_clip_ends(backend: tokenizers.Tokenizer, special_tokens: Mapping[str, str], where: str) -> None:
    """CLIPTokenizer always puts a first and a last token around a text, whatever the configuration says."""
    places = {}
    for name in ("bos_token", "eos_token"):
        text = special_tokens.get(name)
        place = None if text is None else backend.token_to_id(text)
        if text is None or place is None:
            raise TokenizerError(f"The tokenizer of CLIP has no {name}, which begins or ends every text.", where=where)
        places[name] = (text, place)
    with rust_edge("adding its first and last token", where):
        backend.post_processor = processors.RobertaProcessing(
            places["eos_token"], places["bos_token"], trim_offsets=False, add_prefix_space=False
        )


def _no_tokenizer(repository: Repository, kind: str) -> TokenizerError:
    files = repository.files()
    found = [
        name
        for name in files
        if name.endswith((".model", ".tiktoken")) or name in ("vocab.json", "merges.txt", "vocab.txt", "tekken.json")
    ]
    if not found:
        return TokenizerError(
            "No tokenizer: tokenizer.json is needed, or vocab.json with merges.txt",
            where=repository.origin,
            fix="copy tokenizer.json and tokenizer_config.json of the base model beside the weights",
        )
    what = f"The tokenizer exists only as {', '.join(sorted(found))}; tokenizer.json is needed"
    if "vocab.json" in found and "merges.txt" in found:
        served = "Qwen2Tokenizer, GPT2Tokenizer and CLIPTokenizer"
        what += f" (vocab.json with merges.txt serves for {served}, here: {kind or 'no class'})"
    return TokenizerError(
        what,
        where=repository.origin,
        fix='Convert it once: pip install transformers sentencepiece tiktoken, then python -c "from transformers '
        f"import AutoTokenizer; AutoTokenizer.from_pretrained({repository.id!r}).save_pretrained('converted')\", and "
        "put converted/tokenizer.json beside the weights",
    )


def _token(value: Any, where: str, *, special: bool | None = None) -> AddedToken:
    """An AddedToken from its JSON form: a plain text, or an object with the flags of the token."""
    if isinstance(value, str):
        return AddedToken(value, special=special is not False, normalized=False)
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise TokenizerError(f"A special token is neither a text nor an object with a content: {value!r}", where=where)
    flags = {flag: bool(value[flag]) for flag in ("single_word", "lstrip", "rstrip", "normalized") if flag in value}
    return AddedToken(value["content"], special=bool(value.get("special")) if special is None else special, **flags)


def _added_tokens(repository: Repository, config: Mapping[str, Any], where: str) -> dict[int, AddedToken]:
    """Tokens with the ids that they must get: `added_tokens_decoder`, or the older added_tokens.json."""
    declared = config.get("added_tokens_decoder")
    if declared is not None:
        if not isinstance(declared, dict) or not all(str(key).isdecimal() for key in declared):
            raise TokenizerError("added_tokens_decoder does not map ids to tokens", where=where)
        return {int(key): _token(value, where) for key, value in declared.items()}
    older = read_json(repository, "added_tokens.json") or {}
    if not all(isinstance(place, int) for place in older.values()):
        where = f"{repository.origin}: added_tokens.json"
        raise TokenizerError("added_tokens.json does not map tokens to ids", where=where)
    return {place: AddedToken(text, special=False, normalized=True) for text, place in older.items()}


def _special_tokens(
    repository: Repository, config: Mapping[str, Any], kind: str, backend: tokenizers.Tokenizer, where: str
) -> dict[str, str]:
    """The named special tokens; the older special_tokens_map.json counts more in repositories of its time."""
    older = read_json(repository, "special_tokens_map.json") or {}
    layers = [older, config] if "added_tokens_decoder" in config else [config, older]
    named: dict[str, str] = {}
    for name, text in _DEFAULTS.get(kind, {}).items():
        if all(name not in layer for layer in layers) and backend.token_to_id(text) is not None:
            named[name] = text
    for layer in layers:
        named |= {name: _token(layer[name], where).content for name in NAMED if layer.get(name) is not None}
    # Families with media name further tokens ("image_token"); templates refer to them by these names.
    others = config.get("extra_special_tokens")
    others = dict(others) if isinstance(others, dict) else {}
    others |= {name: config[name] for name in config if name.endswith("_token") and name not in NAMED}
    for name, value in others.items():
        if isinstance(value, str | dict):
            named[name] = _token(value, where).content
    return named


def _extra_tokens(repository: Repository, config: Mapping[str, Any], named: Mapping[str, str]) -> list[Any]:
    """Special tokens without a role, under both of their historical keys."""
    older = read_json(repository, "special_tokens_map.json") or {}
    extra: list[Any] = []
    for layer in (config, older):
        for key in ("extra_special_tokens", "additional_special_tokens"):
            if isinstance(layer.get(key), list):
                extra += layer[key]
    return [token for token in extra if token not in named.values()]


def _add(
    backend: tokenizers.Tokenizer,
    added: Mapping[int, AddedToken],
    named: Iterable[str],
    extra: Iterable[Any],
    where: str,
) -> None:
    """Add what the backend lacks, and mark as special what has a role."""
    with rust_edge("adding the tokens of its configuration", where):
        known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
        for place, token in sorted(added.items()):
            if token.content in known:
                continue
            (backend.add_special_tokens if token.special else backend.add_tokens)([token])
            known[token.content] = token
            if backend.token_to_id(token.content) != place:
                raise TokenizerError(
                    f"The token {token.content!r} should have id {place}, but the vocabulary gives it "
                    f"{backend.token_to_id(token.content)}",
                    where=where,
                )
        for value in (*named, *extra):
            token = _token(value, where, special=True)
            seen = known.get(token.content)
            if seen is None:
                backend.add_special_tokens([token])
            elif not seen.special:
                seen.special = True
                backend.add_special_tokens([seen])


def _add_ends(
    backend: tokenizers.Tokenizer, config: Mapping[str, Any], special_tokens: Mapping[str, str], where: str
) -> None:
    """Honour add_bos_token and add_eos_token where the file has no rule of its own.

    A tokenizer.json whose post-processor adds tokens has the last word, as in transformers 5.  One that adds none, with
    a configuration that asks for them (DeepSeek), means the configuration; transformers 4 did so, 5.23 does not.
    """
    if backend.post_processor is not None and backend.num_special_tokens_to_add(False):
        return
    ends = {name: special_tokens[name] for name in ("bos_token", "eos_token") if name in special_tokens}
    ends = {name: text for name, text in ends.items() if config.get(f"add_{name}")}
    single = [*(f"{ends[name]}:0" for name in ("bos_token",) if name in ends), "$A:0"]
    single += [f"{ends[name]}:0" for name in ("eos_token",) if name in ends]
    used = [(text, backend.token_to_id(text)) for text in ends.values()]
    if not used:
        return
    with rust_edge("adding its first and last token", where):
        template = processors.TemplateProcessing(single=single, special_tokens=used)
        before = [] if backend.post_processor is None else [backend.post_processor]
        backend.post_processor = processors.Sequence([*before, template])
