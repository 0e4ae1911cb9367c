"Support and tails: nothing outside, mass 1, no units, both precisions, far rows."

import inspect
import math

import pytest
import torch
from torch import nn

from flowbook.check import check_bijection
from flowbook.core import Compose, Flow, Standardize, StandardLogistic, StandardNormal
from flowbook.coupling import Additive, Coupling, choose_base, nice
from flowbook.described import Described
from flowbook.files import load, save
from flowbook.realnvp import AffineCoupling, realnvp
from flowbook.support import Interval, Positive, StudentT, Support, Tails, read_support
from flowbook.train import evaluate, fit
from support import normal, randomize

ROBUST = 'robust' in inspect.signature(Standardize.__init__).parameters
needs_robust = pytest.mark.skipif(not ROBUST, reason='needs Standardize(robust=True)')
dtypes = pytest.mark.parametrize('dtype', [torch.float32, torch.float64])

MAPS = {
    'interval': (lambda: Interval(0.1, 0.7), [(0.1, 0.7)] * 3),
    'of each': (
        lambda: Interval([0, -3, 1e6], [1, 0, 2e6]),
        [(0, 1), (-3, 0), (1e6, 2e6)],
    ),
    'positive': (lambda: Positive(), [(0, None)] * 3),
    'above': (
        lambda: Positive([-1.5, 0.3, 1e6]),
        [(-1.5, None), (0.3, None), (1e6, None)],
    ),
    'below': (lambda: Interval(None, -2.0), [(None, -2)] * 3),
    'mixed': (lambda: Support([None, (0, 1), (None, 4)]), [None, (0, 1), (None, 4)]),
}
maps = pytest.mark.parametrize('name', MAPS)


def inside(x, columns):
    "Whether all rows are strictly within the ends, as double precision sees them."
    x = x.double()
    for i, column in enumerate(columns):
        low, high = column or (None, None)
        low = -math.inf if low is None else low
        high = math.inf if high is None else high
        if not ((x[..., i] > low) & (x[..., i] < high)).all():
            return False
    return bool(x.isfinite().all())


# The maps.
@maps
@dtypes
def test_no_sample_is_outside_however_far_the_latent_is(name, dtype):
    make, columns = MAPS[name]
    layer = make().to(dtype)
    far = torch.cat([normal(200, 3) * s for s in (1, 10, 100, 1e4)]).to(dtype)
    x, log_det = layer(far)
    own = torch.float64 if layer.far else dtype  # at 1e6 single precision is coarse
    assert inside(x, columns) and log_det.isfinite().all() and x.dtype == own
    assert log_det.dtype == dtype
    z, back = layer.inverse(x)
    assert z.isfinite().all() and back.isfinite().all()
    near = far[:200]
    again, _ = layer.inverse(layer(near)[0])
    tol = 1e-8 if dtype == torch.float64 else 3e-3
    torch.testing.assert_close(again.to(dtype), near, atol=tol, rtol=tol)


def test_near_an_end_at_zero_no_digit_is_lost():
    z = torch.tensor([[-80.0, -40.0, 40.0, 80.0]])
    for low, high, good in [(-3, 0, z[:, 2:]), (0, 3, z[:, :2])]:
        layer = Interval(low, high)
        torch.testing.assert_close(layer.inverse(layer(good)[0])[0], good)


@maps
def test_log_determinants_are_those_of_autodiff(name):
    make, _ = MAPS[name]
    check_bijection(make().double(), 2 * normal(8, 3), tol=1e-6, max_points=8)
    layer = make().double()
    z = torch.cat([4 * normal(8, 3), torch.zeros(1, 3, dtype=torch.float64)])
    for point in z:
        J = torch.autograd.functional.jacobian(lambda z: layer(z)[0], point)
        assert abs(torch.linalg.slogdet(J).logabsdet - layer(point)[1]) < 1e-12


@maps
@dtypes
def test_gradients_are_finite_far_out(name, dtype):
    make, _ = MAPS[name]
    layer = make().to(dtype)
    z = (torch.tensor([-1e5, -700, -89, -17, 0, 17, 89, 700, 1e5])[:, None]).to(dtype)
    z = z.expand(-1, 3).clone().requires_grad_()
    x, log_det = layer(z)
    (g,) = torch.autograd.grad(x.sum() + log_det.sum(), z)
    assert g.isfinite().all()
    x = x.detach().requires_grad_()
    z, log_det = layer.inverse(x)
    (g,) = torch.autograd.grad(z.sum() + log_det.sum(), x)
    assert g.isfinite().all()


def test_shapes_of_events_and_batches():
    for layer, event in [
        (Interval(0, 1), (4,)),
        (Interval(0, 1, shape=()), ()),
        (Positive(shape=(1, 2, 2)), (1, 2, 2)),
        (Interval([[0, 1], [None, 3]], [[1, None], [2, 4]]), (2, 2)),
    ]:
        for batch in [(), (0,), (5,), (2, 3)]:
            z = normal(*batch, *event)
            x, log_det = layer.double()(z)
            assert x.shape == z.shape and log_det.shape == batch
            torch.testing.assert_close(layer.inverse(x)[0], z)
    with pytest.raises(ValueError, match=r'z: expected shape \(\.\.\., 3\)'):
        Interval([0, 0, 0], 1)(normal(5, 2))
    with pytest.raises(ValueError, match='shape'):
        Interval([0, 0], [1, 1], shape=(3,))


def test_ends_are_exact_in_any_precision_and_survive_a_file(tmp_path):
    layer = Interval(0.1, 0.7)
    assert layer.double().low.item() == 0.1
    assert layer.float().double().high.item() == 0.7
    assert layer.half().double().high.item() == 0.7
    flow = Flow(StandardNormal(2), Support([(0.1, 0.7), None]))
    flow = Flow(flow.base, Compose(Standardize(2), flow.bijection)).double()
    save(flow, tmp_path / 'a.safetensors')
    again = load(tmp_path / 'a.safetensors')
    x = flow.sample((5,))
    assert torch.equal(again.log_prob(x), flow.log_prob(x))
    assert again.bijection.layers[-1].low[0] == 0.1
    assert not any('low' in k or 'high' in k for k in flow.state_dict())


@pytest.mark.parametrize(
    ('call', 'words'),
    [
        (lambda: Interval(1, 0), 'expected low below high, got 1 and 0'),
        (lambda: Interval(0, math.nan), 'expected low below high'),
        (lambda: Interval([0, 0], [1, 1, 1]), 'low, high: expected numbers'),
        (lambda: Interval('a', 1), 'low: expected'),
        (lambda: Support([]), 'columns'),
        (lambda: Support([None, 3]), 'columns, coordinate 1'),
        (
            lambda: Interval(1e6, 1e6 + 0.01).inverse(torch.full((2,), 1e6)),
            'no room .*float32',
        ),
        (
            lambda: Interval(0, 1).inverse(torch.tensor([0.5, 1.0])),
            'coordinate 1.*margin',
        ),
        (
            lambda: Interval(0, 1).inverse(torch.tensor([0.5, 7.0])),
            'coordinate 1.*got 7',
        ),
        (lambda: Positive(2.0).inverse(torch.tensor([[2.0]])), 'low='),
        (
            lambda: Interval(0, 1, ()).inverse(torch.tensor([1.0])),
            'x: expected numbers',
        ),
        (lambda: Tails(-1), 'at: expected a number above 0'),
        (lambda: StudentT(0), 'dim'),
        (lambda: StudentT(2, -1), 'df'),
        (lambda: StudentT(2, [1, 2, 3]), 'df'),
        (lambda: StudentT(2, 'a'), 'df'),
        (lambda: choose_base('cauchy', 2), 'base: expected one of'),
        (lambda: choose_base(StandardNormal(3), 2), r'base: expected events \(2,\)'),
        (lambda: realnvp(3, support=[(0, 1), None]), 'support: expected'),
        (lambda: realnvp(3, support='positive'), 'support: expected'),
        (lambda: realnvp(3, support=[(0, 1), 2, None]), 'coordinate 1'),
        (lambda: realnvp(2, reach=-1), 'reach: expected a number above 0'),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_flow_can_be_built_without_memory():
    with torch.device('meta'):
        flow = realnvp(2, support=[(0, 1), None], base=StudentT(2, 3.0), hidden=(8,))
    assert all(t.device.type == 'meta' for t in [*flow.parameters(), *flow.buffers()])
    assert flow.to_empty(device='cpu').bijection.layers[-1].high[0] == 1


def test_one_pair_is_meant_for_all_and_a_list_for_each():
    assert read_support(None, 2) == [None, None]
    assert read_support((0, 1), 3) == [(0, 1)] * 3
    assert read_support([0, None], 2) == [[0, None]] * 2
    assert read_support([None, (0, 1)], 2) == [None, (0, 1)]
    assert not any(isinstance(b, Support) for b in realnvp(2).bijection.layers)


@maps
def test_transforms_of_torch_see_through(name):
    make, _ = MAPS[name]
    layer = make().double()
    z = normal(4, 3)
    whole = torch.compile(layer, backend='eager', fullgraph=True)
    torch.testing.assert_close(whole(z)[0], layer(z)[0])
    x = layer(z)[0]
    alone = torch.func.vmap(lambda x: layer.inverse(x)[0])(x)
    torch.testing.assert_close(alone, layer.inverse(x)[0])
    assert torch.func.jacrev(lambda x: layer.inverse(x)[0])(x[0]).isfinite().all()


# The flows.
@pytest.mark.parametrize(
    ('base', 'dtype', 'far'),
    [
        ('normal', torch.float32, 14),  # where single precision tells x from its ends
        ('normal', torch.float64, 30),
        ('logistic', torch.float64, 30),
        (StudentT(2, 5.0), torch.float64, 30),
    ],
)
def test_mass_on_the_support_is_one(base, dtype, far):
    columns = [(2.0, 5.0), (-1.0, None)]
    flow = realnvp(2, support=columns, hidden=(16,), base=base)
    flow = randomize(flow, 3, 0.3).to(dtype)
    grid = torch.linspace(-far, far, 901, dtype=dtype)
    x, log_det = Support(columns).to(dtype)(torch.cartesian_prod(grid, grid))
    with torch.no_grad():
        density = (flow.log_prob(x) + log_det).double().exp()
    mass = density.sum().item() * (2 * far / 900) ** 2
    assert abs(mass - 1) < (0.005 if isinstance(base, StudentT) else 0.002)
    assert inside(flow.sample((5000,)), columns)


@dtypes
def test_samples_of_a_trained_flow_stay_inside_at_any_temperature(dtype):
    x = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0))
    flow = realnvp(3, support=(0, 1), base='student', hidden=(16,))
    fit(flow, x, epochs=3, lr=1e-2)
    flow = flow.to(dtype)
    for t in (1.0, 10.0, 1e4):
        assert inside(flow.sample((2000,), temperature=t), [(0, 1)] * 3)
    assert evaluate(flow, x).mean() < 0.2


def test_the_uniform_law_needs_no_training():
    x = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0))
    flow = Flow(StandardLogistic(2), Interval(0, 1))
    assert evaluate(flow, x).abs().max() < 1e-4


@pytest.mark.parametrize(('a', 'b'), [(300.0, 5.0), (-7.0, 1e-6), (1e4, 1e3)])
def test_results_do_not_depend_on_units(a, b):
    generator = torch.Generator().manual_seed(1)
    u = torch.rand(1000, 2, generator=generator, dtype=torch.float64)
    x = torch.stack([u[:, 0], (2 * u[:, 1]).exp() - 1 + 0.1 * u[:, 0]], -1)
    losses = []
    for shift, scale in [(0.0, 1.0), (a, b)]:
        torch.manual_seed(0)
        ends = [(shift, shift + scale), (shift, None)]
        flow = realnvp(2, support=ends, hidden=(16,)).double()
        fit(flow, shift + scale * x, epochs=3, lr=5e-3, valid=0)
        losses.append(evaluate(flow, shift + scale * x) - 2 * math.log(scale))
    torch.testing.assert_close(losses[0], losses[1], atol=1e-3, rtol=1e-3)


def test_a_column_below_its_end_mirrors_one_above():
    z = normal(50, 2)
    up, log_up = Positive(1.0).double()(z)
    down, log_down = Interval(None, -1.0).double()(-z)
    torch.testing.assert_close(down, -up)
    torch.testing.assert_close(log_down, log_up)


# Tails.
@dtypes
def test_student_agrees_with_torch_and_is_stable(dtype):
    df = torch.tensor([0.5, 1.0, 3.0, 30.0, 1e6], dtype=dtype)
    base = StudentT(5, df.tolist()).to(dtype)
    z = 30 * normal(100, 5).to(dtype)
    law = torch.distributions.StudentT(df.double())
    tol = 1e-9 if dtype == torch.float64 else 1e-3
    expected = law.log_prob(z.double()).to(dtype)
    torch.testing.assert_close(base.log_density(z), expected, atol=tol, rtol=tol)
    learned = StudentT(2).to(dtype)
    z = torch.tensor([[1e30, -1e19], [0.0, 1e-30]], dtype=dtype, requires_grad=True)
    grads = torch.autograd.grad(learned.log_prob(z).sum(), [z, learned.log_df])
    assert learned.log_prob(z).isfinite().all() and all(
        g.isfinite().all() for g in grads
    )


@pytest.mark.parametrize('df', [1, 2, 3])
@dtypes
def test_draws_follow_the_density(df, dtype):
    cdf = {
        1: lambda t: 0.5 + t.atan() / math.pi,
        2: lambda t: 0.5 + t / (2 * (2 + t * t).sqrt()),
        3: lambda t: 0.5 + ((t / 3**0.5).atan() + 3**0.5 * t / (3 + t * t)) / math.pi,
    }[df]
    n = 50_000
    base = StudentT(1, df).to(dtype)
    z = base.sample((n,), torch.Generator().manual_seed(4))[:, 0]
    share = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    assert z.dtype == dtype
    assert (cdf(z.double().sort().values) - share).abs().max() < 1.63 / n**0.5
    again = base.sample((n,), torch.Generator().manual_seed(4))[:, 0]
    assert torch.equal(z, again)


def test_degrees_of_freedom_are_learned_and_saved(tmp_path):
    x = StudentT(2, [1.5, 4.0]).sample((8000,), torch.Generator().manual_seed(5))
    flow = Flow(StudentT(2), Compose(Coupling(2, Additive(), hidden=())))
    fit(flow, x, epochs=15, lr=0.03, valid=0)
    df = flow.base.df.detach()
    assert abs(df[0] - 1.5) < 0.3 and abs(df[1] - 4.0) < 1.2
    save(flow, tmp_path / 'a.safetensors')
    again = load(tmp_path / 'a.safetensors')
    assert torch.equal(again.base.df.detach(), df)
    z = flow.rsample((10,))
    (g,) = torch.autograd.grad(z.abs().sum(), flow.base.log_df)
    assert g.isfinite().all() and (g != 0).all()


def test_score_of_samples_and_temperature_agree():
    flow = randomize(nice(3, base='student', hidden=(8,)), 1, 0.5).double()
    for t in (1.0, 0.5):
        x, log_p = flow.sample_with_log_prob((50,), temperature=t)
        z, log_det = flow.bijection.inverse(x)
        expected = flow.base.log_prob(z / t) - 3 * math.log(t) + log_det
        torch.testing.assert_close(log_p, expected)


@dtypes
def test_tails_are_a_bijection_in_both_precisions(dtype):
    layer = Tails(3.0)
    z = 6 * normal(30, 4)
    check_bijection(layer, z, tol=1e-12, max_points=30)
    x, log_det = layer(torch.tensor([[-1e9, 3.0, 1e9, 0.0]]).to(dtype).requires_grad_())
    assert x.isfinite().all() and log_det.isfinite().all()
    back, _ = layer.inverse(x.detach())
    assert back.isfinite().all()
    assert inspect.signature(realnvp).parameters['tails'].default == 4.0


def funnel(n, dim, seed):
    e = normal(n, dim, seed=seed, dtype=torch.float32)
    x1 = 3 * e[:, :1]
    log_p = -0.5 * (e**2 + math.log(2 * math.pi)).sum(-1) - math.log(3)
    x = torch.cat([x1, (x1 / 2).exp() * e[:, 1:]], -1)
    return x, log_p - (dim - 1) * x1[:, 0] / 2


def test_far_rows_no_longer_ruin_a_mean():
    data, _ = funnel(10_000, 10, 0)
    new, truth = funnel(20_000, 10, 1)
    worst = {}
    for tails, reach in [(None, None), (4.0, 8.0)]:
        torch.manual_seed(0)
        flow = realnvp(10, hidden=(32, 32), tails=tails, reach=reach)
        fit(flow, data, epochs=10, lr=3e-3, batch_size=256, valid=0)
        gap = evaluate(flow, new) + truth
        worst[tails] = gap.max().item()
    assert worst[4.0] < worst[None] / 4


@needs_robust
def test_one_bad_row_is_not_noticed():
    x = normal(5000, 2, dtype=torch.float32)
    x[17] = 1e6
    flow = realnvp(2, robust=True, base='student', hidden=(32,))
    history = fit(flow, x, epochs=10, lr=3e-3)
    loss = evaluate(flow, normal(5000, 2, seed=1)).mean()
    assert loss < 1 + math.log(2 * math.pi) + 0.1 and history.train[-1] < 3.2


@needs_robust
def test_a_cauchy_law_in_the_plane():
    x = StudentT(2, 1.0).sample((10_000,), torch.Generator().manual_seed(6))
    new = StudentT(2, 1.0).sample((10_000,), torch.Generator().manual_seed(7))
    flow = realnvp(2, robust=True, base='student', hidden=(32,))
    fit(flow, x, epochs=15, lr=3e-3, valid=0)
    gap = evaluate(flow, new) + StudentT(2, 1.0).log_prob(new)
    assert gap.mean() < 0.1


# Couplings.
class Plain(Described, nn.Module):
    "A network that knows neither contexts nor rows."

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_in, 8), nn.Tanh(), nn.Linear(8, n_out))

    def forward(self, h):
        return self.layers(h)


def test_networks_without_context_or_rows(tmp_path):
    torch.manual_seed(0)
    layers = [AffineCoupling(5, Plain(2, 6)), AffineCoupling(5, Plain(3, 4), flip=True)]
    flow = Flow(StandardNormal(5), Compose(*layers)).double()
    for batch in [(), (1,), (2,), (4, 3)]:
        check_bijection(flow.bijection, normal(*batch, 5))
    save(flow, tmp_path / 'a.safetensors')
    x = normal(3, 5)
    assert torch.equal(load(tmp_path / 'a.safetensors').log_prob(x), flow.log_prob(x))
    with pytest.raises(ValueError, match='the output of net: expected shape'):
        AffineCoupling(5, Plain(2, 5))(torch.zeros(5))
    assert isinstance(AffineCoupling(4, bound=1.0, reach=3.0), Coupling)


@pytest.mark.parametrize('axis', [-1, -3])
def test_beyond_the_reach_nothing_changes(axis):
    torch.manual_seed(0)
    options = dict(hidden=(8,)) if axis == -1 else dict(width=8)
    layer = randomize(AffineCoupling(4, axis=axis, reach=2.0, **options)).double()
    event = (4,) if axis == -1 else (4, 2, 2)
    z = normal(3, *event)
    check_bijection(layer, z)
    far = z.clone()
    far.narrow(axis, 0, 2).mul_(100).sign_().mul_(50)
    edge = far.clone().clamp(-2, 2)
    for one in (far, edge):
        one.narrow(axis, 2, 2).fill_(1.0)
    changed = [layer(u)[0].narrow(axis, 2, 2) for u in (far, edge)]
    torch.testing.assert_close(*changed)
