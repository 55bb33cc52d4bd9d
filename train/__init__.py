"""Training: Hydra configuration -> Lightning.

__main__.py     `python -m train`, the same as `live2diff train`
settings.py     the configuration, composed and checked
run.py          one run from start to finish: folder, model, data, trainer, resume
module.py       the diffusion objective as a LightningModule
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
progress.py     micro-steps and updates
stopping.py     Ctrl-C and TERM: save at the next update, then stop
report.py       metrics.csv and the lines on the terminal
toy_parts.py    the tiny model's autoencoder and depth net
"""
