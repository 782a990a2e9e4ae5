# DWPose-l whole-body keypoints: the model and preprocessing of dw-ll_ucoco_384.pth (RTMPose-l, 384 x 288) for mmpose.
default_scope = "mmpose"

_input = (288, 384)  # width, height
_codec = dict(
    type="SimCCLabel", input_size=_input, sigma=(6.0, 6.93), simcc_split_ratio=2.0, normalize=False, use_dark=False
)

model = dict(
    type="TopdownPoseEstimator",
    data_preprocessor=dict(
        type="PoseDataPreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(
        _scope_="mmdet",
        type="CSPNeXt",
        arch="P5",
        expand_ratio=0.5,
        deepen_factor=1.0,
        widen_factor=1.0,
        out_indices=(4,),
        channel_attention=True,
        norm_cfg=dict(type="BN"),  # eps 1e-5, unlike CSPNeXt's own default
        act_cfg=dict(type="SiLU"),
    ),
    head=dict(
        type="RTMCCHead",
        in_channels=1024,
        out_channels=133,
        input_size=_input,
        in_featuremap_size=(9, 12),
        simcc_split_ratio=2.0,
        final_layer_kernel_size=7,
        gau_cfg=dict(
            hidden_dims=256,
            s=128,
            expansion_factor=2,
            dropout_rate=0.0,
            drop_path=0.0,
            act_fn="SiLU",
            use_rel_bias=False,
            pos_enc=False,
        ),
        loss=dict(type="KLDiscretLoss", use_target_weight=True),  # required by the head, unused at inference
        decoder=_codec,
    ),
    test_cfg=dict(flip_test=True),
)

test_dataloader = dict(
    dataset=dict(
        type="CocoWholeBodyDataset",  # defines the 133 keypoints and their flip pairs
        pipeline=[
            dict(type="LoadImage"),
            dict(type="GetBBoxCenterScale"),
            dict(type="TopdownAffine", input_size=_input),
            dict(type="PackPoseInputs"),
        ],
    )
)
