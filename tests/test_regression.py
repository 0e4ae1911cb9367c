"Densities of a number given inputs: integrals, quantiles, coverage, ensembles."

import copy

import pytest
import torch

from flowbook.autoregressive import Autoregressive
from flowbook.core import (
    Compose,
    Flow,
    Invert,
    Standardize,
    StandardLogistic,
    StandardNormal,
)
from flowbook.described import build, describe
from flowbook.experiments.regression import (
    Ensemble,
    base_cdf,
    base_quantile,
    coverage,
    pit,
    quantiles,
)
from flowbook.files import load, save
from flowbook.monotone import LogisticMixture, nsf
from flowbook.support import StudentT
from flowbook.train import evaluate, fit
from support import normal, randomize

LEVELS = torch.tensor([1e-6, 0.01, 0.25, 0.5, 0.9, 1 - 1e-6]).double()


def flow(seed=0, context_dim=3, base=None):
    "A flow of one number with random weights, away from zero, in double precision."
    made = randomize(nsf(1, layers=2, hidden=(8,), context_dim=context_dim), seed)
    made.bijection.layers[-1].initialize(100 + 5 * normal(50, 1))
    if base is not None:
        made = Flow(base, made.bijection)
    return made.double()


def mixture_of_logistics():
    layer = Autoregressive(1, LogisticMixture(3), hidden=(8,), context_dim=3)
    made = Flow(StandardLogistic(1), Compose(layer, Standardize(1)))
    return randomize(made).double()


MODELS = {
    'normal': flow,
    'student': lambda: flow(base=StudentT(1, df=2.5)),
    'learned student': lambda: flow(base=StudentT(1)),
    'logistic mixture': mixture_of_logistics,
    'ensemble': lambda: Ensemble(flow(0), flow(1), flow(2)),
}
models = pytest.mark.parametrize('name', MODELS)


@pytest.mark.parametrize(
    'base', [StandardNormal(1), StandardLogistic(1), *(StudentT(1, df=d) for d in (0.5, 1, 3, 400))]
)  # fmt: skip
def test_the_distribution_function_of_a_base_is_that_of_scipy(base):
    stats = pytest.importorskip('scipy.stats')
    df = getattr(base, 'df', torch.zeros(1)).item()
    known = {
        StandardNormal: stats.norm(),
        StandardLogistic: stats.logistic(),
        StudentT: stats.t(df or 1),
    }[type(base)]
    z = torch.linspace(-6, 6, 41).double()
    expected = torch.from_numpy(known.cdf(z.numpy()))
    torch.testing.assert_close(base_cdf(base, z), expected, rtol=0, atol=1e-7)
    expected = torch.from_numpy(known.ppf(LEVELS.numpy()))
    found = base_quantile(base, LEVELS)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


@models
def test_quantiles_invert_the_integral(name):
    model = MODELS[name]()
    context = normal(7, 3, seed=4)
    y = quantiles(model, LEVELS, context)
    assert y.shape == (7, 6) and y.dtype == torch.float64
    assert (y.diff() > 0).all()
    back = pit(model, y[..., None], context[:, None])
    torch.testing.assert_close(back, LEVELS.expand(7, 6), rtol=0, atol=1e-9)


@models
def test_the_integral_has_the_density_as_its_slope(name):
    model = MODELS[name]()
    context = normal(40, 3, seed=4)
    y = quantiles(model, [0.01, 0.3, 0.7, 0.99], context)[..., None]
    context = context[:, None]
    h = 1e-7 * (y[:, -1:] - y[:, :1])
    slope = (pit(model, y + h, context) - pit(model, y - h, context)) / (2 * h[..., 0])
    density = model.log_prob(y, context).exp().detach()
    torch.testing.assert_close(slope, density, rtol=1e-2, atol=1e-5)


@models
def test_samples_have_uniform_integrals(name):
    model = MODELS[name]()
    context = normal(5, 3, seed=4)
    gen = torch.Generator().manual_seed(0)
    y = model.sample(4000, context, generator=gen)
    u = pit(model, y, context)
    assert y.shape == (4000, 5, 1) and u.shape == (4000, 5)
    ranks = (torch.arange(4000).double() + 0.5) / 4000
    assert (u.sort(0).values - ranks[:, None]).abs().max() < 0.035
    assert (coverage(u[:, 0], [0.5, 0.9]) - torch.tensor([0.5, 0.9])).abs().max() < 0.03


def test_without_context_and_in_any_container():
    model = flow(context_dim=0)
    q = quantiles(model, 0.5)
    assert q.shape == (1,)
    assert abs(pit(model, [q.item()]).item() - 0.5) < 1e-9
    single = copy.deepcopy(model).float()
    assert pit(single, q[:, None].numpy()).dtype == torch.float64
    assert pit(model, torch.zeros(0, 1)).shape == (0,)
    conditional = flow()
    assert quantiles(conditional, [0.5], torch.zeros(0, 3)).shape == (0, 1)
    by_list = quantiles(conditional, [0.5], [[0.0, 0.0, 0.0]])
    torch.testing.assert_close(
        by_list, quantiles(conditional, [0.5], torch.zeros(1, 3))
    )


def test_an_ensemble_is_a_model_like_others(tmp_path):
    model = Ensemble(*(nsf(2, layers=1, hidden=(8,), context_dim=1) for _ in range(2)))
    x, c = normal(300, 2), normal(300, 1, seed=1)
    history = fit(model, x, c, epochs=3, device='cpu')
    assert history.train[-1] < history.train[0] + 0.1
    save(model, tmp_path / 'ensemble.safetensors')
    again = load(tmp_path / 'ensemble.safetensors')
    torch.testing.assert_close(evaluate(again, x, c), evaluate(model, x, c))
    assert describe(build(describe(model))) == describe(model)
    each = torch.stack([f.log_prob(x, c) for f in model.flows])
    torch.testing.assert_close(model.log_prob(x, c), each.exp().mean(0).log())
    assert model.sample((2, 3), c[:4]).shape == (2, 3, 4, 2)
    assert model.sample(0, c[:4]).shape == (0, 4, 2)


def test_an_ensemble_samples_every_member_alike():
    far = [Flow(StandardNormal(1), Standardize(1)) for _ in range(4)]
    for i, f in enumerate(far):
        f.bijection.mean.fill_(100.0 * i)
    x = Ensemble(*far).sample(8000, generator=torch.Generator().manual_seed(0))
    shares = torch.bincount((x[:, 0] / 100).round().long()) / 8000
    assert (shares - 0.25).abs().max() < 0.02


def test_the_unit_of_an_input_does_not_matter():
    y, c = 100 + 5 * normal(400, 1), normal(400, 3, seed=1)
    found = []
    for scale, zero in [(1.0, 0.0), (1.8, 32.0), (1e-3, 273.15)]:
        model = flow()
        model.initialize(y, c * scale + zero)
        found.append(quantiles(model, LEVELS, c * scale + zero))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-8, atol=1e-8)


def test_integrals_leave_the_model_as_it_was():
    model = Ensemble(flow(0), flow(1)).train()
    before = copy.deepcopy(model.state_dict())
    pit(model, normal(5, 1), normal(5, 3))
    quantiles(model, [0.5], normal(5, 3))
    assert all(m.training for m in model.modules())
    assert all((before[k] == v).all() for k, v in model.state_dict().items())


class Falling(Standardize):
    "A map of the line that falls."

    def forward(self, z, context=None):
        x, log_det = super().forward(z, context)
        return -x, log_det

    def inverse(self, x, context=None):
        return super().inverse(-x, context)


def test_what_cannot_be_answered_is_refused():
    one, two = flow(), nsf(2, context_dim=3)
    c = normal(5, 3)
    with pytest.raises(ValueError, match='give all but one as context'):
        pit(two, normal(5, 2)[:, :1], c)
    with pytest.raises(ValueError, match='model: expected a flow, or an Ensemble'):
        quantiles(two, [0.5], c)
    with pytest.raises(ValueError, match=r'y: expected shape \(\.\.\., 1\)'):
        pit(one, normal(5), c)
    with pytest.raises(ValueError, match='context'):
        pit(one, normal(5, 1))
    with pytest.raises(ValueError, match='context'):
        quantiles(one, [0.5], normal(5, 2))
    for levels in ([0.0], [0.5, 1.0], [90], [float('nan')]):
        with pytest.raises(
            ValueError, match='levels: expected numbers between 0 and 1'
        ):
            quantiles(one, levels, c)
        with pytest.raises(
            ValueError, match='levels: expected numbers between 0 and 1'
        ):
            coverage(torch.rand(5), levels)
    for u in (
        torch.rand(5, 1),
        torch.zeros(0),
        torch.tensor([0.5, 1.5]),
        [float('nan')],
    ):
        with pytest.raises(ValueError, match='u: expected'):
            coverage(u, [0.5])
    with pytest.raises(ValueError, match='a map that rises, got one that falls'):
        pit(Flow(StandardNormal(1), Falling(1)), normal(5, 1))
    with pytest.raises(ValueError, match='flows: expected some, of one event shape'):
        Ensemble(one, two)
    with pytest.raises(ValueError, match='flows: expected some'):
        Ensemble()


def test_a_turned_layer_is_as_good():
    model = Flow(StandardNormal(1), Invert(flow(context_dim=0).bijection))
    q = quantiles(model.double(), LEVELS)
    torch.testing.assert_close(pit(model, q[:, None]), LEVELS, rtol=0, atol=1e-9)
