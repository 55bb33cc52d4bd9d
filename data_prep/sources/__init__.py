"""What the arguments of a build mean: a sorted list of inputs, each with what is known of it unopened.

listing.py  folders, globs, tables, tars and files -> sources
source.py   one input, and how its bytes are got at
places.py   local paths and URLs
tables.py   rows of CSV, TSV, JSON lines and Parquet
tars.py     videos of a WebDataset tar
"""

from data_prep.sources.listing import list_sources
from data_prep.sources.source import SUFFIXES, Source, SourceError

__all__ = ["SUFFIXES", "Source", "SourceError", "list_sources"]
