"""Folders of unknown videos -> WebDataset shards of clean, short, single-shot clips.

How one build runs, file by file:

    sources.py    what the arguments mean: a sorted list of video files
    worklist.py   which source goes to which split and shard (decided before anything is decoded)
    dataset.py    the folder of a dataset: its plan, its shards, its index and its manifest
    children.py   one child process per source, with a time limit
      worker.py     what happens inside the child:
      decode.py       open one file and nothing else, decode frame by frame
      probe.py        decode every frame: the truth about the file
      shots.py        cuts -> shots
      clips.py        shots -> clips at a constant frame rate
      encode.py       clips -> H.264 files
    records.py    what is written about each clip and each input
    shards.py     clip files -> one tar with a side-car
    build.py      the pipeline
    progress.py   what the terminal shows

Only `decode`, `probe`, `shots` and `encode` touch video; they run in the child and never import torch.
"""
