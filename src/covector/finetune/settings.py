"""Settings of a fine-tuning run, with defaults that suit each method."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from covector.errors import ArgumentError

__all__ = ["FEDERATED", "METHODS", "PRESETS", "Settings"]

# What a method is, and its defaults, chosen by runs on the validation split of the built-in sentiment data. For all
# zeroth-order methods one number decides: how far a query steps on average, lr / (clients x local_steps) for sketch-zo,
# lr / clients for kseed, lr for mezo. 1e-4, decaying, was better than 2e-4 and 2.5e-4; 2.7e-4 is what curvature,
# gradient and noise measured at the base model would allow at first.
METHODS: dict[str, dict[str, Any]] = {
    "sketch": {
        "about": "backpropagation projected onto N numbers, averaged over clients, Adam on the N numbers",
        "rounds": 20, "local_steps": 1, "seeds": 4096, "lr": 8e-4, "eps": 2.0**-8, "schedule": "constant",
    },
    "sketch-zo": {
        "about": "forward passes only, directions in the same N numbers, averaged over clients",
        "rounds": 20, "local_steps": 2, "seeds": 4096, "lr": 8e-4, "eps": 2.0**-8, "schedule": "linear",
    },
    "kseed": {
        "about": "FedKSeed: a pool of K seeds, local zeroth-order steps, scalars only",
        "rounds": 20, "local_steps": 2, "seeds": 4096, "lr": 4e-4, "eps": 2.0**-8, "schedule": "linear",
    },
    "kseed-pro": {
        "about": "FedKSeed-Pro: as kseed, seeds with large scalars drawn more often",
        "rounds": 20, "local_steps": 2, "seeds": 4096, "lr": 4e-4, "eps": 2.0**-8, "schedule": "linear",
    },
    "mezo": {
        "about": "one machine, all data together, zeroth-order steps",
        "rounds": 20, "local_steps": 16, "seeds": 0, "lr": 1e-4, "eps": 2.0**-8, "schedule": "linear",
    },
    "backprop": {
        "about": "one machine, all data together, AdamW on all parameters: the ceiling",
        "rounds": 20, "local_steps": 4, "seeds": 0, "lr": 2e-5, "eps": 2.0**-8, "schedule": "constant",
    },
    "lora": {
        "about": "FedAvg of LoRA adapters (PEFT), AdamW at the clients: the usual way to save bytes",
        "rounds": 20, "local_steps": 1, "seeds": 0, "lr": 1e-3, "eps": 2.0**-8, "schedule": "constant",
    },
}  # fmt: skip
ONE_MACHINE = ("mezo", "backprop")
# the methods whose clients exchange messages of the protocol, and may screen, noise and run on any engine
FEDERATED = ("sketch", "sketch-zo", "kseed", "kseed-pro")

# what a method brings its own defaults for
TUNED = ("rounds", "local_steps", "seeds", "lr", "eps", "schedule")
CHOICES = {
    "wire": ("compact", "faithful"),
    "schedule": ("constant", "linear", "cosine"),
    "screen_policy": ("clip", "drop"),
    "late": ("refuse", "apply"),
}


@dataclass(frozen=True)
class Settings:
    """Everything that decides the outcome of a run; zeros stand for the method's own defaults.

    Args:
        model: catalog name or local Hugging Face folder.
        data: catalog name of a corpus, or a JSONL file.
        by: field of the JSONL whose value names the client; ignored for built-in corpora with clients.
        method: one of :data:`METHODS`.
        rounds: communication rounds.
        local_steps: steps a client takes in a round.
        batch_size: examples a step.
        seeds: size of the pool: K seeds, or the N numbers of a sketch.
        lr: learning rate.
        schedule: of the learning rate over the rounds: ``"constant"``, ``"linear"`` or ``"cosine"``, down to zero.
        eps: step of finite differences.
        wire: ``"compact"`` or, for kseed, ``"faithful"``.
        clients: at most so many clients a round; ``None``: all.
        examples: at most so many training examples a client; ``None``: all.
        test_examples: at most so many test examples a client; ``None``: all.
        check_examples: validation examples a client looked at during training.
        check_every: rounds between two looks.
        max_length: most tokens of an example.
        dtype: ``"float32"`` or ``"bfloat16"``.
        device: ``"cpu"`` or a CUDA device.
        seed: of everything random, but for the noise of ``dp_noise``.
        dp_noise: noise multiplier sigma of differential privacy; 0 adds none. Clients then weigh the same.
        dp_clip: C, what every value a client releases is clipped to before noise of deviation sigma C is added:
            the magnitude of a scalar, for ``sketch`` the Euclidean norm of its vector; 0 is off.
        dp_delta: at which epsilon is reported.
        screen_bound: the server bounds scalars (for ``sketch`` norms) at so many times their running median; 0 is
            off.
        screen_policy: ``"clip"`` them to the bound or ``"drop"`` them.
        late: what the server does with a reply to a closed round: ``"refuse"`` it, or ``"apply"`` it with a weight
            halved for every round it is late. In one process nothing is late.

    Raises:
        ArgumentError: a value out of range, or privacy for a method whose clients send nothing of the protocol;
            the message names it.

    >>> Settings(method="kseed").lr == METHODS["kseed"]["lr"]
    True
    """

    model: str = "smollm2-135m-instruct"
    data: str = "sentiment"
    by: str = "client"
    method: str = "sketch"
    rounds: int = 0
    local_steps: int = 0
    batch_size: int = 16
    seeds: int = 0
    lr: float = 0.0
    schedule: str = ""
    eps: float = 0.0
    wire: str = "compact"
    clients: int | None = None
    examples: int | None = None
    test_examples: int | None = None
    check_examples: int = 24
    check_every: int = 5
    max_length: int = 48
    dtype: str = "float32"
    device: str = "cpu"
    seed: int = 0
    dp_noise: float = 0.0
    dp_clip: float = 0.0
    dp_delta: float = 1e-5
    screen_bound: float = 64.0
    screen_policy: Literal["clip", "drop"] = "clip"
    late: Literal["refuse", "apply"] = "refuse"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ArgumentError("method", self.method, "one of " + ", ".join(map(repr, METHODS)))
        for name in TUNED:
            if getattr(self, name) in (0, ""):
                object.__setattr__(self, name, METHODS[self.method][name])
        for name in ("rounds", "local_steps", "batch_size", "check_every", "max_length"):
            if getattr(self, name) < 1:
                raise ArgumentError(name, getattr(self, name), "a whole number of at least 1")
        for name in ("clients", "examples", "test_examples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ArgumentError(name, value, "a whole number of at least 1, or nothing for all")
        for name in ("lr", "eps"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ArgumentError(name, getattr(self, name), "a positive number")
        self._check_privacy()
        if self.screen_bound != 0.0 and not 1.0 < self.screen_bound < float("inf"):
            raise ArgumentError("screen_bound", self.screen_bound, "a number above 1, or 0 for off")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ArgumentError(name, getattr(self, name), " or ".join(map(repr, choices)))

    def _check_privacy(self) -> None:
        for name in ("dp_noise", "dp_clip"):
            value = getattr(self, name)
            if not 0.0 <= value < float("inf"):
                raise ArgumentError(name, value, "a positive number, or 0 for off")
            if value and self.method not in FEDERATED:
                raise ArgumentError(name, value, f"0 with method={self.method!r}: it is for " + ", ".join(FEDERATED))
        if self.dp_noise and not self.dp_clip:
            raise ArgumentError("dp_clip", self.dp_clip, "a positive number: the noise is dp_noise times dp_clip")
        if not 0.0 < self.dp_delta < 1.0:
            raise ArgumentError("dp_delta", self.dp_delta, "a probability between 0 and 1, such as 1e-5")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-ready values.

        >>> Settings().to_dict()["method"]
        'sketch'
        """
        return dataclasses.asdict(self)

    def changed(self, **values: Any) -> Settings:
        """A copy with other values; a new method brings its own defaults for what is not given.

        >>> Settings(rounds=3).changed(method="kseed").lr == METHODS["kseed"]["lr"]
        True
        """
        own = set(TUNED)
        if values.get("method") in METHODS and values["method"] not in FEDERATED:
            own |= {"dp_noise", "dp_clip"}  # they have no meaning there
        kept = {k: v for k, v in self.to_dict().items() if not ("method" in values and k in own)}
        return Settings(**{**kept, **values})


# what a preset sets, the methods it is compared with, and for how many rounds if not for as many
PRESETS: dict[str, dict[str, Any]] = {
    # forward passes cost more time for less; six rounds of them keep the whole demo under ten minutes
    "demo": {
        "settings": {"rounds": 10, "test_examples": 75}, "compare": ("sketch-zo", "kseed"), "compare_rounds": 6,
    },
    "quick": {"settings": {"rounds": 3, "test_examples": 24, "examples": 96, "check_every": 3}, "compare": ()},
    "full": {"settings": {}, "compare": ("sketch-zo", "kseed", "kseed-pro", "lora", "mezo", "backprop")},
}  # fmt: skip
