"Splines, mixtures of logistics and the flows made of them."

import copy
import math

import pytest
import torch
from torch.func import functional_call, grad, jacrev, vmap

from flowbook.autoregressive import Autoregressive, by_loop, fill_in
from flowbook.check import check_bijection
from flowbook.core import Compose, Flow, Invert, Standardize, StandardLogistic
from flowbook.coupling import Coupling
from flowbook.described import build, describe
from flowbook.files import load, save
from flowbook.monotone import Chained, LogisticMixture, RationalQuadratic, nsf
from flowbook.realnvp import Affine
from flowbook.train import evaluate, fit
from support import normal, randomize

MAPS = {
    'spline': lambda: RationalQuadratic(),
    'spline of 2 bins': lambda: RationalQuadratic(2, 1.5),
    'spline of 11 bins': lambda: RationalQuadratic(11, 3.0, least=1e-2),
    'mixture': lambda: LogisticMixture(),
    'mixture of 1': lambda: LogisticMixture(1),
    'mixture of 7': lambda: LogisticMixture(7, bound=2.0),
    'chained': lambda: Chained(RationalQuadratic(4), Affine(), LogisticMixture(2)),
}
maps = pytest.mark.parametrize('name', MAPS)
DIRECTIONS = pytest.mark.parametrize('direction', ['forward', 'inverse'])


@maps
def test_zeros_are_the_identity(name):
    tau = MAPS[name]()
    u = 4 * normal(100, 3)
    for direction in (tau.forward, tau.inverse):
        v, log_d = direction(u, torch.zeros(100, 3, tau.n_params).double())
        torch.testing.assert_close(v, u, rtol=1e-14, atol=1e-14)
        assert log_d.abs().max() < 1e-14


@maps
@pytest.mark.parametrize('shape', [(), (0,), (5,), (2, 3, 4)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_shape_and_precision_go_through(name, shape, dtype):
    tau = MAPS[name]()
    u = normal(*shape, dtype=dtype)
    raw = normal(*shape, tau.n_params, seed=1, dtype=dtype)
    for direction in (tau.forward, tau.inverse):
        v, log_d = direction(u, raw)
        assert v.shape == log_d.shape == u.shape
        assert v.dtype == log_d.dtype == dtype


@maps
@DIRECTIONS
def test_it_increases_with_the_slope_it_claims(name, direction):
    tau = MAPS[name]()
    raw = normal(20, 1, tau.n_params, seed=2).expand(20, 301, -1)
    u = torch.linspace(-7, 7, 301, dtype=torch.float64).expand(20, -1)
    u = u.clone().requires_grad_()
    v, log_d = getattr(tau, direction)(u, raw)
    (slope,) = torch.autograd.grad(v.sum(), u)
    assert (v.diff() > 0).all()
    torch.testing.assert_close(slope.log(), log_d, rtol=1e-10, atol=1e-10)


@maps
def test_there_and_back(name):
    tau = MAPS[name]()
    raw = normal(5000, tau.n_params, seed=3)
    u = 3 * normal(5000, seed=4)
    v, log_d = tau.forward(u, raw)
    back, log_back = tau.inverse(v, raw)
    torch.testing.assert_close(back, u, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log_back, -log_d, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize('size', [0.1, 1.0, 3.0, 10.0, 100.0])
def test_an_extreme_spline_stays_in_its_bins(size):
    tau = RationalQuadratic()
    for dtype in (torch.float32, torch.float64):
        raw = size * normal(20_000, tau.n_params, seed=5, dtype=dtype)
        u = 3 * normal(20_000, seed=6, dtype=dtype)
        for direction in (tau.forward, tau.inverse):
            v, log_d = direction(u, raw)
            assert v.isfinite().all() and log_d.isfinite().all()
            assert ((v.abs() <= 5) | (v == u)).all()


def test_outside_the_spline_is_the_identity():
    tau = RationalQuadratic(bound=2.0)
    far = torch.tensor([2.0, -2.0, 2.5, -1e30, math.inf], dtype=torch.float64)
    for direction in (tau.forward, tau.inverse):
        v, log_d = direction(far, normal(5, tau.n_params))
        assert torch.equal(v, far) and not log_d.any()
    near = torch.tensor([2 - 1e-9, 2 + 1e-9], dtype=torch.float64)
    v, log_d = tau.inverse(near, normal(tau.n_params).expand(2, -1))
    assert (v - near).abs().max() < 1e-8 and log_d.abs().max() < 1e-6


@maps
@DIRECTIONS
@pytest.mark.parametrize('half', [False, True])
def test_values_and_gradients_are_finite_in_low_precision(name, direction, half):
    tau = MAPS[name]()
    dtype = torch.bfloat16 if half else torch.float32
    u = torch.tensor([0.0, 0.625, -5.0, 5.0, 9.0, 1e4, -1e30, 1e30])
    for size in (0.0, 1.0, 5.0):
        raw = size * normal(8, tau.n_params, dtype=torch.float32)
        raw = raw.to(dtype).requires_grad_()
        x = u.clone().requires_grad_()
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            v, log_d = getattr(tau, direction)(x, raw)
        assert v.dtype == log_d.dtype == torch.float32
        (v.tanh().sum() + log_d.sum()).backward()
        for t in (v, log_d, x.grad, raw.grad):
            assert t.isfinite().all()


def test_a_gradient_at_the_centre_of_a_bin_counts_both_slopes():
    tau = RationalQuadratic(2, 2.0)
    u = torch.tensor([1.0], dtype=torch.float64)  # delta of Eq. (eq-rq-root) is 0
    raw = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: tau.forward(u, r), (raw,))


@maps
@DIRECTIONS
def test_first_and_second_derivatives(name, direction):
    tau = MAPS[name]()
    u = normal(3, seed=7).requires_grad_()
    raw = normal(3, tau.n_params, seed=8).requires_grad_()
    fn = getattr(tau, direction)
    assert torch.autograd.gradcheck(fn, (u, raw))
    assert torch.autograd.gradgradcheck(fn, (u, raw))


@maps
@DIRECTIONS
def test_compiles_as_one_graph(name, direction):
    tau = MAPS[name]()
    fn = getattr(tau, direction)
    raw = normal(6, tau.n_params, seed=9)
    u = normal(6, seed=10)
    compiled = torch.compile(fn, fullgraph=True, backend='eager')
    for found, wanted in zip(compiled(u, raw), fn(u, raw)):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@maps
@DIRECTIONS
def test_transforms_of_functions(name, direction):
    tau = MAPS[name]()
    fn = getattr(tau, direction)
    raw = normal(6, tau.n_params, seed=9)
    u = normal(6, seed=10)
    for found, wanted in zip(vmap(fn)(u, raw), fn(u, raw)):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    J = jacrev(lambda u: fn(u, raw)[0])(u)
    torch.testing.assert_close(J.diagonal(), fn(u, raw)[1].exp())
    assert not (J - J.diagonal().diag()).any()


@pytest.mark.parametrize('dim', [1, 2, 3, 7])
@maps
def test_layers_keep_the_contract(name, dim):
    z = normal(2, dim, seed=2)
    smooth = dict(activation='tanh')  # a kink of relu may lie within a difference
    layer = Autoregressive(dim, MAPS[name](), **smooth)
    check_bijection(randomize(layer).double(), z)
    if dim > 1:
        check_bijection(randomize(Coupling(dim, MAPS[name]())).double(), z)


@maps
def test_the_engine_agrees_with_the_loop(name):
    for dim, batch in [(5, 7), (20, 1), (5, 300)]:
        layer = randomize(Autoregressive(dim, MAPS[name](), hidden=(40,))).double()
        z = normal(batch, dim, seed=3)
        with torch.no_grad():
            wanted = by_loop(layer, z)
            for found in (layer(z), fill_in(layer, z)):
                for a, b in zip(found, wanted):
                    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@maps
def test_a_gradient_goes_through_the_engine(name):
    layer = randomize(Autoregressive(4, MAPS[name](), hidden=(9,))).double()
    twin = copy.deepcopy(layer)
    grads = []
    for run, m in [(lambda m, z: m(z), layer), (by_loop, twin)]:
        z = normal(5, 4, seed=3).requires_grad_()
        x, log_det = run(m, z)
        (x.sin().sum() + (log_det**2).sum()).backward()
        grads.append([z.grad, *(p.grad for p in m.parameters())])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


FLOWS = {
    'nsf': {},
    'one layer': dict(layers=1, bins=3, bound=2.0),
    'silu': dict(activation='silu', hidden=(8,)),
    'coupling': dict(kind='coupling'),
    'coupling of 3': dict(kind='coupling', layers=3, activation='tanh'),
}
flows = pytest.mark.parametrize('name', FLOWS)


@flows
@pytest.mark.parametrize('dim', [1, 2, 5, 16])
@pytest.mark.parametrize('context_dim', [0, 2])
def test_a_flow_keeps_the_contract(name, dim, context_dim):
    if dim == 1 and 'coupling' in name:
        with pytest.raises(ValueError, match='at least 2'):
            nsf(dim, **FLOWS[name])
        return
    order = list(range(dim))[::-1]
    options = dict(activation='tanh') | FLOWS[name]
    flow = nsf(dim, order=order, context_dim=context_dim, **options)
    flow = randomize(flow, size=0.5).double()
    context = normal(3, context_dim, seed=1) if context_dim else None
    check_bijection(flow.bijection, normal(3, dim), context, max_points=2)


@flows
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_a_flow_is_saved_and_loaded(name, dtype, tmp_path):
    flow = randomize(nsf(3, **FLOWS[name])).to(dtype)
    x = normal(6, 3, dtype=dtype)
    save(flow, tmp_path / 'flow')
    again = load(tmp_path / 'flow')
    assert torch.equal(again.log_prob(x), flow.log_prob(x))
    assert describe(build(describe(flow))) == describe(flow)
    assert flow.sample(4).dtype == flow.log_prob(x).dtype == dtype


@flows
def test_a_new_flow_is_the_identity(name):
    x = normal(6, 3)
    flow = nsf(3, **FLOWS[name]).double()
    torch.testing.assert_close(flow.bijection(x)[0], x, rtol=1e-13, atol=1e-13)
    ordered = nsf(3, order=[2, 0, 1], **FLOWS[name]).double().bijection(x)[0]
    torch.testing.assert_close(ordered.sort(-1).values, x.sort(-1).values)


@flows
def test_gradients_of_single_examples(name):
    flow = randomize(nsf(3, **FLOWS[name])).double()
    weights = {k: p.detach() for k, p in flow.bijection.named_parameters()}
    x = normal(4, 3)

    class Score(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bijection = flow.bijection

        def forward(self, x):
            z, log_det = self.bijection.inverse(x)
            return z.square().sum() / 2 - log_det

    def loss(weights, x):
        named = {f'bijection.{k}': v for k, v in weights.items()}
        return functional_call(Score(), named, (x,))

    each = vmap(grad(loss), in_dims=(None, 0))(weights, x)
    for i in range(4):
        alone = grad(loss)(weights, x[i])
        for k in weights:
            torch.testing.assert_close(each[k][i], alone[k], rtol=1e-9, atol=1e-9)


def test_a_coupling_starts_with_the_half_that_order_names():
    flow = nsf(4, kind='coupling', layers=1, order=[2, 3, 0, 1])
    flow = randomize(flow).double()
    z = normal(1, 4)
    x, _ = flow.bijection(z)
    assert torch.equal(x[0, [2, 3]], z[0, [0, 1]])  # read, not changed


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda: RationalQuadratic(1), 'bins: expected a whole number from 2 up'),
        (lambda: RationalQuadratic(2.5), 'bins: expected a whole number'),
        (lambda: RationalQuadratic(bound=0.0), 'bound: expected a number above 0'),
        (lambda: RationalQuadratic(bound=math.inf), 'bound: expected a number above 0'),
        (lambda: RationalQuadratic(least=1.0), 'least: expected a number between'),
        (lambda: LogisticMixture(0), 'components: expected a whole number'),
        (lambda: LogisticMixture(bound=-1.0), 'bound: expected a number above 0'),
        (lambda: Chained(), 'maps: Chained needs at least one'),
        (lambda: nsf(2, kind='glow'), 'kind: expected'),
        (lambda: nsf(2, layers=0), 'layers: expected at least 1'),
        (lambda: nsf(2, hidden=()), 'hidden: expected at least 1'),
        (lambda: nsf(2, activation='gelu'), 'activation: expected one of'),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def two_hills(n, seed):
    side = (normal(n, seed=seed) > 0.5).double()
    x = -2 + 0.5 * normal(n, seed=seed + 1) + side * 3.5
    return x[:, None].float()


@pytest.mark.parametrize(
    'make',
    [
        lambda: nsf(1, layers=1, hidden=(4,)),
        lambda: Flow(
            StandardLogistic(1),
            Compose(Autoregressive(1, LogisticMixture(), hidden=(4,)), Standardize(1)),
        ),
    ],
    ids=['spline', 'mixture'],
)
def test_two_hills_on_a_line_are_learned(make):
    torch.manual_seed(0)
    flow = make()
    x = two_hills(4000, 0)
    fit(flow, x, epochs=10, lr=2e-2, device='cpu')
    weight = torch.tensor([0.6915, 0.3085]).log()
    parts = torch.distributions.Normal(torch.tensor([-2.0, 1.5]), 0.5)
    test = two_hills(20_000, 10)
    truth = (weight + parts.log_prob(test)).logsumexp(-1)
    assert (truth + evaluate(flow, test)).mean() < 0.03


def test_a_context_moves_the_hills():
    torch.manual_seed(0)
    c = (normal(4000, 1, seed=5) > 0).float()
    x = two_hills(4000, 0) * (2 * c - 1)
    flow = nsf(1, layers=1, hidden=(16,), context_dim=1)
    fit(flow, x, c, epochs=10, lr=1e-2, device='cpu')
    mean = [flow.sample(2000, torch.tensor([v])).mean().item() for v in (0.0, 1.0)]
    assert mean[0] > 0.5 and mean[1] < -0.5


def test_an_inverted_spline_layer_keeps_the_contract():
    layer = randomize(Autoregressive(3, RationalQuadratic(), hidden=(8,))).double()
    check_bijection(Invert(layer), normal(3, 3))
