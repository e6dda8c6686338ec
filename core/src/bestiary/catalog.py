"""Which published distribution brings which architecture, so that a missing one can be named.

This is advice for error messages only: an installed plugin serves whether it is listed here or not.  A test compares
the page with the records of the plugins in the repository.
"""

DISTRIBUTIONS = {
    "bestiary-llama": (
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "MinistralForCausalLM",
        "Ministral3ForCausalLM",
        "Mistral3ForConditionalGeneration",
    ),
    "bestiary-qwen": ("Qwen2ForCausalLM", "Qwen3ForCausalLM", "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"),
    "bestiary-gemma": ("GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"),
    "bestiary-gemma3": ("Gemma3ForConditionalGeneration",),
    "bestiary-qwen-vl": ("Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"),
    "bestiary-llava": ("LlavaForConditionalGeneration", "LlavaNextForConditionalGeneration"),
    "bestiary-idefics": ("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration"),
    "bestiary-flux": (
        "FluxPipeline",
        "FluxImg2ImgPipeline",
        "FluxInpaintPipeline",
        "FluxFillPipeline",
        "FluxControlPipeline",
        "FluxKontextPipeline",
        "FluxTransformer2DModel",
    ),
    "bestiary-autoencoder": ("AutoencoderKL",),
    "bestiary-t5": (
        *("T5EncoderModel", "T5Model", "T5ForConditionalGeneration", "T5WithLMHeadModel"),
        *("MT5EncoderModel", "MT5Model", "MT5ForConditionalGeneration"),
        *("UMT5EncoderModel", "UMT5Model", "UMT5ForConditionalGeneration"),
    ),
    "bestiary-dac": ("DacModel",),
    "bestiary-dia": ("DiaPipeline", "DiaForConditionalGeneration"),
    "bestiary-whisper": ("WhisperForConditionalGeneration",),
    "bestiary-clip": ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel"),
}
MODEL_TYPES = {
    "bestiary-llama": ("llama", "mistral", "ministral", "ministral3"),
    "bestiary-qwen": ("qwen2", "qwen3", "qwen2_moe", "qwen3_moe"),
    "bestiary-gemma": ("gemma", "gemma2", "gemma3_text"),
    "bestiary-gemma3": ("gemma3",),
    "bestiary-qwen-vl": ("qwen2_vl", "qwen2_5_vl"),
    "bestiary-llava": ("llava", "llava_next"),
    "bestiary-idefics": ("idefics3", "smolvlm"),
    "bestiary-flux": ("flux",),
    "bestiary-t5": ("t5", "mt5", "umt5", "t5encoder"),
    "bestiary-clip": ("clip_text_model", "clip"),
    "bestiary-dac": ("dac",),
    "bestiary-dia": ("dia",),
    "bestiary-whisper": ("whisper",),
}
FORMATS = {".uqff": "bestiary-quant", ".gguf": "bestiary-quant", ".ggml": "bestiary-quant"}
"""Endings of weight files; of those that come first a folder may hold other weights, which are no model alone."""
PACKAGED = {"demo": "bestiary-demo", "demo-image": "bestiary-demo-image"}
"""Model ids that a distribution carries in itself."""


def distribution_of(names: tuple[str, ...], model_type: str | None = None) -> str | None:
    """The distribution that brings one of these architectures, or this model type."""
    for distribution, architectures in DISTRIBUTIONS.items():
        if any(name in architectures for name in names):
            return distribution
    for distribution, types in MODEL_TYPES.items():
        if model_type in types:
            return distribution
    return None
