"""The paper's ablations, trained and measured in the toy world: `live2diff ablate`.

run.py          a table from start to finish; again: goes on where it stopped
settings.py     conf/ablate, checked
rows.py         what the rows of a table are: how each is trained and streamed, and what the paper found
folder.py       what lies where, and what a rerun must agree with
data.py         cartoons to train on
budget.py       minutes -> updates
scenes.py       held-out scenes with their true translation, depth and flow
measure.py      the figures of one output
evaluate.py     the figures of a row, scene by scene
cache.py        Table 3: a stream with and without its cache
intervals.py    means over seeds and scenes, how sure they are
claims.py       what the paper claims, and whether it holds
picture.py      the first scene as every row shows it
show.py         the table, for the terminal and as Markdown
"""
