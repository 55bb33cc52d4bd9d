"""Training: Hydra configuration -> Lightning.

__main__.py     `python -m train`, the same as `live2diff train`
settings.py     the configuration, composed and checked
run.py          one run from start to finish: folder, model, data, trainer, resume
module.py       the diffusion objective as a LightningModule
noise.py        random draws that belong to a sample, not to the moment it is processed
data.py         shards -> batches, in an order that follows from the seed and the number of readers
shards.py       finding, counting and reading shards
clips.py        16 frames out of one encoded clip
checkpoints.py  saving and finding checkpoints
progress.py     micro-steps and updates
stopping.py     Ctrl-C and TERM: save at the next update, then stop
report.py       metrics.csv and the lines on the terminal
toy_parts.py    the tiny model's autoencoder and depth net
"""
