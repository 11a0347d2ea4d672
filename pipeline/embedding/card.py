"""Cards of frozen image encoders: encoders/NAME.yaml says what a model is, what it eats, and what it has seen before.

Weights are not part of the project: a card names a file of the user's. docs/encoders.md explains every entry.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline import files, strict
from pipeline.errors import InputError

FOLDER = Path("encoders")
Loader = Literal["torchvision", "timm", "huggingface", "torchxrayvision", "torchscript", "export"]
Seen = Literal["images", "labels", "reports"]
# The official split of MIMIC-CXR: an entry of `pretrained_on` -> the parts that the encoder has seen.
OFFICIAL = {"official_train": ("train",), "official_train_validate": ("train", "validate")}
PACKAGE = "package:"  # file: package:NAME/PATH is a file of an installed Python package


@dataclass(frozen=True)
class Card:
    """What encoders/NAME.yaml says; `name` is the file's stem. Entries with a default here may be left out there."""

    name: str
    loader: Loader
    px: int  # height and width of what it eats
    pretrained_on: Any  # none, imagenet, or {mimic_cxr: none | all | an entry of OFFICIAL | LIST.csv | unknown}
    model: str = ""  # the architecture, by the loader's name for it
    file: str | None = None  # the weights: a file, or the folder that save_pretrained wrote
    sha256: str | None = None  # of that file; of a folder's model.safetensors
    key: str | None = None  # the entry of the file that holds the weights, where it holds more
    ignore: tuple[str, ...] = ()  # beginnings of names of weights that are not used (a classifier's)
    in_order: bool = False  # weights have other names than the model's, but stand in its order
    options: Any = None  # what the loader's constructor gets beside its defaults
    channels: int = 3  # grey is repeated
    range: tuple[float, ...] = ()  # what black and white become
    mean: tuple[float, ...] = ()  # or: of grey in [0, 1], one number or one a channel
    std: tuple[float, ...] = ()
    output: Literal["pooled", "tokens", "both"] = "both"
    grid: int | None = None  # the map is averaged to so many places a side; null: as it comes
    seen: tuple[Seen, ...] = ()  # what of MIMIC-CXR, by the encoder or by a model that taught it
    licence: str = ""
    citation: str = ""
    source: str = ""  # where the weights are had

    def __post_init__(self) -> None:
        if min(self.px, self.channels, self.grid or 1) < 1:
            raise ValueError("px, channels and grid: must be at least 1")
        if bool(self.range) == bool(self.mean) or bool(self.mean) != bool(self.std):
            raise ValueError("range: a card has either range or mean and std")
        if self.range and (len(self.range) != 2 or self.range[0] == self.range[1]):
            raise ValueError(f"range: must be two numbers that differ, is {list(self.range)}")
        if not all(len(each) in (0, 1, self.channels) for each in (self.mean, self.std)) or not all(self.std):
            raise ValueError(f"mean and std: must have 1 or {self.channels} numbers, std none of 0")
        if not isinstance(self.options, dict | None) or (self.in_order and self.ignore):
            raise ValueError("options: must be a mapping, and in_order goes without ignore")
        known = ("none", "all", "unknown", *OFFICIAL)
        mimic = self.mimic_cxr
        if not isinstance(mimic, str) or (mimic not in known and not mimic.endswith((".csv", ".csv.gz"))):
            raise ValueError(
                f"pretrained_on: must be none, imagenet or {{mimic_cxr: {' | '.join(known)} | LIST.csv}}, "
                f"is {self.pretrained_on!r}"
            )
        if (mimic == "none") == bool(self.seen):
            raise ValueError("seen: says what of MIMIC-CXR was seen, where pretrained_on says that something was")

    @property
    def mimic_cxr(self) -> Any:
        """Whose images of MIMIC-CXR the encoder has seen: `none`, `all`, an entry of OFFICIAL, a list, `unknown`."""
        if self.pretrained_on in ("none", "imagenet"):
            return "none"
        if isinstance(self.pretrained_on, dict) and set(self.pretrained_on) == {"mimic_cxr"}:
            return self.pretrained_on["mimic_cxr"]
        return None

    def error(self, what: str, why: Exception | None = None) -> InputError:
        """What is wrong, as a line that names the card; `why` is what a library said of it."""
        said = f": {' '.join(str(why).split())[:200]}" if why else ""
        return InputError(f"{FOLDER / self.name}.yaml: {what}{said}")


def read_card(name: str, folder: Path = FOLDER) -> Card:
    """The card `folder`/NAME.yaml.

    Raises InputError of one line: no such card (with the nearest name), no YAML, an entry that is missing, unknown or
    not as it must be.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = [each.stem for each in sorted(folder.glob("*.yaml"))]
        raise InputError(f"{path}: no such card{strict.meant(name, known)}; there are: {', '.join(known)}")
    try:
        content = strict.read_yaml(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping")
    defaults = {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for field in dataclasses.fields(Card)
        if field.default is not dataclasses.MISSING
    }
    try:
        card: Card = strict.build(Card, {"name": name, **defaults, **content}, "")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return card


def weights_file(card: Card) -> Path:
    """The file whose bytes are the encoder, checked: it is there and has the card's SHA-256.

    Raises InputError where the card names none, it is not there, or its digest is not the card's.
    """
    source = f" ({card.source})" if card.source else ""
    if card.file is None:
        raise card.error(f"file: null; name the file of its weights{source}")
    path = _located(card)
    if card.loader == "huggingface":
        if not path.is_dir():
            raise card.error(f"file: {path}: no such folder{source}")
        if not (path / "model.safetensors").is_file():
            pickled = "; its *.bin is a pickle, which is not loaded" if any(path.glob("*.bin")) else ""
            raise card.error(f"file: {path} holds no model.safetensors{pickled}")
        path = path / "model.safetensors"
    if not path.is_file():
        raise card.error(f"file: {path}: not found{source}")
    found = files.sha256(path)
    if card.sha256 is None:
        raise card.error(f"sha256: null; that of {path} is {found}")
    if found != card.sha256:
        raise card.error(f"sha256: {path} has {found}, not {card.sha256}")
    return path


def _located(card: Card) -> Path:
    """The path that `file` means."""
    name = str(card.file)
    if not name.startswith(PACKAGE):
        return Path(name).expanduser()
    package, _, below = name.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise card.error(f"file: the Python package {package} is not installed")
    return Path(spec.origin).parent / below
