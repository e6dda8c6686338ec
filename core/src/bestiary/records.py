"""The frozen records that plugins register through the hooks.

Nothing here imports torch.  What is heavy is a "module:name" string, resolved when it is used.  A record states the
version of the hook API that it was written for; the core refuses a newer one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

API = (1, 5)
"""The version of the hooks and records: a new field or argument raises the second number, a removal the first."""


def resolve(reference: str) -> Any:
    """The object that "module:name" names.  Raises ImportError or AttributeError as the module does."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


@dataclass(frozen=True)
class ChatTemplate:
    """The template of a family, used when a checkpoint carries none; the checkpoint's own always wins."""

    jinja: str
    stop: tuple[str, ...] = ()
    """Texts of the tokens that end an answer, besides those that generation_config.json names."""


@dataclass(frozen=True)
class Gguf:
    """How the GGUF files of one `general.architecture` differ from the Hugging Face layout."""

    architecture: str
    weights: tuple[Any, ...] = ()
    """Rules applied after gguf's own name tables and before the architecture's `weights`."""


@dataclass(frozen=True)
class Evidence:
    """What the small files of a repository say about the model, before any weight is fetched."""

    files: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    """config.json, or the parsed metadata of a single-file format; empty where there is none."""
    model_index: Mapping[str, Any] = field(default_factory=dict)
    """model_index.json of a diffusers folder."""
    adapter: Mapping[str, Any] = field(default_factory=dict)
    """adapter_config.json of a PEFT adapter."""
    gguf: str | None = None
    """`general.architecture` of a GGUF file."""
    weights: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the weight files, of architectures that need others than the loader's `files` says: with eyes, say."""
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    """Of weights that no configuration describes: by file, the shape of each tensor."""
    origin: str = ""


PART = "part"
"""The task of an architecture that is no model by itself, such as the denoiser of an image pipeline."""


@dataclass(frozen=True)
class Part:
    """One of the networks that a pipeline is made of, or a folder of small files that it reads."""

    name: str
    """Its folder in a repository of diffusers ("text_encoder_2"), and its key in the `parts` of users."""
    architectures: tuple[str, ...] = ()
    """Names of the architectures that can stand there; none: it is files, such as a tokenizer's."""
    beside: str = ""
    """Another part in whose repository such files may lie, where they have no folder of their own."""
    usual: str = ""
    """A repository that has it, which messages name.  Nothing is fetched from it unasked."""
    required: bool = True
    """Whether a load fails without it; else what needs it does."""
    packs: bool = False
    """Whether a request for weights in fewer bits means it, too."""


@dataclass(frozen=True)
class Architecture:
    """One architecture: what it is called, how its network is built, and how its weights are named."""

    name: str
    """The name in `architectures` of config.json, or `_class_name` of model_index.json."""
    task: str
    """"text", "vision", "image", "speech", "embedding" or any task that a PipelineType declares."""
    model: str
    """"module:build", a function from a normalised Config to a torch module; of an architecture with `parts` whatever
    its PipelineType calls (of "image": `bestiary.diffusion.model`, of "speech": `bestiary.speech.model`)."""
    weights: tuple[Any, ...] = ()
    """Rules from checkpoint names to parameter names (see `bestiary.weights`)."""
    aliases: tuple[str, ...] = ()
    """Other class names for the same network."""
    model_types: tuple[str, ...] = ()
    """Values of `model_type` claimed where `architectures` is absent."""
    probe: Callable[[Evidence], bool | None] | None = None
    """Looks at sibling files: True claims the model before any name does, False declines it, None has no opinion."""
    gguf: tuple[Gguf, ...] = ()
    chat_template: ChatTemplate | None = None
    processor: str | None = None
    """"module:build" of what turns media into tensors and tokens (`bestiary.media.processor`)."""
    parts: tuple[Part, ...] = ()
    """Of a pipeline made of parts.  A repository that holds the first one alone is taken for the pipeline."""
    describe: str | None = None
    """"module:function" (shapes by tensor name) -> the config.json object of weights that come without one, or None
    where they are not of this architecture.  Must not import torch."""
    features: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Config keys that checkpoints of this family leave out, with the value that they then mean."""
    tiny: str | None = None
    """"module:NAME" of small configurations (config.json objects) on which `bestiary.testing` checks it."""
    tool_format: str | None = None
    """Name of the `ToolFormat` that its models speak, for where their chat template does not show one."""
    api: tuple[int, int] = API


@dataclass(frozen=True)
class Loader:
    """One weight-file format."""

    name: str
    suffixes: tuple[str, ...]
    """File endings of the format: enough to tell, from a list of names, whether a repository may hold it."""
    sniff: Callable[[str, bytes], bool]
    """sniff(name, head): whether a file with these first bytes (at least 16, where it has them) is of the format."""
    files: str
    """"module:function" (repository) -> names of the weight files to fetch; reads at most a small index."""
    open: str
    """"module:function" (repository, names) -> Checkpoint; reads headers, no tensor data."""
    headers: str | None = None
    """"module:function" (repository, names) -> Checkpoint that knows names and shapes before the files are fetched."""
    identify: str | None = None
    """"module:function" (repository, name) -> Evidence, for formats with the configuration in the weight file."""
    choose: str | None = None
    """"module:function" (repository, wanted) -> names of the files of one of several models, by what a user asked for
    as `quant`; None where the repository has one model, and `wanted` is no name of it."""
    text: str | None = None
    """"module:function" (repository, name) -> bestiary.generation.carried.CarriedText, for formats that carry the
    tokenizer and the chat template in the weight file."""
    options: tuple[str, ...] = ()
    """Options of `bestiary.load` that `identify` takes by name."""
    shared: bool = False
    """Whether other formats have the same endings: then the first bytes of a file decide, through `sniff`."""
    priority: int = 0
    """Of two formats in one repository the higher is taken."""
    api: tuple[int, int] = API


@dataclass(frozen=True)
class Quantizer:
    """One way to hold a weight in fewer bits."""

    name: str
    schemes: tuple[str, ...] = ()
    """Names under which users ask for it as `quant`."""
    pack: str | None = None
    """"module:function" (tensor, scheme) -> packed weight, of every linear layer alike; None leaves it plain."""
    plan: str | None = None
    """"module:function" (PackingRequest, Sites, Config, torch.device) -> bestiary.protocols.PackingPlan, in place of
    `pack` where weights are packed differently; such a quantizer also serves requests that name no scheme."""
    methods: tuple[str, ...] = ()
    """Values of `quant_method` in `quantization_config` whose checkpoints it reads."""
    recognise: Callable[[Mapping[str, Any]], bool] | None = None
    """Whether a `quantization_config` without `quant_method` is one of its own."""
    files: tuple[str, ...] = ()
    """Names of files that hold the `quantization_config` of checkpoints whose config.json has none."""
    load: str | None = None
    """"module:function" (checkpoint, quantization_config, asked) -> Checkpoint with packed groups as one weight each;
    `asked` is the `quant` of the user, who may name what the checkpoint is packed in."""
    linear: str | None = None
    """"module:Class" of the packed weight: multiply(x), dequantize(), shape, nbytes."""
    devices: tuple[str, ...] = ("cpu", "cuda")
    api: tuple[int, int] = API


@dataclass(frozen=True)
class Site:
    """A weight of a network that can be packed."""

    name: str
    """The parameter, such as "model.layers.0.mlp.up_proj.weight"."""
    shape: tuple[int, ...]
    """[out, in], or [experts, out, in]."""
    role: str
    """"linear", "embedding", "head" (also of an embedding that is the head too) or "experts"."""
    stored: str
    """How the checkpoint has it: "BF16", "Q4_K"."""


@dataclass(frozen=True)
class Packing:
    """What becomes of one weight."""

    scheme: str | None
    """None: it stays as the checkpoint has it."""
    nbytes: int
    """What it will take in memory."""
    why: str = ""
    """The reason, where it is not what was asked for."""
    device: str | None = None
    """Where it is to lie; None: with the rest of the model."""


@dataclass(frozen=True)
class PackingRequest:
    """What a user asked of the packing of a model (see the options of `bestiary.load`)."""

    quant: str | int | Callable[[Site], str | None] | Mapping[str, Any] | None = None
    """A mapping is by part, for pipelines that are made of parts; each of its values is what any model takes."""
    topology: str | Mapping[str, Any] | None = None
    organization: str | None = None
    imatrix: Any = None
    """The path of an importance matrix, or what one holds: tensors [in], or [experts, in], by parameter name."""
    calibration_file: str | None = None
    encode: Callable[[str], Sequence[int]] | None = None
    """The tokenizer of the model, where its pipeline has one."""
    dtype_bytes: int = 2
    """Bytes of a number that stays plain."""

    def __bool__(self) -> bool:
        asked = (self.quant, self.topology, self.organization, self.imatrix, self.calibration_file)
        return any(value is not None for value in asked)


@dataclass(frozen=True)
class PipelineType:
    """The object that `bestiary.load` returns for a task."""

    task: str
    pipeline: str
    """"module:Class" (identified, pull): it reads the small files that it needs from the `bestiary.loading.Identified`,
    so that what they lack is told first, and then calls pull, a `bestiary.loading.Pull`, for the LoadedModel, or once
    for each part."""
    options: tuple[str, ...] = ()
    """Options of `bestiary.load` that are meant for it; they come in `LoadedModel.options`."""
    api: tuple[int, int] = API


@dataclass(frozen=True)
class KernelBackend:
    """Fast code for one operation.  Core finds it by operation, type and device, not by who brings it."""

    operation: str
    """A field of `bestiary.nn.operations.Operations`, or "resize" of pictures (`bestiary.media.images`)."""
    types: tuple[str, ...]
    """Types of numbers, as torch calls them ("bfloat16"), with which the model computes."""
    devices: tuple[str, ...]
    function: str
    """"module:function" with the signature of the plain-torch reference of the operation."""
    priority: int = 0
    name: str = ""
    """Under which users choose it or leave it out; several records may share one."""
    unavailable: str | None = None
    """"module:function" () -> why it cannot run on this machine, or None where it can."""
    tolerance: float = 1e-2
    """The norm of its difference from the reference, over the norm of that, which a check lets pass."""
    api: tuple[int, int] = API


@dataclass(frozen=True)
class Source:
    """A place where a model id may resolve: the hub, a folder, a file, a packaged model, another registry."""

    name: str
    claims: Callable[[str], bool]
    """Whether an id has the form of this source, or exists there; may look at local files, never at the network."""
    open: str
    """"module:function" (id, SourceOptions) -> Repository."""
    priority: int = 0
    """Of two sources that claim one id the higher is taken."""
    api: tuple[int, int] = API


@dataclass(frozen=True)
class ToolFormat:
    """One way in which models write calls of tools."""

    name: str
    parser: str
    """"module:Class" made of the `bestiary.generation.tools.offered.Offered` of a request, for one answer; what it does
    is `bestiary.generation.tools.parser.ToolParser`."""
    present: tuple[str, ...] = ()
    """Texts that are all in a chat template of the format; without any, it is named and never found in a template."""
    absent: tuple[str, ...] = ()
    """Texts of which none is in a chat template of the format."""
    form: str | None = None
    """"module:NAME" of the `bestiary.generation.constraints.tools.ToolForm` in which a grammar writes calls, or of an
    `AnswerForm`; None: calls can be read, but not enforced."""
    priority: int = 0
    """Of several formats that a template shows, the one with the highest is taken; of equals the first by name."""
    api: tuple[int, int] = API


@dataclass(frozen=True)
class SourceOptions:
    """What a user may say about where a model comes from."""

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | None = None
    offline: bool = False
    progress: Callable[["Progress"], None] | None = None
    told: Mapping[str, Any] = field(default_factory=dict)
    """What a user said of the weight file, by option of a Loader."""


@dataclass(frozen=True)
class Progress:
    """One event of long work: `done` of `total` units (bytes for files and weights) of `item` at a `stage`."""

    stage: str
    done: int
    total: int
    item: str = ""


Record = Architecture | Loader | Quantizer | PipelineType | KernelBackend | Source | ToolFormat
Records = Sequence[Record]
