"""DWPose: YOLOX and RTMPose by mmdet and mmpose."""
