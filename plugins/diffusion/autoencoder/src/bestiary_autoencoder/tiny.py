"""Small configurations that exercise every argument of the network, for tests."""

from typing import Any


def autoencoder(*channels: int, **changes: Any) -> dict[str, Any]:
    """A config.json object with these `block_out_channels`."""
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "block_out_channels": list(channels),
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": 32,
        **changes,
    }


FLUX = autoencoder(
    8,
    16,
    24,
    24,
    layers_per_block=2,
    latent_channels=16,
    sample_size=64,
    scaling_factor=0.3611,
    shift_factor=0.1159,
    use_quant_conv=False,
    use_post_quant_conv=False,
)
STABLE_DIFFUSION = autoencoder(8, 16, 16, 24, scaling_factor=0.18215)
WITHOUT_ATTENTION = autoencoder(12, 8, norm_num_groups=2, mid_block_add_attention=False, use_quant_conv=False)
ONE_RESOLUTION = autoencoder(
    8, latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[0.5, 1.0, 1.5, 2.0], scaling_factor=0.5
)
CONFIGS = (FLUX, STABLE_DIFFUSION, WITHOUT_ATTENTION, ONE_RESOLUTION)
