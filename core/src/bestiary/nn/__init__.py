"""The blocks that models are made of.

Parameter names are those of Hugging Face's Llama, so that most weight maps are a few lines.  A variant is an argument
or a swapped block, never a subclass of another model.  Batches are flat: the tokens of all sequences of a step, [T].
"""

from bestiary.nn.activation import activation
from bestiary.nn.attention import Attention
from bestiary.nn.batch import (
    AttentionSpec,
    Batch,
    Features,
    LayerSpec,
    LayerState,
    MediaEncoder,
    RecurrentSpec,
    RecurrentState,
)
from bestiary.nn.decoder import CausalLM, Decoder, DecoderLayer, LanguageModel
from bestiary.nn.embedding import Embedding
from bestiary.nn.experts import Experts, ExpertsAdapter, MixtureOfExperts, Router
from bestiary.nn.linear import Linear, LinearAdapter
from bestiary.nn.mlp import MLP, GatedMLP
from bestiary.nn.norm import LayerNorm, RMSNorm
from bestiary.nn.packed import PackedStack, PackedWeight
from bestiary.nn.rope import Rope, Rotation

__all__ = [
    "MLP",
    "Attention",
    "AttentionSpec",
    "Batch",
    "CausalLM",
    "Decoder",
    "DecoderLayer",
    "Embedding",
    "Experts",
    "ExpertsAdapter",
    "Features",
    "GatedMLP",
    "LanguageModel",
    "LayerNorm",
    "LayerSpec",
    "LayerState",
    "Linear",
    "LinearAdapter",
    "MediaEncoder",
    "MixtureOfExperts",
    "PackedStack",
    "PackedWeight",
    "RMSNorm",
    "RecurrentSpec",
    "RecurrentState",
    "Rope",
    "Rotation",
    "Router",
    "activation",
]
