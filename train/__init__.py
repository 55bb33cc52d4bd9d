"""Training: Hydra configuration -> Lightning.

__main__.py     `python -m train`, the same as `live2diff train`
settings.py     the configuration, composed and checked
checks.py       what is refused before anything heavy is loaded
model_group.py  what the model group may hold, and what of it is there
plan.py         --dry-run: what a run would do, need and lack
memory.py       how much memory a step will need
run.py          one run from start to finish: folder, model, data, trainer, resume
module.py       training as a LightningModule
objective.py    what is predicted, the distance to it, and its weight
trainable.py    which parameters are trained
noise.py        random draws that belong to a sample, not to the moment it is processed
order.py        sample number -> epoch, shard and clip: a pure function of the seed
data.py         batches in that order, for Lightning
samples.py      one sample: which frames of the clip, mirrored or not, with its caption or without
shards.py       what a dataset holds, without opening its tars
members.py      bytes and arrays out of tars, by offset
readers.py      frames out of one encoded clip: PyAV, decord, torchcodec
columns.py      which columns are read instead of frames, and whether they fit the model
encoding.py     batches -> latents, depth condition, text states
bench_data.py   how fast all this reads
checkpoints.py  saving and finding checkpoints
sharding.py     weights spread over the processes (FSDP2)
progress.py     micro-steps and updates
profiling.py    where the time goes
stopping.py     Ctrl-C and TERM: save at the next update, then stop
validation.py   the loss on clips kept apart; validation_clips.py: which; validation_video.py: as a video
report.py       metrics.csv and the lines on the terminal
throughput.py   clips per second, waiting, memory, MFU
flops.py        what a step computes, and what the device could
environment.py  with what, where and how a run was made
bench.py        our step against a plain one
toy_tasks.py    what makes the toy world's downloads:
toy_frames.py   rendered frames as training data
toy_vae.py      the autoencoder
toy_depth.py    the depth net
toy_image.py    text encoder and image models
toy_pack.py     the files that come with the package
ablate/         the paper's ablations in the toy world: `live2diff ablate`
"""
