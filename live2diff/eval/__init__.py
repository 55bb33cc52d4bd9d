"""Measuring translated videos: metrics that say exactly what they are. See docs/evaluation.md.

run.py          the whole: find, translate, measure, write
settings.py     what can be set
clips.py        videos by name and address: files, folders of pictures, datasets
captions.py     what a video is translated with
translate.py    sources through an exported model
pairs.py        source and output, frame by frame, of one size
measure.py      metrics over pairs: values, means, intervals
results.py      results.json
compare.py      how figures changed between two results
bootstrap.py    intervals
paper.py        the paper's figures, and what is known of them
report/         HTML and Markdown

catalogue.py    the metrics by name
metric.py       what every metric is
warp_error.py, flicker.py, clip_temporal.py, depth_mse.py, latency.py
flow.py         optical flow estimators
occlusion.py    what of a frame is seen in the next one
"""
