"""DWPose: YOLOX and RTMPose through mmdet and mmpose."""
