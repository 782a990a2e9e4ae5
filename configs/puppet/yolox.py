# The puppets' person detector: YOLOX as in configs/dwpose, a quarter as wide, shallower, one class, small images.
default_scope = "mmdet"

_norm = dict(type="BN", momentum=0.03, eps=0.001)
_act = dict(type="Swish")
_side = 192  # pixels, of the square that an image is fitted into

model = dict(
    type="YOLOX",
    data_preprocessor=dict(type="DetDataPreprocessor", pad_size_divisor=32),  # BGR, 0 to 255, not normalised
    backbone=dict(type="CSPDarknet", deepen_factor=0.33, widen_factor=0.25, norm_cfg=_norm, act_cfg=_act),
    neck=dict(
        type="YOLOXPAFPN",
        in_channels=[64, 128, 256],
        out_channels=64,
        num_csp_blocks=1,
        norm_cfg=_norm,
        act_cfg=_act,
    ),
    bbox_head=dict(type="YOLOXHead", num_classes=1, in_channels=64, feat_channels=64, norm_cfg=_norm, act_cfg=_act),
    train_cfg=dict(assigner=dict(type="SimOTAAssigner", center_radius=2.5)),
    test_cfg=dict(score_thr=0.01, nms=dict(type="nms", iou_threshold=0.65)),
)

test_dataloader = dict(
    dataset=dict(
        type="CocoDataset",
        pipeline=[
            dict(type="LoadImageFromNDArray"),
            dict(type="Resize", scale=(_side, _side), keep_ratio=True),
            dict(type="Pad", pad_to_square=True, pad_val=dict(img=(114.0, 114.0, 114.0))),
            dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
        ],
    )
)
