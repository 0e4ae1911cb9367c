"Flows on whole levels: right for any shape, levels and context, in both directions."

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flowbook.check import check_bijection
from flowbook.data import mnist10k
from flowbook.files import load, save
from flowbook.parts import IMAGES
from flowbook.pixelflow import (
    Bins,
    CausalConv,
    CausalPixels,
    Hurdle,
    by_pixel,
    generate,
    pixelflow,
)
from flowbook.pixels import dequantize, image_bits, levels_of
from flowbook.train import fit
from support import randomize
from support import run_shell as run

SMALL = dict(width=6, hidden=8, embed=3, near=5)
SHAPES = [(1, 1, 1), (1, 3, 5), (3, 4, 2), (2, 1, 6), (5, 2, 2)]


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def small(shape, levels=5, size=0.7, **options):
    torch.manual_seed(0)
    return randomize(pixelflow(shape, levels=levels, **(SMALL | options)), size=size)


def images(shape, n=6, levels=5, dtype=torch.float64):
    x = torch.randint(levels, (n, *shape), generator=gen())
    return dequantize(x, gen(), dtype, levels)


@pytest.mark.parametrize('hurdle', [True, False])
@pytest.mark.parametrize('shape', SHAPES)
def test_contract(shape, hurdle):
    flow = small(shape, hurdle=hurdle, context_dim=2).double()
    z = flow.base.sample((3,), gen())
    c = torch.randn(3, 2, generator=gen(), dtype=torch.float64)
    assert check_bijection(flow.bijection, z, c, tol=1e-9).points == 3


@pytest.mark.parametrize('levels', [2, 3, 17, 256, 1000])
def test_any_number_of_levels(levels):
    flow = small((1, 3, 3), levels=levels).double()
    x = images((1, 3, 3), levels=levels)
    z, log_det = flow.bijection.inverse(x)
    back, log_det_back = flow.bijection(z)
    torch.testing.assert_close(back, x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_det_back, -log_det)
    assert levels_of(flow) == levels


@pytest.mark.parametrize('hurdle', [True, False])
def test_probabilities_of_all_images_add_up_to_one(hurdle):
    flow = small((1, 2, 2), levels=3, hurdle=hurdle).double()
    every = torch.cartesian_prod(*[torch.arange(3.0)] * 4).double() + 0.5
    total = flow.log_prob(every.reshape(-1, 1, 2, 2)).exp().sum().item()
    assert abs(total - 1) < 1e-9


def test_samples_have_the_frequencies_of_the_density():
    flow = small((1, 1, 2), levels=3).double()
    every = torch.cartesian_prod(*[torch.arange(3.0)] * 2).double() + 0.5
    p = flow.log_prob(every.reshape(-1, 1, 1, 2)).exp()
    n = 20_000
    x = flow.sample((n,), generator=gen()).floor().flatten(1)
    counts = torch.bincount((3 * x[:, 0] + x[:, 1]).long(), minlength=9)
    chi = ((counts - n * p).square() / (n * p)).sum().item()
    assert chi < 30  # 8 degrees of freedom


@pytest.mark.parametrize('shape', SHAPES)
def test_both_ways_of_sampling_agree_and_no_number_reads_a_later_one(shape):
    flow = small(shape).double()
    layer = flow.bijection
    z = flow.base.sample((4,), gen())
    with torch.no_grad():
        for found, wanted in zip(generate(layer, z), by_pixel(layer, z)):
            torch.testing.assert_close(found, wanted)
        params = layer.net(images(shape))
        c, h, w = shape
        order = torch.arange(c * h * w).reshape(h, w, c).movedim(-1, 0)
        for k in range(c * h * w):
            x = images(shape)
            x[:, order == k] = (x[:, order == k] + 1) % 5
            changed = (layer.net(x) != params).any(-1).any(0)
            assert not changed[order <= k].any()


def test_noise_costs_nothing_and_whole_images_have_the_same_density():
    flow = small((1, 4, 4)).double()
    x = images((1, 4, 4))
    for moved in (x.floor(), x.floor() + 0.999, x.floor() + 0.3):
        torch.testing.assert_close(flow.log_prob(moved), flow.log_prob(x))


@pytest.mark.parametrize('shape', [(1, 4, 4), (3, 3, 3)])
def test_single_precision_finds_every_level_and_extreme_weights_stay_finite(shape):
    flow = small(shape, levels=256, size=3.0)
    x = images(shape, levels=256, dtype=torch.float32)
    z, log_det = flow.bijection.inverse(x)
    assert z.isfinite().all() and log_det.isfinite().all()
    assert (log_det + flow.base.log_prob(z)).max() <= 1e-3
    floor = math.log(1e-6) * 2 * math.prod(shape)
    assert (log_det + flow.base.log_prob(z)).min() > floor
    whole = x.floor()
    z, _ = small(shape, levels=256, size=0.3).bijection.inverse(whole)
    back, _ = small(shape, levels=256, size=0.3).bijection(z)
    assert torch.equal(back.floor(), whole)
    drawn = flow.sample((50,), generator=gen())
    z, _ = flow.bijection.inverse(drawn)
    assert (flow.bijection(z)[0].floor() == drawn.floor()).double().mean() > 0.999


def test_a_level_that_never_occurs_shares_the_piece_of_the_next():
    x = torch.tensor([0, 2, 3, 6])[torch.randint(4, (40, 1, 3, 3), generator=gen())]
    flow = pixelflow((1, 3, 3), levels=8, **SMALL)
    flow.initialize(x.float())
    assert flow.bijection.net.heads[0].source.tolist() == [1, 1, 2, 3, 5, 5, 6]
    nn.init.normal_(flow.bijection.net.heads[0].out.weight, generator=gen())
    mass = flow.bijection.elementwise.masses(flow.bijection.net(x.float()))
    assert torch.equal(mass[..., 1], mass[..., 2])
    assert torch.equal(mass[..., 5], mass[..., 6])
    assert not torch.equal(mass[..., 4], mass[..., 5])


def test_fit_save_load_and_score(tmp_path):
    x = torch.randint(0, 4, (200, 2, 3, 3), generator=gen(), dtype=torch.uint8)
    x[..., 1:] = x[..., :1]  # columns repeat the first
    flow = pixelflow((2, 3, 3), levels=4, **SMALL)
    before = image_bits(flow, x).mean()
    options = dict(epochs=8, batch_size=20, lr=1e-2, valid=0)
    fit(flow, x, prepare=lambda x: dequantize(x, levels=4), **options)
    after = image_bits(flow, x).mean()
    assert after < 0.6 * before
    save(flow, tmp_path / 'f.safetensors')
    again = load(tmp_path / 'f.safetensors')
    assert torch.equal(image_bits(again, x), image_bits(flow, x))
    source = again.bijection.net.heads[0].source
    assert torch.equal(source, flow.bijection.net.heads[0].source)


def test_a_context_decides():
    x = torch.randint(0, 4, (300, 1, 2, 2), generator=gen(), dtype=torch.uint8)
    c = (x[:, 0, 0] > 1).float()[:, :1]
    flow = pixelflow((1, 2, 2), levels=4, context_dim=1, **SMALL)
    prepare = lambda x: dequantize(x, levels=4)  # noqa: E731
    fit(flow, x, c, prepare=prepare, epochs=30, batch_size=30, lr=1e-2, valid=0)
    drawn = flow.sample((200,), torch.tensor([[0.0], [1.0]]), generator=gen())
    share = (drawn[..., 0, 0, 0].floor() > 1).float().mean(0)
    assert share[0] < 0.1 and share[1] > 0.9


def test_bfloat16_networks_give_full_precision_masses():
    flow = small((1, 4, 4), levels=256, size=0.2)
    x = images((1, 4, 4), levels=256, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        low = flow.log_prob(x)
    assert low.dtype == torch.float32
    assert (low - flow.log_prob(x)).abs().max() < 1.0
    assert not torch.equal(low, flow.log_prob(x))


@pytest.mark.parametrize(
    'make, name',
    [
        (lambda: Bins(1), 'levels'),
        (lambda: Bins(2.5), 'levels'),
        (lambda: Hurdle(4, least=0.3), 'least'),
        (lambda: Bins(4, least=0.0), 'least'),
        (lambda: pixelflow((1, 3, 3), width=0), 'width'),
        (lambda: pixelflow((1, 3, 3), hidden=-1), 'hidden'),
        (lambda: pixelflow((1, 3, 3), near=-1), 'near'),
        (lambda: pixelflow((1, 3, 3), blocks=-1), 'blocks'),
        (lambda: pixelflow((3, 3)), 'shape'),
        (lambda: pixelflow((1, 0, 3)), 'shape'),
        (lambda: pixelflow((1, 3, 3)).log_prob(torch.zeros(2, 1, 3, 4)), 'x'),
        (lambda: pixelflow((1, 3, 3)).log_prob(torch.full((1, 1, 3, 3), 300.0)), 'x'),
        (lambda: pixelflow((1, 3, 3)).log_prob(torch.full((1, 1, 3, 3), -1.0)), 'x'),
        (
            lambda: pixelflow((1, 3, 3)).log_prob(torch.full((1, 1, 3, 3), math.nan)),
            'x',
        ),
    ],
)
def test_errors_name_the_argument(make, name):
    with pytest.raises(ValueError, match=f'^{name}: '):
        make()


def test_images_scaled_to_one_are_refused():
    x = torch.rand(20, 1, 3, 3, generator=gen())
    with pytest.raises(ValueError, match='^x: expected pixel values'):
        fit(pixelflow((1, 3, 3), **SMALL), x, epochs=1, valid=0)


def test_a_copy_is_independent():
    flow = small((1, 3, 3))
    twin = copy.deepcopy(flow)
    nn.init.zeros_(twin.bijection.net.place)
    assert flow.bijection.net.place.any()
    assert isinstance(flow.bijection, CausalPixels)
    assert isinstance(flow.bijection.net, CausalConv)


@pytest.mark.parametrize('channels, levels', [(1, 256), (3, 256), (1, 4)])
def test_the_shell_trains_scores_and_samples(tmp_path, monkeypatch, channels, levels):
    monkeypatch.chdir(tmp_path)
    x = torch.randint(levels, (60, channels, 4, 4), generator=gen())
    x[..., 2:] = 0
    np.save('x.npy', x.numpy().astype('uint8'))
    grey = [] if levels == 256 else ['--levels', levels]
    small = ['--layers', 1, '--hidden', 6, 8, '--epochs', 2, '--bfloat16']
    assert run('fit', 'pixelflow', 'x.npy', '--out', 'r', *small, *grey) == 0
    record = json.loads(Path('r/run.json').read_text())
    assert record['job']['betas'] == [0.9, 0.99] and record['job']['layers'] == 1
    assert run('sample', 'r', '--n', 7, '--out', 'new.npy') == 0
    drawn = np.load('new.npy')
    assert drawn.shape == (7, channels, 4, 4) and drawn.max() < levels
    assert run('score', 'r', 'x.npy') == 0


@pytest.mark.parametrize(
    'words, message',
    [
        (['--scales', 2], 'scales: pixelflow has no such setting'),
        (['--noise', 'learned'], 'noise: pixelflow has no such setting'),
        (['--hidden', 8], 'hidden: expected two widths, features and heads'),
        (['--order', 'rows'], 'order: expected'),
    ],
)
def test_the_shell_names_what_pixelflow_lacks(tmp_path, capsys, words, message):
    assert run('fit', 'pixelflow', 'mnist10k', '--out', tmp_path / 'r', *words) == 2
    assert message in capsys.readouterr().err


def test_labels_on_the_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = mnist10k('test')
    monkeypatch.setitem(IMAGES, 'mnist10k', lambda part: (x[:40], y[:40]))
    small = ['--layers', 1, '--hidden', 4, 6, '--epochs', 1, '--labels']
    assert run('fit', 'pixelflow', 'mnist10k', '--out', 'r', *small) == 0
    assert run('sample', 'r', '--n', 10, '--out', 'new.npy') == 0
    assert np.load('new.npy').shape == (10, 1, 28, 28)
