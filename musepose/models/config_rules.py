"""What the config files of the models may say: one table a file. Limits are far beyond any published model."""

from musepose.utils.schema import Rule


def only(*values: object) -> Rule:
    return Rule(choices=values)


def whole(high: int, low: int = 1, required: bool = False) -> Rule:
    return Rule(int, low, high, required=required)


SWITCH = Rule(bool)
EPSILON = Rule(float, above=0, high=1)
RATIO = Rule(float, low=0, high=1)
WIDTH, GROUPS, HEADS, CHANNELS = whole(16384), whole(1024), whole(1024), whole(1024)
LEVELS = 8  # of a UNet
LAYERS = 8  # of a level
CLIP_SIDE = 224  # pixels, what the pipeline feeds


def several(item: Rule, low: int = 1, high: int = LEVELS, required: bool = False) -> Rule:
    return Rule(list, low, high, items=item, required=required)


# The sizes of an SD-1.5-type UNet's config.json, which UNet takes as arguments.
UNET_SIZES = {
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "block_out_channels": several(WIDTH, required=True),
    "layers_per_block": whole(LAYERS),
    "down_block_types": several(only("CrossAttnDownBlock2D", "DownBlock2D")),
    "up_block_types": several(only("CrossAttnUpBlock2D", "UpBlock2D")),
    "attention_head_dim": HEADS,
    "cross_attention_dim": whole(16384, required=True),
    "norm_num_groups": GROUPS,
    "norm_eps": EPSILON,
}
# The rest of it, which this UNet does in one way: anything else is another architecture.
UNET = UNET_SIZES | {
    "act_fn": only("silu"),
    "attention_type": only("default"),
    "center_input_sample": only(False),
    "conv_in_kernel": only(3),
    "conv_out_kernel": only(3),
    "downsample_padding": only(1),
    "dual_cross_attention": only(False),
    "flip_sin_to_cos": only(True),
    "freq_shift": only(0),
    "mid_block_only_cross_attention": only(False),
    "mid_block_scale_factor": only(1),
    "mid_block_type": only("UNetMidBlock2DCrossAttn"),
    "only_cross_attention": only(False),
    "resnet_out_scale_factor": only(1),
    "resnet_skip_time_act": only(False),
    "resnet_time_scale_shift": only("default"),
    "time_embedding_type": only("positional"),
    "transformer_layers_per_block": only(1),
    "use_linear_projection": only(False),
    **{
        key: only(None)
        for key in (
            *("addition_embed_type", "class_embed_type", "cross_attention_norm", "encoder_hid_dim"),
            *("encoder_hid_dim_type", "num_attention_heads", "num_class_embeds", "time_cond_proj_dim"),
        )
    },
    "attn_implementation": only("sdpa"),
}
# AutoencoderKL's arguments. Latents are eight times smaller than pictures, as the pose guider's features are.
VAE_LEVELS = 4
VAE_SIZES = {
    "in_channels": only(3),
    "out_channels": only(3),
    "block_out_channels": several(WIDTH, VAE_LEVELS, VAE_LEVELS, required=True),
    "down_block_types": several(only("DownEncoderBlock2D", "AttnDownEncoderBlock2D"), VAE_LEVELS, VAE_LEVELS, True),
    "up_block_types": several(only("UpDecoderBlock2D", "AttnUpDecoderBlock2D"), VAE_LEVELS, VAE_LEVELS, True),
    "layers_per_block": whole(LAYERS),
    "act_fn": only("silu", "swish", "mish", "gelu", "relu"),
    "latent_channels": CHANNELS,
    "norm_num_groups": GROUPS,
    "sample_size": whole(65536),
    "scaling_factor": Rule(float, above=0, high=1e6),
    "force_upcast": SWITCH,
    "use_quant_conv": SWITCH,
    "use_post_quant_conv": SWITCH,
    "mid_block_add_attention": SWITCH,
}
VAE = VAE_SIZES | {
    "_class_name": only("AutoencoderKL"),
    "shift_factor": only(0),  # the pipeline scales latents, it does not shift them
    "latents_mean": only(None),
    "latents_std": only(None),
    "attn_implementation": only("sdpa"),
}
# CLIPVisionConfig's arguments.
CLIP_SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": whole(65536),
    "projection_dim": whole(16384),
    "num_hidden_layers": whole(128),
    "num_attention_heads": HEADS,
    "num_channels": only(3),
    "image_size": only(CLIP_SIDE),
    "patch_size": whole(CLIP_SIDE),
    "hidden_act": only("quick_gelu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "swish"),
    "layer_norm_eps": EPSILON,
    "attention_dropout": RATIO,
    "attn_implementation": only("sdpa", "eager"),
}
CLIP = CLIP_SIZES | {"model_type": only("clip_vision_model")}
# Inference config: unet_additional_kwargs, and in it motion_module_kwargs.
MOTION = {
    "use_motion_module": SWITCH,
    "use_inflated_groupnorm": only(True),
    "unet_use_cross_frame_attention": only(False),
    "unet_use_temporal_attention": only(False),
    "motion_module_resolutions": only([1, 2, 4, 8]),
    "motion_module_mid_block": only(True),
    "motion_module_decoder_only": only(False),
    "motion_module_type": only("Vanilla"),
}
MOTION_SIZES = {
    "num_attention_heads": HEADS,
    "num_transformer_block": whole(4),
    "attention_block_types": several(only("Temporal_Self"), high=4),
    "temporal_position_encoding": only(True),
    "temporal_position_encoding_max_len": whole(1024),
    "temporal_attention_dim_div": only(1),
    "zero_initialize": SWITCH,  # AnimateDiff's: how a training starts
}
GUIDER = {"block_out_channels": several(WIDTH, 4, 4)}
# Inference and training config: noise_scheduler_kwargs, DDIMScheduler's arguments.
NOISE = {
    "num_train_timesteps": whole(100_000),
    "beta_start": Rule(float, above=0, high=0.999),
    "beta_end": Rule(float, above=0, high=0.999),
    "beta_schedule": only("linear", "scaled_linear", "squaredcos_cap_v2"),
    "trained_betas": Rule(list, 1, 100_000, items=Rule(float, above=0, high=0.999)),
    "clip_sample": SWITCH,
    "clip_sample_range": Rule(float, above=0, high=1e6),
    "set_alpha_to_one": SWITCH,
    "steps_offset": whole(1, low=0),
    "prediction_type": only("v_prediction", "epsilon"),
    "thresholding": SWITCH,
    "dynamic_thresholding_ratio": RATIO,
    "sample_max_value": Rule(float, low=1, high=1e6),
    "timestep_spacing": only("trailing", "leading", "linspace"),
    "rescale_betas_zero_snr": SWITCH,
}
