"""Videos of any kind -> WebDataset shards of clean, short, single-shot clips (docs/dataset.md).

How one build runs, file by file:

    build.py      the pipeline
    sources/      what the arguments mean: a sorted list of inputs
    worklist.py   which source goes to which split and shard (decided before anything is decoded)
    dataset.py    the folder of a dataset: plan and work list; versions beside each other
    slices.py     a part of the work for one of several machines
    locks.py      who works on what
    children.py   one child process per source, watched
      worker.py     what happens inside the child:
      decode.py       open one file and nothing else, decode frame by frame
      probe.py        decode every frame: the truth about the file
      shots.py        cuts -> shots
      clips.py        shots -> clips at a constant frame rate
      encode.py       clips -> H.264 files (hdr.py, deinterlace.py: to 8-bit, progressive pictures)
      filters/        scores of each clip, and thresholds that drop it
    captions.py   captions by a model (captioner.py) for clips without one
    records.py    what is written about each clip and each input (schema.py, record.schema.json)
    shards.py     clip files -> one tar with a side-car
    columns.py    what the frozen nets of a model (nets.py) make of finished shards
    manifest.py   totals, near-duplicates, and index.py: one row per clip and per reason
    progress.py   what is said on the way

And of finished datasets (finished.py, members.py, look.py): check.py, report.py, show.py; bench.py measures.

Only `decode`, `probe`, `shots`, `encode` and `filters` touch unknown video; they run in the child and never
import torch.
"""
