"""Real data and pretrained models that arrive inside packages: one catalog, one cache, checked by SHA-256.

>>> from covector import data
>>> data.list()[0].kind
'model'
"""

from covector.data.access import get, load
from covector.data.cache import cache_folder
from covector.data.catalog import Entry
from covector.data.catalog import entries as list
from covector.data.corpus import Corpus
from covector.data.pretrained import Pretrained

__all__ = ["Corpus", "Entry", "Pretrained", "cache_folder", "get", "list", "load"]
