"""Real data and pretrained models that arrive inside packages: one catalog, one cache, checked by SHA-256.

>>> from covector import data
>>> data.list()[0].kind
'graph'
"""

from covector.data.access import get, load
from covector.data.arrays import Arrays
from covector.data.cache import cache_folder
from covector.data.catalog import Entry, entry
from covector.data.catalog import entries as list
from covector.data.corpus import Corpus
from covector.data.graph import Graph
from covector.data.pretrained import Pretrained

__all__ = ["Arrays", "Corpus", "Entry", "Graph", "Pretrained", "cache_folder", "entry", "get", "list", "load"]
