"""What `training.precision: auto` means, and that a run is filed under it."""

import dataclasses

import pytest
import torch

from pipeline.training import machine
from pipeline.training.machine import native_bf16, precision
from pipeline.training.run import make_run
from pipeline.training.store import Store, data_fingerprint
from tests.support.runs import grid, silent
from tests.support.small import ENCODERS

RESNET = dataclasses.replace(ENCODERS, cnn="resnet18")


@pytest.fixture(params=[True, False], ids=["bf16", "no bf16"])
def native(request, monkeypatch):
    """A machine without a GPU whose CPU multiplies bf16, and one whose does not."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(machine, "native_bf16", lambda: request.param)
    return request.param


def test_auto_is_bf16_where_a_resnet_gains_from_it_and_never_for_the_narrow_cnn(training, native):
    auto = dataclasses.replace(training, precision="auto", device="auto")
    assert precision(auto, RESNET) == ("bf16" if native else "fp32")
    assert precision(auto, ENCODERS) == "fp32"
    for wanted in ("fp32", "bf16"):
        assert precision(dataclasses.replace(auto, precision=wanted), RESNET) == wanted


def test_auto_is_bf16_on_a_gpu_and_not_for_a_run_on_the_cpu_beside_it(training, native, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    of = {device: dataclasses.replace(training, precision="auto", device=device) for device in ("auto", "cuda", "cpu")}
    assert [precision(of[device], ENCODERS) for device in ("auto", "cuda", "cpu")] == ["bf16", "bf16", "fp32"]


@pytest.mark.parametrize("has", ["avx512_bf16", "amx_bf16", "avx512_f"])
def test_a_cpu_multiplies_bf16_where_torch_says_so(has, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", has: True})
    assert native_bf16() == (has != "avx512_f")


def test_runs_are_filed_under_what_auto_means_and_the_narrow_cnns_alike_on_every_cpu(tmp_path, training, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    store, filed = Store(tmp_path, "data"), {}
    for cnn in ("narrow", "resnet18"):
        for native in (True, False):
            monkeypatch.setattr(machine, "native_bf16", lambda native=native: native)
            (spec, *_) = grid(training, encoders=dataclasses.replace(ENCODERS, cnn=cnn))
            filed[cnn, native] = store.identity(spec)["spec"]["training"]["precision"], store.folder(spec)
    assert filed["narrow", True] == filed["narrow", False]
    assert {filed[key][0] for key in filed} == {"fp32", "bf16"}
    assert filed["resnet18", True][0] == "bf16"
    assert filed["resnet18", True][1] != filed["resnet18", False][1]


def test_a_resnets_run_is_autocast_to_what_auto_means(data, tmp_path, training, native, monkeypatch):
    """Its convolutions' maps have the precision, and lie channels last."""
    (_, spec) = grid(training, "resnet", encoders=RESNET, batch_size=64, max_epochs=1)
    seen = set()

    def look(module, given, found):
        if isinstance(module, torch.nn.Conv2d) and len(found):
            seen.add((found.dtype, found.is_contiguous(memory_format=torch.channels_last)))

    hook = torch.nn.modules.module.register_module_forward_hook(look)
    try:
        make_run(spec, Store(tmp_path, data_fingerprint(data)), data, silent)
    finally:
        hook.remove()
    assert seen == {(torch.bfloat16 if native else torch.float32, True)}
