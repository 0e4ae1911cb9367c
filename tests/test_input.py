"""Whatever holds numbers is taken, and means the same.

What does not is refused in words; evaluation is in evaluation mode."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from flowbook.autoregressive import maf
from flowbook.core import Compose, Flow, Standardize, StandardNormal
from flowbook.coupling import Coupling, nice
from flowbook.described import Described
from flowbook.files import load, save
from flowbook.gan import GAN
from flowbook.iaf import iaf
from flowbook.made import BinaryMADE
from flowbook.pixels import dequantize, evaluate_bits, on_pixels
from flowbook.realnvp import Affine, realnvp
from flowbook.train import evaluate, fit
from flowbook.vae import VAE
from support import normal, randomize

GREY = torch.randint(
    0, 256, (6, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
)


class Table:
    "Stands for a data frame: not an array, but it can become one."

    def __init__(self, rows):
        self.rows = rows

    def __array__(self, dtype=None, copy=None):
        return np.array(self.rows, dtype)

    def __len__(self):
        return len(self.rows)


CONTAINERS = {
    'float64': lambda t: t.double(),
    'float16': lambda t: t.half(),
    'numpy': lambda t: t.numpy(),
    'numpy float64': lambda t: t.double().numpy(),
    'longdouble': lambda t: t.numpy().astype(np.longdouble),
    'big-endian': lambda t: t.numpy().astype('>f8'),
    'flipped twice': lambda t: t.numpy()[::-1].copy()[::-1],
    'read-only': lambda t: np.frombuffer(t.numpy().tobytes(), np.float32).reshape(
        t.shape
    ),
    'list': lambda t: t.tolist(),
    'tuple of rows': lambda t: tuple(map(tuple, t.tolist())),
    'table': lambda t: Table(t.tolist()),
}
containers = pytest.mark.parametrize('put', CONTAINERS.values(), ids=CONTAINERS)

MODELS = {
    'nice': lambda **k: nice(2, **k),
    'realnvp': lambda **k: realnvp(2, **k),
    'maf': lambda **k: maf(2, **k),
    'iaf': lambda **k: iaf(2, **k),
    'vae': lambda **k: VAE(2, **k),
    'gan': lambda **k: GAN(2, **k),
}
models = pytest.mark.parametrize('name', MODELS)


def ask(model, x, context=None):
    "A number for each point: the log-density, or what stands in its place."
    torch.manual_seed(0)
    with torch.no_grad():
        if isinstance(model, VAE):
            return model.elbo(x, context)
        return (
            model.logit(x, context)
            if isinstance(model, GAN)
            else model.log_prob(x, context)
        )


@containers
@models
def test_points_in_any_container_have_the_same_density(name, put):
    model, x = (
        randomize(MODELS[name]()),
        normal(5, 2, dtype=torch.float32).half().float(),
    )
    got = ask(model, put(x))
    assert got.dtype == torch.float32 and torch.equal(got, ask(model, x))


@containers
@models
def test_contexts_in_any_container_mean_the_same(name, put):
    model, x = randomize(MODELS[name](context_dim=3)), normal(5, 2, dtype=torch.float32)
    c = normal(5, 3, seed=1, dtype=torch.float32).half().float()
    assert torch.equal(ask(model, x, put(c)), ask(model, x, c))
    draws = [
        model.sample(2, given, generator=torch.Generator().manual_seed(0))
        for given in (put(c), c)
    ]
    assert draws[0].shape == (2, 5, 2) and torch.equal(*draws)


@pytest.mark.parametrize('dtype', ['int8', 'int32', 'int64', 'uint8', 'uint16', 'bool'])
@models
def test_whole_numbers_are_points_and_contexts(name, dtype):
    model = randomize(MODELS[name](context_dim=2))
    x, c = np.array([[0, 1], [1, 1]], dtype), np.array([[1, 0], [0, 1]], dtype)
    assert torch.equal(
        ask(model, x, c),
        ask(model, torch.tensor(x.astype('f4')), torch.tensor(c.astype('f4'))),
    )


@models
def test_single_precision_goes_into_a_double_model_and_back(name):
    model, x = randomize(MODELS[name]()).double(), normal(5, 2)
    assert ask(model, x.float()).dtype == torch.float64
    assert model.sample(3).dtype == torch.float64


BAD = {
    'text': ['a', 'b'],
    'ragged': [[1.0, 2.0], [3.0]],
    'None inside': [[1.0, None]],
    'complex': torch.zeros(3, 2, dtype=torch.cfloat),
    'complex array': np.zeros((3, 2), complex),
    'dates': np.array(['2020-01-01'], 'datetime64[D]'),
    'dictionary': {'a': 1.0},
    'wrong length': [[1.0, 2.0, 3.0]],
    'a number': 1.0,
}


@pytest.mark.parametrize('bad', BAD.values(), ids=BAD)
@models
def test_what_is_no_block_of_numbers_is_refused_by_name(name, bad):
    model = MODELS[name](context_dim=2)
    with pytest.raises(ValueError, match='^x: expected'):
        ask(model, bad, [0.0, 1.0])
    with pytest.raises(ValueError, match='^context: expected'):
        ask(model, [0.0, 1.0], bad)
    with pytest.raises(ValueError, match='^context: expected'):
        model.sample((2,), bad)


@models
def test_a_context_is_wanted_exactly_where_a_layer_reads_it(name):
    with pytest.raises(
        ValueError, match=r'^context: expected shape \(\.\.\., 2\), got None'
    ):
        ask(MODELS[name](context_dim=2), [0.0, 1.0])
    with pytest.raises(ValueError, match='^context: no layer'):
        ask(MODELS[name](), [0.0, 1.0], [1.0])
    with pytest.raises(ValueError, match='broadcasts'):
        ask(MODELS[name](context_dim=2), normal(5, 2), normal(4, 2))


@pytest.mark.parametrize('shape', [-1, (2, -1), 2.5, 'a', (2, None)])
@models
def test_a_request_for_samples_is_checked(name, shape):
    with pytest.raises(ValueError, match='^shape: expected'):
        MODELS[name]().sample(shape)


@pytest.mark.parametrize('temperature', [0, -1.0, math.inf, math.nan, 'warm', None])
@models
def test_a_temperature_is_a_number_above_zero(name, temperature):
    with pytest.raises(ValueError, match='^temperature: expected a number above 0'):
        MODELS[name]().sample(2, temperature=temperature)


def test_shapes_may_be_numbers_of_any_kind():
    for shape in (3, np.int64(3), torch.tensor(3), (3,), [3], torch.Size([3])):
        assert realnvp(2).sample(shape).shape == (3, 2)
    assert realnvp(2).sample().shape == (2,) and realnvp(2).sample(0).shape == (0, 2)
    assert realnvp(2).distribution().sample(3).shape == (3, 2)


def test_pixels_need_noise_first():
    flow = on_pixels(realnvp(16), (1, 4, 4))
    with pytest.raises(ValueError, match='^x: whole-numbered pixels have no density'):
        flow.log_prob(GREY)
    assert flow.log_prob(dequantize(GREY).double().numpy()).shape == (6,)


def test_bits_and_images_are_taken_from_any_container():
    made, x = randomize(BinaryMADE(3)), torch.tensor([[0, 1, 1], [1, 0, 0]])
    for same in (x.numpy(), x.bool(), x.tolist(), x.double()):
        assert torch.equal(made.log_prob(same), made.log_prob(x.float()))
    with pytest.raises(ValueError, match='zeros and ones'):
        made.log_prob([[0.5, 0, 1]])
    flow = on_pixels(realnvp(16), (1, 4, 4))
    assert evaluate_bits(flow, GREY.numpy()) == evaluate_bits(flow, GREY)


def test_fit_and_evaluate_take_what_log_prob_takes():
    x, c = (
        normal(60, 2, dtype=torch.float32),
        normal(60, 1, seed=1, dtype=torch.float32),
    )
    losses = []
    for put in (lambda t: t, lambda t: t.numpy(), lambda t: t.tolist()):
        torch.manual_seed(0)
        flow = realnvp(2, context_dim=1)
        history = fit(
            flow, put(x), put(c), epochs=2, valid=put(x[:9]), valid_context=put(c[:9])
        )
        losses.append((history.train, evaluate(flow, put(x), put(c)).tolist()))
    assert losses[0] == losses[1] == losses[2]
    with pytest.raises(ValueError, match='^context: expected one finite row'):
        evaluate(flow, x, c[:5])


# Evaluation mode.
class Net(Described, nn.Module):
    "A conditioner whose result depends on the mode."

    def __init__(self, kind):
        super().__init__()
        layer = nn.BatchNorm1d(16) if kind == 'norm' else nn.Dropout(0.5)
        self.layers = nn.Sequential(
            nn.Linear(1, 16), layer, nn.Tanh(), nn.Linear(16, 2)
        )

    def forward(self, h, context=None):
        return self.layers(h).unsqueeze(-2)


def moody(kind):
    torch.manual_seed(0)
    couplings = [
        Coupling(2, Affine(), net=Net(kind), flip=i % 2 == 1) for i in range(3)
    ]
    return Flow(StandardNormal(2), Compose(*couplings, Standardize(2)))


@pytest.mark.parametrize('kind', ['norm', 'dropout'])
def test_evaluation_does_not_depend_on_mode_or_batch_and_changes_nothing(
    kind, tmp_path
):
    flow, x = moody(kind), normal(200, 2, dtype=torch.float32)
    history = fit(flow, x, epochs=3, valid=x[:50])
    assert not flow.training
    held = evaluate(flow, x[:50]).mean().item()
    assert held == pytest.approx(history.best, abs=1e-5)
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    flow.train()
    results = [evaluate(flow, x, batch_size=n) for n in (200, 7, 1)]
    assert flow.training and all(
        torch.allclose(r, results[0], atol=1e-4) for r in results
    )
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())
    save(flow, tmp_path / 'flow.safetensors')
    again = load(tmp_path / 'flow.safetensors')
    assert not again.training and torch.equal(
        again.log_prob(x[:1]), flow.eval().log_prob(x[:1])
    )


def test_evaluation_leaves_every_module_in_its_own_mode():
    flow = moody('norm').train()
    flow.bijection.layers[0].eval()
    evaluate(flow, normal(5, 2, dtype=torch.float32))
    assert (
        flow.training
        and not flow.bijection.layers[0].training
        and flow.bijection.layers[1].training
    )


def test_training_happens_in_training_mode():
    flow = moody('norm').eval()
    fit(flow, normal(100, 2, dtype=torch.float32), epochs=1)
    assert flow.bijection.layers[0].net.layers[1].num_batches_tracked > 0


# Settings.
OUT_OF_RANGE = dict(
    epochs=[0, 2.5, '3', None, True],
    batch_size=[0, 1.5],
    epoch_size=[0, -1],
    lr=[0, -1, math.inf, math.nan, 'a', None],
    weight_decay=[-1, math.nan],
    clip=[0, -1, math.nan],
    warmup=[-5, 1.5, None],
    patience=[0, 1.5],
    ema=[-0.1, 1, 'x'],
    seed=[1.5, 'a', None, 2**41],
    schedule=['step', None],
    betas=[(0.9,), (0.9, 1.0), 0.9, ('a', 0.9)],
    valid=[-0.1, 1, 1.5, 'half'],
)


@pytest.mark.parametrize(
    'name, value', [(k, v) for k, values in OUT_OF_RANGE.items() for v in values]
)
def test_settings_out_of_range_are_refused_by_name_and_nothing_happens(name, value):
    flow = realnvp(2)
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    with pytest.raises(ValueError, match=f'^{name}: expected'):
        fit(flow, normal(60, 2, dtype=torch.float32), **{name: value})
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())


def test_settings_may_be_numbers_of_any_kind():
    history = fit(
        realnvp(2),
        normal(60, 2, dtype=torch.float32),
        epochs=np.int64(1),
        lr=np.float32(1e-3),
        seed=np.int16(3),
        clip=None,
    )
    assert len(history.train) == 1
