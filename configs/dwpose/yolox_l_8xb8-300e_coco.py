# YOLOX-l person detector: the model and preprocessing of yolox_l_8x8_300e_coco.pth for mmdet.
default_scope = "mmdet"

_norm = dict(type="BN", momentum=0.03, eps=0.001)
_act = dict(type="Swish")

model = dict(
    type="YOLOX",
    data_preprocessor=dict(type="DetDataPreprocessor", pad_size_divisor=32),  # BGR, 0 to 255, not normalised
    backbone=dict(type="CSPDarknet", deepen_factor=1.0, widen_factor=1.0, norm_cfg=_norm, act_cfg=_act),
    neck=dict(
        type="YOLOXPAFPN",
        in_channels=[256, 512, 1024],
        out_channels=256,
        num_csp_blocks=3,
        norm_cfg=_norm,
        act_cfg=_act,
    ),
    bbox_head=dict(type="YOLOXHead", num_classes=80, in_channels=256, feat_channels=256, norm_cfg=_norm, act_cfg=_act),
    test_cfg=dict(score_thr=0.01, nms=dict(type="nms", iou_threshold=0.65)),
)

test_dataloader = dict(
    dataset=dict(
        type="CocoDataset",
        pipeline=[
            dict(type="LoadImageFromNDArray"),
            dict(type="Resize", scale=(640, 640), keep_ratio=True),
            dict(type="Pad", pad_to_square=True, pad_val=dict(img=(114.0, 114.0, 114.0))),
            dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
        ],
    )
)
