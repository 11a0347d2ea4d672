"""A frozen encoder for tests: a tiny TorchScript program with random weights, its card, and made-up embeddings."""

import numpy as np
import polars as pl
import torch
import yaml
from torch import nn

from pipeline import files

PX, SIDE, WIDTH = 16, 2, 6
VECTORS = 1 + SIDE**2


class Tiny(nn.Module):
    """Squares of 8 pixels to WIDTH numbers each; their largest is the pooled vector."""

    def __init__(self):
        super().__init__()
        self.filters = nn.Conv2d(1, WIDTH, PX // SIDE, PX // SIDE)

    def forward(self, x):
        grown = torch.tanh(self.filters(x))
        return grown, grown.amax(dim=(2, 3))


def tiny(seed=0):
    torch.manual_seed(seed)
    return Tiny().eval()


def write_card(folder, name="tiny", seed=0, **changes):
    """`folder`/encoders/NAME.yaml and the program that it names; returns the network."""
    network, path = tiny(seed), folder / f"program-{seed}.pt"
    if not path.is_file():
        torch.jit.script(network).save(str(path))
    card = {"loader": "torchscript", "file": str(path.resolve()), "sha256": files.sha256(path), "px": PX, "channels": 1}
    card |= {"range": [0.0, 1.0], "output": "both", "pretrained_on": "none", **changes}
    (folder / "encoders").mkdir(exist_ok=True)
    (folder / f"encoders/{name}.yaml").write_text(yaml.safe_dump(card))
    return network


def made_up(data, name="tiny", side=SIDE, seed=0):
    """`data`/embeddings/NAME of made-up data (made_up_data): what the image's brightness says, and noise."""
    rng = np.random.default_rng(seed)
    index = pl.read_parquet(data / "images/index.parquet").select("dicom_id").sample(fraction=1.0, shuffle=True, seed=1)
    rows = pl.read_parquet(data / "images/index.parquet").select("dicom_id", "row")
    pixels = np.load(data / "images/pixels.npy")[index.join(rows, on="dicom_id", maintain_order="left")["row"]]
    grey = pixels.mean(axis=(1, 2), dtype=np.float64)
    vectors = 1 if side == 0 else 1 + side**2
    found = 0.2 * rng.standard_normal((len(grey), vectors, WIDTH)) + 50 * rng.random(WIDTH)
    found += ((grey - grey.mean()) / grey.std())[:, None, None]
    files.write_array(found.astype(np.float16), data / f"embeddings/{name}/packed.npy")
    numbered = index.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int32)).sort("dicom_id")
    files.write_parquet(numbered, data / f"embeddings/{name}/index.parquet")
    return found.astype(np.float16)
