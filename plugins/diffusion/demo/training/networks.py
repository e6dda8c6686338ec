"""The five networks, small: an autoencoder, two text encoders, and Flux's transformer with its scheduler."""

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer
from wording import CLIP_LENGTH

LATENTS = 8
WORD_SIZE = 64
SHIFT = 1.5
LEVELS = 4


def autoencoder() -> AutoencoderKL:
    """64 x 64 pixels become 8 x 8 places of LATENTS numbers; 1x1 convolutions around them are left out, as in Flux."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * LEVELS,
        up_block_types=("UpDecoderBlock2D",) * LEVELS,
        block_out_channels=(8, 16, 32, 48),
        layers_per_block=1,
        latent_channels=LATENTS,
        norm_num_groups=2,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=True,
    )


def clip_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WORD_SIZE,
            projection_dim=WORD_SIZE,
            intermediate_size=2 * WORD_SIZE,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CLIP_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_factor=1.0,
        )
    )


def t5_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=WORD_SIZE,
            d_kv=16,
            d_ff=2 * WORD_SIZE,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def transformer() -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENTS,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=WORD_SIZE,
        pooled_projection_dim=WORD_SIZE,
        guidance_embeds=False,
        axes_dims_rope=(4, 14, 14),
    )


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=SHIFT, use_dynamic_shifting=False)
