"What must not change a result: units, zeros, the order of rows, batch sizes, modes."

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from flowbook.autoregressive import maf
from flowbook.core import Compose, Flow, Standardize, StandardNormal
from flowbook.coupling import Coupling, nice
from flowbook.described import Described
from flowbook.files import load, save
from flowbook.gan import GAN
from flowbook.iaf import iaf
from flowbook.realnvp import Affine, realnvp
from flowbook.train import evaluate, fit
from flowbook.vae import VAE
from support import normal

FLOWS = {'nice': nice, 'realnvp': realnvp, 'maf': maf, 'iaf': iaf}
flows = pytest.mark.parametrize('name', FLOWS)


def small(name='realnvp', dim=2, **options):
    torch.manual_seed(0)
    return FLOWS[name](dim, **dict(layers=2, hidden=(16,)) | options)


def conditional(n=2000):
    "x = (u, −u) + noise, given u; double precision."
    u = normal(n, 1)
    x = torch.cat([u, -u], 1) + 0.2 * normal(n, 2, seed=1)
    return x, u


RUN = dict(epochs=4, lr=5e-3, batch_size=128)
UNITS = {'kelvin': (300, 5), 'pascal': (1e5, 1e3), 'tiny': (0, 1e-6), 'far': (1e9, 1)}


@pytest.mark.parametrize('shift, scale', UNITS.values(), ids=UNITS)
@flows
def test_the_unit_of_a_context_changes_nothing(name, shift, scale):
    x, c = conditional()
    best = [
        fit(small(name, context_dim=1), x, given, **RUN).best
        for given in (c, shift + scale * c)
    ]
    assert best[0] < 2.7, 'the condition is read'
    assert abs(best[0] - best[1]) < 2e-3


@pytest.mark.parametrize('kind', [VAE, GAN])
def test_nor_does_it_in_models_without_a_density(kind):
    x, c = conditional(500)
    losses = []
    for given in (c, 300 + 5 * c, 1e9 + c):
        torch.manual_seed(0)
        history = fit(kind(2, context_dim=1), x, given, epochs=2)
        losses.append(history.train[-1])
    assert max(losses) - min(losses) < 2e-3


def test_a_constant_context_is_left_alone():
    x, c = conditional(500)
    both = torch.cat([c, torch.full_like(c, 7.3)], 1)
    assert math.isfinite(fit(small(context_dim=2), x, both, epochs=1).best)


SHIFTS = [1e6, 2_459_000.0, 1e9]


@pytest.mark.parametrize('shift', SHIFTS)
@flows
def test_a_shift_of_the_data_changes_nothing(name, shift):
    x = normal(1000, 2) * torch.tensor([0.01, 1.0])
    near, far = small(name), small(name)
    a, b = fit(near, x, **RUN), fit(far, x + shift, **RUN)
    assert abs(a.best - b.best) < 5e-3
    found = evaluate(far, x + shift) - evaluate(near, x)
    assert found.abs().max() < 0.02 if shift < 1e9 else found.mean().abs() < 0.02
    s = far.sample((2000,), generator=torch.Generator().manual_seed(0))
    assert s.dtype == torch.float64 and len(s[:, 0].unique()) > 1900
    same = near.sample((2000,), generator=torch.Generator().manual_seed(0))
    assert torch.allclose((s - shift).std(0), same.std(0).double(), rtol=0.02)


def test_a_shifted_flow_survives_files_and_precisions(tmp_path):
    x = 2_459_000 + 0.01 * normal(500, 2)
    flow = small()
    fit(flow, x, epochs=1)
    before = flow.log_prob(x).detach()
    save(flow, tmp_path / 'f.safetensors')
    again = load(tmp_path / 'f.safetensors')
    assert torch.equal(again.log_prob(x), before)
    assert torch.equal(flow.float().log_prob(x), before)
    assert torch.allclose(flow.double().log_prob(x).float(), before, atol=1e-3)
    assert torch.allclose(flow.float().log_prob(x), before, atol=1e-3)


@pytest.mark.parametrize('scale', [1e-6, 1e6])
@flows
def test_the_unit_of_the_data_is_a_constant(name, scale):
    x = normal(1000, 2)
    a, b = fit(small(name), x, **RUN), fit(small(name), scale * x, **RUN)
    assert abs(b.best - a.best - 2 * math.log(scale)) < 5e-3


def test_the_order_of_the_rows_changes_no_statistic():
    sorted_ = torch.cat([0.01 * normal(12000, 2), 100 + 10 * normal(12000, 2, seed=1)])
    valid = sorted_[::24]
    for x in (sorted_, sorted_[torch.randperm(24000)]):
        flow = small()
        fit(flow, x, valid=valid, epochs=1, batch_size=4096)
        scale = flow.bijection.layers[-1].log_s.exp().double()
        assert torch.allclose(scale, sorted_.std(0), rtol=1e-3)


class Net(Described, nn.Module):
    "A conditioner with layers that behave differently in training."

    def __init__(self, kind: str):
        super().__init__()
        layer = nn.BatchNorm1d(32) if kind == 'norm' else nn.Dropout(0.5)
        self.layers = nn.Sequential(nn.Linear(1, 32), layer, nn.Tanh())
        self.last = nn.Linear(32, 2)

    def forward(self, h, context=None):
        return self.last(self.layers(h)).unflatten(-1, (1, 2))


@pytest.mark.parametrize('kind', ['norm', 'dropout'])
def test_neither_batch_size_nor_mode_changes_an_evaluation(kind, tmp_path):
    torch.manual_seed(0)
    couplings = [Coupling(2, Affine(), Net(kind), flip=i % 2 == 1) for i in range(3)]
    flow = Flow(StandardNormal(2), Compose(*couplings, Standardize(2)))
    x = normal(600, 2, dtype=torch.float32)
    fit(flow, x, epochs=2)
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    flow.train()
    found = [evaluate(flow, x, batch_size=size) for size in (600, 7)]
    assert torch.allclose(*found, atol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())
    save(flow, tmp_path / 'f.safetensors')
    again = load(tmp_path / 'f.safetensors')
    assert not again.training
    assert torch.allclose(again.log_prob(x[:1]), flow.eval().log_prob(x[:1]))


def degenerate():
    n = normal(3000, 2)
    k = torch.randint(0, 3, (3000, 1), generator=torch.Generator().manual_seed(0))
    return {
        'classes': torch.cat([k, n[:, :1]], 1),
        'constant': torch.cat([n, torch.full((3000, 1), 0.1)], 1),
        'twice': n.repeat(1, 2),
        'sum': torch.cat([n, n.sum(1, keepdim=True)], 1),
        'one-hot': nn.functional.one_hot(k[:, 0], 3),
        'ages': torch.cat([n, (40 + 12 * n[:, :1]).round()], 1),
        'clipped': torch.cat([n, normal(3000, 1, seed=2).clamp(min=0)], 1),
    }


@pytest.mark.parametrize('affine', [(0, 1), (1e4, 3), (0, 1e-6)])
@pytest.mark.parametrize('kind', degenerate())
def test_data_without_a_density_are_refused_by_column(kind, affine):
    shift, scale = affine
    x = shift + scale * degenerate()[kind].double()
    flow = small(dim=x.shape[1])
    for data in (x, x.float(), pd.DataFrame(x.numpy())):
        with pytest.raises(ValueError, match='^data: has no density: column'):
            fit(flow, data, epochs=1)
    assert math.isfinite(fit(flow, x, epochs=1, allow_ties=True).best)


def test_values_that_single_precision_merges_are_noticed():
    x = (2_459_000 + normal(2000, 2)).float()
    with pytest.raises(ValueError, match='has no density: column 0 holds'):
        fit(small(), x, epochs=1)


def test_images_as_floats_on_levels_are_refused():
    from flowbook.multiscale import realnvp_images

    x = torch.randint(0, 256, (300, 1, 4, 4)).float() / 255
    with pytest.raises(ValueError, match='pixels hold only .*prepare=dequantize'):
        fit(realnvp_images((1, 4, 4), scales=1), x, epochs=1)


def test_weights_make_the_flow_learn_another_law():
    x = 2 * normal(6000, 2)
    w = torch.exp(-0.5 * ((x - 1) ** 2).sum(1) + 0.5 * ((x / 2) ** 2).sum(1))
    flow = small()
    fit(flow, x, weights=w, epochs=25, lr=5e-3, ema=0.99)
    mean = flow.sample((20_000,), generator=torch.Generator().manual_seed(0)).mean(0)
    assert torch.allclose(mean, torch.ones(2), atol=0.15)


def test_whole_weights_are_repetitions():
    x = normal(300, 2)
    w = torch.randint(0, 3, (300,), generator=torch.Generator().manual_seed(1))
    run = dict(valid=0, epochs=200, batch_size=10**4, lr=0.02)
    weighted, repeated = (Flow(StandardNormal(2), Linear2()) for _ in range(2))
    fit(weighted, x.float(), weights=w, **run)
    fit(repeated, x.repeat_interleave(w, 0).float(), allow_ties=True, **run)
    for a, b in zip(weighted.parameters(), repeated.parameters()):
        assert torch.allclose(a, b, atol=1e-3)


def Linear2():
    from flowbook.coupling import DiagScale

    return DiagScale(2)


class Lazy(Dataset):
    "Rows that are made when they are asked for."

    def __len__(self):
        return 512

    def __getitem__(self, i):
        return normal(2, seed=i, dtype=torch.float32), i % 3  # and a label


def test_a_loader_trains_as_its_rows_do(tmp_path):
    x = normal(512, 2, dtype=torch.float32)
    np.save(tmp_path / 'x.npy', x.numpy())
    pd.DataFrame(x.numpy(), columns=['a', 'b']).to_csv(tmp_path / 'x.csv', index=False)
    run = dict(epochs=3, valid=x)
    best = [
        fit(small(), data, **run).best
        for data in (
            x,
            pd.DataFrame(x.numpy()),
            tmp_path / 'x.npy',
            str(tmp_path / 'x.csv'),
            TensorDataset(x),
            DataLoader(TensorDataset(x), 128, shuffle=True),
        )
    ]
    assert max(best) - min(best) < 0.02
    assert fit(small(), Lazy(), epochs=2).valid == []
    held = DataLoader(Lazy(), 100)
    assert len(fit(small(), DataLoader(Lazy(), 64), valid=held, epochs=2).valid) == 2


def test_a_loader_brings_contexts():
    x, c = conditional(1000)
    loader = DataLoader(TensorDataset(x.float(), c.float()), 100, shuffle=True)
    flow = small(context_dim=1)
    history = fit(flow, loader, epochs=8, lr=5e-3, valid=x, valid_context=c)
    assert history.best < 2.2


def test_a_loader_without_length_or_with_context_beside_it_is_refused():
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            while True:
                yield torch.zeros(2)

    with pytest.raises(ValueError, match='knows its length'):
        fit(small(), DataLoader(Endless(), 4), epochs=1, allow_ties=True)
    loader = DataLoader(TensorDataset(normal(8, 2).float()), 4)
    with pytest.raises(ValueError, match='^context: comes with the batches'):
        fit(small(context_dim=1), loader, normal(8, 1))
    with pytest.raises(ValueError, match='share of a DataLoader'):
        fit(small(), loader, valid=0.1)


def test_a_run_is_bound_to_its_data_and_can_be_extended(tmp_path):
    x = normal(200, 2)
    run = dict(checkpoint=tmp_path / 'c.safetensors', resume=True)
    flow = small()
    fit(flow, x, epochs=2, **run)
    with pytest.raises(ValueError, match='a run on other data'):
        fit(flow, x + 1e-9, epochs=2, **run)
    history = fit(flow, x, epochs=5, **run)
    assert len(history.train) == 5 and history.stopped == 'all epochs'
    with pytest.raises(ValueError, match='^epochs: .* has done 5'):
        fit(flow, x, epochs=4, **run)
