"""What every layer and every finished flow promises.

The second half replays failures seen in released libraries."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from flowbook.check import BijectionError, check_bijection
from flowbook.core import (
    Bijection,
    Compose,
    Flow,
    Invert,
    Permute,
    Standardize,
    StandardLogistic,
    StandardNormal,
)
from flowbook.coupling import Additive, Coupling, DiagScale, nice
from flowbook.nets import MLP
from flowbook.pixels import Logit, Reshape, dequantize, on_pixels
from flowbook.realnvp import Affine, realnvp
from flowbook.toys import toys
from flowbook.train import fit, nll
from flowbook.variables import Exp, Hinge
from support import normal, python, randomize

C = 2  # length of the context, where a layer reads one


def standardize(dim):
    layer = Standardize(dim).double()
    layer.initialize(3 * normal(50, dim, seed=1) - 1)
    return layer


# name: (how to build it for vectors of length dim, the least dim, whether it reads a context)
LAYERS = {
    'Standardize': (standardize, 1, False),
    'DiagScale': (DiagScale, 1, False),
    'Exp': (lambda d: Compose(DiagScale(d), Exp(d)), 1, False),
    'Hinge': (lambda d: Hinge([0.3 * i for i in range(d)], 0.7), 1, False),
    'Permute': (
        lambda d: Permute(
            torch.randperm(d, generator=torch.Generator().manual_seed(0)).tolist()
        ),
        1,
        False,
    ),
    'Invert': (lambda d: Invert(DiagScale(d)), 1, False),
    'Compose': (
        lambda d: Compose(DiagScale(d), Permute(list(range(d))[::-1]), standardize(d)),
        1,
        False,
    ),
    'Logit': (lambda d: Logit(event_dim=1), 1, False),
    'Reshape': (
        lambda d: Compose(DiagScale(d), Reshape((d,), (1, d)), Reshape((1, d), (d,))),
        1,
        False,
    ),
    'Reshape to the end': (
        lambda d: Compose(DiagScale(d), Reshape((d,), (1, d, 1)), Logit(event_dim=3)),
        1,
        False,
    ),
    'Coupling additive': (lambda d: Coupling(d, Additive()), 2, False),
    'Coupling additive flipped': (
        lambda d: Coupling(d, Additive(), flip=True),
        2,
        False,
    ),
    'Coupling affine': (lambda d: Coupling(d, Affine()), 2, False),
    'Coupling affine flipped': (
        lambda d: Coupling(d, Affine(), flip=True, activation='silu'),
        2,
        False,
    ),
    'Coupling affine unbounded': (lambda d: Coupling(d, Affine(None)), 2, False),
    'Coupling affine inverted': (lambda d: Invert(Coupling(d, Affine())), 2, False),
    'Coupling affine narrow': (lambda d: Coupling(d, Affine(), hidden=(1,)), 2, False),
    'Coupling affine linear': (lambda d: Coupling(d, Affine(), hidden=()), 2, False),
    'Coupling with context': (lambda d: Coupling(d, Affine(), context_dim=C), 2, True),
    'Coupling with own net': (
        lambda d: Coupling(
            d, Additive(), net=MLP(d // 2, (d - d // 2, 1), hidden=(5,))
        ),
        2,
        False,
    ),
    'nice': (lambda d: nice(d).bijection, 2, False),
    'nice with order': (
        lambda d: nice(d, layers=3, order=list(range(d))[::-1]).bijection,
        2,
        False,
    ),
    'nice with context': (lambda d: nice(d, context_dim=C).bijection, 2, True),
    'realnvp': (lambda d: realnvp(d).bijection, 2, False),
    'realnvp with order': (
        lambda d: realnvp(d, order=list(range(d))[::-1]).bijection,
        2,
        False,
    ),
    'realnvp with context': (lambda d: realnvp(d, context_dim=C).bijection, 2, True),
}


def check(name, dim, batch=(2,), max_points=4):
    build, least, reads = LAYERS[name]
    if dim < least:
        pytest.skip(
            'needs two coordinates; refused, see test_a_coupling_refuses_one_coordinate'
        )
    layer = randomize(build(dim).double())
    context = normal(*batch, C, seed=3) if reads else None
    return check_bijection(
        layer, normal(*batch, dim, seed=2), context, tol=1e-10, max_points=max_points
    )


@pytest.mark.parametrize('dim', [1, 2, 3, 7, 64])
@pytest.mark.parametrize('name', LAYERS)
def test_layer_keeps_the_contract(name, dim):
    assert check(name, dim, max_points=2).points == 2


@pytest.mark.parametrize(
    'name',
    [
        'Standardize',
        'Permute',
        'Logit',
        'Coupling additive',
        'Coupling affine',
        'realnvp',
    ],
)
def test_layer_keeps_the_contract_in_784_dimensions(name):
    assert check(name, 784, max_points=1).points == 1


@pytest.mark.parametrize('batch, points', [((), 1), ((0,), 0), ((5,), 4), ((2, 3), 4)])
@pytest.mark.parametrize('name', LAYERS)
def test_batch_shape_is_free(name, batch, points):
    assert check(name, 3, batch).points == points


@pytest.mark.parametrize(
    'name, layer, shape',
    [
        ('Standardize', lambda: Standardize(2, 3), (2, 3)),
        ('Logit', lambda: Logit(), (1, 2, 2)),
        ('Reshape', lambda: Reshape((1, 2, 2), (4,)), (1, 2, 2)),
        ('Invert', lambda: Invert(Logit()), (1, 2, 2)),
        ('Compose', lambda: Compose(Standardize(1, 2, 2), Logit()), (1, 2, 2)),
    ],
)
def test_events_of_several_dimensions_keep_the_contract(name, layer, shape):
    z = normal(4, *shape)
    assert (
        check_bijection(
            layer().double(), z.sigmoid() * 256 if name == 'Invert' else z
        ).points
        == 4
    )


def test_inverted_reshape_knows_its_output_shape():
    flow = Flow(StandardNormal(1, 2, 2), Invert(Reshape((4,), (1, 2, 2))))
    assert tuple(flow.event_shape) == (4,)
    assert flow.log_prob(flow.sample((3,))).shape == (3,)


@pytest.mark.parametrize(
    'build',
    [lambda d: Coupling(d, Additive()), lambda d: Coupling(d, Affine()), nice, realnvp],
)
def test_a_coupling_refuses_one_coordinate(build):
    with pytest.raises(ValueError, match='at least 2'):
        build(1)


# What check_bijection is for: each of these is wrong in one way.
class Twice(Bijection):
    def forward(self, z, context=None):
        return 2 * z, z.new_full(z.shape[:-1], math.log(2) * z.shape[-1])

    def inverse(self, x, context=None):
        return x / 2, -x.new_full(x.shape[:-1], math.log(2) * x.shape[-1])


class WrongSign(Twice):
    def inverse(self, x, context=None):
        return x / 2, x.new_full(x.shape[:-1], math.log(2) * x.shape[-1])


class MissingFactor(Twice):
    def forward(self, z, context=None):
        return 2 * z, z.new_full(z.shape[:-1], math.log(2))


class NoInverse(Twice):
    def inverse(self, x, context=None):
        return x / 2 + 1e-6, -x.new_full(x.shape[:-1], math.log(2) * x.shape[-1])


class WrongShape(Twice):
    def forward(self, z, context=None):
        return 2 * z, torch.tensor(math.log(2) * z.shape[-1], dtype=z.dtype)


class Single(Twice):
    def forward(self, z, context=None):
        return (2 * z.float()).double(), z.new_full(
            z.shape[:-1], math.log(2) * z.shape[-1]
        )


class Detached(Twice):
    def forward(self, z, context=None):
        return 2 * z.detach() + 0 * z, z.new_full(
            z.shape[:-1], math.log(2) * z.shape[-1]
        )


class BatchDependent(Twice):
    def forward(self, z, context=None):
        return 2 * z + z.mean(), z.new_full(z.shape[:-1], math.log(2) * z.shape[-1])


class Loose(Twice):
    def __init__(self):
        super().__init__()
        self.two = torch.tensor(2.0)


def test_check_bijection_passes_a_right_layer():
    assert check_bijection(Twice(), normal(3, 2)).log_det < 1e-12


@pytest.mark.parametrize(
    'mutant',
    [
        WrongSign,
        MissingFactor,
        NoInverse,
        WrongShape,
        Single,
        Detached,
        BatchDependent,
        Loose,
    ],
)
def test_check_bijection_catches(mutant):
    with pytest.raises(BijectionError):
        check_bijection(mutant(), normal(3, 2))


# Failures of released libraries, one test each.
FLOWS = {
    'nice': nice,
    'realnvp': realnvp,
    'realnvp unbounded': lambda d, **k: realnvp(d, bound=None, **k),
    'realnvp narrow': lambda d, **k: realnvp(d, hidden=(1,), **k),
}
flows = pytest.mark.parametrize('name', FLOWS)


def make(name, dim=3, dtype=torch.float32, seed=0, **kwargs):
    flow = FLOWS[name](dim, **kwargs)
    context = (
        torch.zeros(100, kwargs['context_dim']) if 'context_dim' in kwargs else None
    )
    flow.bijection.initialize(
        2 * normal(100, dim, seed=9, dtype=torch.float32) + 1, context
    )
    return randomize(flow, seed, 0.7).to(dtype)


@flows
@pytest.mark.parametrize('dim', [2, 3, 7, 64])
@pytest.mark.parametrize('dtype, tol', [(torch.float32, 1e-4), (torch.float64, 1e-11)])
def test_round_trip_in_single_and_double_precision(name, dim, dtype, tol):
    flow, z = make(name, dim, dtype), normal(20, dim, dtype=dtype)
    x, log_det = flow.bijection(z)
    back, log_det_back = flow.bijection.inverse(x)
    torch.testing.assert_close(back, z, rtol=tol, atol=tol)
    torch.testing.assert_close(log_det_back, -log_det, rtol=tol, atol=tol * dim)


@flows
def test_a_sample_is_scored_alike_in_one_pass_and_by_log_prob(name):
    flow = make(name, dtype=torch.float64)
    x, log_p = flow.sample_with_log_prob(
        (50,), generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(flow.log_prob(x), log_p, rtol=1e-10, atol=1e-10)


@flows
@pytest.mark.parametrize(
    'what', ['log_prob', 'sample', 'rsample', 'sample_with_log_prob']
)
def test_each_conditioner_runs_once(name, what):
    flow, calls = make(name), []
    nets = [m for m in flow.modules() if isinstance(m, MLP)]
    for m in nets:
        m.register_forward_hook(lambda m, *_: calls.append(m))
    flow.log_prob(torch.zeros(4, 3)) if what == 'log_prob' else getattr(flow, what)(
        (4,)
    )
    assert len(calls) == len(nets) and set(calls) == set(nets)


@flows
def test_first_call_after_loading_state_is_bit_equal(name):
    flow, x = make(name), normal(8, 3, dtype=torch.float32)
    fresh = FLOWS[name](3).train()
    fresh.load_state_dict(flow.state_dict())
    assert torch.equal(fresh.log_prob(x), flow.log_prob(x))
    fresh.bijection.initialize(100 * x)
    assert torch.equal(fresh.log_prob(x), flow.log_prob(x)), (
        'the statistics were measured again after loading'
    )


@flows
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_precision_goes_through(name, dtype):
    flow = make(name, dtype=dtype)
    x, log_p = flow.sample_with_log_prob((4,))
    loss = nll(flow, x)
    loss.sum().backward()
    assert {
        x.dtype,
        log_p.dtype,
        flow.log_prob(x).dtype,
        loss.dtype,
        *(t.dtype for pair in flow.trace(x) for t in pair),
        *(p.grad.dtype for p in flow.parameters()),
    } == {dtype}
    assert {t.dtype for t in flow.state_dict().values() if t.is_floating_point()} == {
        dtype
    }


@flows
@pytest.mark.parametrize(
    'clone',
    [copy.deepcopy, lambda flow: pickle.loads(pickle.dumps(flow))],
    ids=['deepcopy', 'pickle'],
)
def test_a_flow_can_be_copied_after_a_call_with_gradients(name, clone):
    flow, x = make(name), normal(4, 3, dtype=torch.float32)
    flow.log_prob(x).sum().backward()
    flow.rsample((4,)).sum().backward()
    twin = clone(flow)
    assert torch.equal(twin.log_prob(x), flow.log_prob(x)) and repr(twin) == repr(flow)
    with torch.no_grad():
        next(twin.parameters()).add_(1.0)
    assert not torch.equal(twin.log_prob(x), flow.log_prob(x)), (
        'the copy shares its weights'
    )


def pixels():
    flow = on_pixels(realnvp(4), (1, 2, 2))
    return randomize(flow, size=0.7), 256 * normal(
        6, 1, 2, 2, dtype=torch.float32
    ).sigmoid()


@pytest.mark.parametrize('name', [*FLOWS, 'pixels'])
def test_vmap_over_single_points_agrees_with_the_batch(name):
    flow, x = (
        pixels()
        if name == 'pixels'
        else (make(name), normal(6, 3, dtype=torch.float32))
    )
    torch.testing.assert_close(torch.func.vmap(flow.log_prob)(x), flow.log_prob(x))


@pytest.mark.parametrize('name', ['realnvp', 'pixels'])
def test_log_prob_compiles_into_one_graph(name):
    flow, x = (
        pixels()
        if name == 'pixels'
        else (make(name), normal(6, 3, dtype=torch.float32))
    )
    with torch.no_grad():
        compiled = torch.compile(flow.log_prob, fullgraph=True, backend='eager')(x)
    torch.testing.assert_close(compiled, flow.log_prob(x))


@flows
def test_extreme_inputs_have_finite_values_and_gradients(name):
    flow = make(name)
    for value in (0.0, 1e4, -1e4):
        x = torch.full((2, 3), value, requires_grad=True)
        for y in (flow.log_prob(x), torch.cat(flow.bijection(x)[:1])):
            grads = torch.autograd.grad(
                y.sum(), [x, *flow.parameters()], allow_unused=True
            )
            assert torch.isfinite(y).all(), value
            assert all(torch.isfinite(g).all() for g in grads if g is not None), value


@flows
def test_an_empty_batch_goes_through(name):
    flow = make(name)
    x, log_p = flow.sample_with_log_prob((0,))
    log_p.sum().backward()
    assert x.shape == (0, 3) and log_p.shape == (0,)
    assert flow.log_prob(torch.zeros(2, 0, 3)).shape == (2, 0)


def test_importing_the_package_changes_no_global_state():
    python('''
import random, warnings
import numpy, torch
torch.set_num_threads(1)
def state():
    return (
        torch.get_default_dtype(),
        torch.get_rng_state().tolist(),
        torch.distributions.Distribution._validate_args,
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_default_device(),
        torch.backends.cuda.matmul.allow_tf32,
        torch.get_float32_matmul_precision(),
        random.getstate(),
        numpy.random.get_state()[1].tolist(),
        numpy.geterr(),
        torch._tensor_str.PRINT_OPTS.precision,
        torch.Tensor.__repr__,
        len(warnings.filters),
    )
before = state()
import flowbook, flowbook.core, flowbook.train, flowbook.coupling, flowbook.realnvp
import flowbook.pixels, flowbook.data
assert state() == before
try: torch.distributions.Normal(0., -1.)
except ValueError: pass
else: raise AssertionError('Distribution validation is off')
''')


def test_affine_scale_reaches_above_10_and_below_a_tenth_by_default():
    layer = Coupling(2, Affine()).double()
    for sign in (1, -1):
        with torch.no_grad():
            layer.net.layers[-1].bias.copy_(torch.tensor([sign * 20.0, 0.0]))
        scale = layer(torch.zeros(2, dtype=torch.float64))[1].exp().item()
        assert scale > 10 if sign > 0 else scale < 0.1


def mass(flow, half=10.0, n=300):
    "The integral of the density over a square about the mean, on a grid of n × n cells."
    x = flow.sample((4000,), generator=torch.Generator().manual_seed(0))
    axes = [
        torch.linspace(-half, half, n, dtype=torch.float64) * x[:, i].std()
        + x[:, i].mean()
        for i in (0, 1)
    ]
    with torch.no_grad():
        p = flow.log_prob(torch.cartesian_prod(*axes)).exp()
    return (p.sum() * (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])).item()


@pytest.mark.parametrize('name', ['nice', 'realnvp'])
def test_untrained_density_integrates_to_one(name):
    assert mass(make(name, 2, torch.float64)) == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize('name', ['nice', 'realnvp'])
def test_fitted_density_integrates_to_one(name):
    torch.manual_seed(0)
    flow = FLOWS[name](2, hidden=(32,))
    fit(
        flow,
        toys['banana'].sample,
        epochs=2,
        epoch_size=12_800,
        batch_size=256,
        lr=3e-3,
        valid=0,
    )
    assert mass(flow.double()) == pytest.approx(1, abs=1e-2)


def test_discrete_data_cannot_get_more_probability_than_there_is():
    flow = on_pixels(realnvp(2, hidden=(32,)), (1, 1, 2), levels=8)
    x = (
        torch.randint(0, 2, (2000, 1, 1, 2), generator=torch.Generator().manual_seed(0))
        * 7
    )
    fit(flow, x, prepare=lambda b: dequantize(b, levels=8), epochs=3, lr=3e-3, valid=0)
    flow.double()
    grid = (torch.arange(400, dtype=torch.float64) + 0.5) / 50
    with torch.no_grad():
        p = (
            flow.log_prob(torch.cartesian_prod(grid, grid)[:, None, None]).exp().sum()
            / 50**2
        )
    assert p.item() <= 1 + 1e-2
    with torch.no_grad():
        bits = -flow.log_prob(
            dequantize(x, dtype=torch.float64, levels=8)
        ).mean().item() / (2 * math.log(2))
    assert bits > 1 - 0.05, 'two fair coins per image have 1 bit per pixel'


# Sampling, context, distributions.
@pytest.mark.parametrize(
    'base, variance', [(StandardNormal, 1.0), (StandardLogistic, math.pi**2 / 3)]
)
def test_base_has_its_density_and_its_moments(base, variance):
    z = base(1).double().sample((20_000,), torch.Generator().manual_seed(0))
    assert z.mean().abs() < 0.05 and z.var().item() == pytest.approx(variance, rel=0.05)
    grid = torch.linspace(-40, 40, 8001, dtype=torch.float64)[:, None]
    assert (base(1).log_prob(grid).exp().sum() * 0.01).item() == pytest.approx(
        1, abs=1e-6
    )
    assert torch.isfinite(base(1).log_prob(torch.tensor([[1e4], [-1e4]]))).all()


@pytest.mark.parametrize('temperature', [0.5, 1.0, 2.0])
def test_temperature_multiplies_the_standard_deviation_of_the_base(temperature):
    flow = Flow(StandardNormal(2), Permute([1, 0])).double()
    x, log_p = flow.sample_with_log_prob(
        (20_000,), temperature=temperature, generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(
        log_p, torch.distributions.Normal(0.0, temperature).log_prob(x).sum(-1)
    )
    assert x.std().item() == pytest.approx(temperature, rel=0.02)


@pytest.mark.parametrize('temperature', [0, -1, math.nan])
def test_temperature_must_be_above_zero(temperature):
    with pytest.raises(ValueError, match='temperature'):
        realnvp(2).sample((3,), temperature=temperature)


@pytest.mark.parametrize('shape', [(), (3,), (2, 3), 3])
def test_samples_have_the_shape_asked_for_and_repeat_with_the_generator(shape):
    flow = make('realnvp')
    draws = [
        flow.sample(shape, generator=torch.Generator().manual_seed(4)) for _ in range(2)
    ]
    assert (
        draws[0].shape == ((3, 3) if shape == 3 else (*shape, 3))
        and torch.equal(*draws)
        and not draws[0].requires_grad
    )
    assert flow.rsample(shape).requires_grad


def test_trace_ends_at_the_sample_and_its_log_determinant():
    flow, z = make('realnvp', dtype=torch.float64), normal(5, 3)
    states = list(flow.trace(z))
    assert len(states) == len(flow.bijection.layers) + 1 and torch.equal(
        states[0][0], z
    )
    for got, want in zip(states[-1], flow.bijection(z)):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    'x_shape, c_shape',
    [((5,), ()), ((4, 5), (5,)), ((4, 5), (4, 1)), ((), (5,)), ((4, 1), (5,))],
)
def test_context_and_data_broadcast(x_shape, c_shape):
    flow, x, c = (
        make('realnvp', context_dim=C),
        normal(*x_shape, 3, dtype=torch.float32),
        normal(*c_shape, C, dtype=torch.float32),
    )
    batch = torch.broadcast_shapes(x_shape, c_shape)
    want = flow.log_prob(x.expand(*batch, 3), c.expand(*batch, C))
    torch.testing.assert_close(flow.log_prob(x, c), want)


def test_samples_stand_in_front_of_the_batch_of_the_context():
    flow, c = make('realnvp', context_dim=C), normal(5, C, dtype=torch.float32)
    x, log_p = flow.sample_with_log_prob((4,), c)
    assert x.shape == (4, 5, 3) and log_p.shape == (4, 5)
    torch.testing.assert_close(flow.log_prob(x, c), log_p, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(flow.log_prob(x, c + 1), log_p), (
        'the context changes nothing'
    )


@pytest.mark.parametrize(
    'context_dim, context',
    [(2, None), (2, torch.zeros(4, 3)), (0, torch.zeros(4, 2)), (2, torch.zeros(7, 2))],
)
def test_wrong_context_is_refused_by_name(context_dim, context):
    flow = realnvp(3, context_dim=context_dim)
    with pytest.raises(ValueError, match='context'):
        flow.log_prob(torch.zeros(4, 3), context)


@pytest.mark.parametrize(
    'x', [torch.zeros(4, 2), torch.zeros(2), torch.zeros(()), torch.zeros(3, 4)]
)
def test_wrong_event_shape_is_refused_by_name(x):
    with pytest.raises(ValueError, match=r'x: expected shape \(\.\.\., 3\)'):
        realnvp(3).log_prob(x)


@pytest.mark.parametrize('batch', [(), (5,)])
def test_a_flow_is_a_torch_distribution(batch):
    flow = make('realnvp', context_dim=C)
    d = flow.distribution(normal(*batch, C, dtype=torch.float32))
    assert isinstance(d, torch.distributions.Distribution) and d.has_rsample
    assert d.batch_shape == batch and d.event_shape == (3,)
    x = d.rsample((4,))
    assert (
        x.shape == d.sample(torch.Size([4])).shape == (4, *batch, 3)
        and x.requires_grad
        and not d.sample().requires_grad
    )
    assert d.log_prob(x).shape == (4, *batch)
    assert d.log_prob(torch.zeros(3)).shape == batch, (
        'one point against every member of the batch'
    )
    assert 'FlowDistribution' in repr(d)


@pytest.mark.parametrize(
    'call',
    [
        lambda: nice(2, base='cauchy'),
        lambda: realnvp(2, bound=0),
        lambda: realnvp(2, activation='sine'),
        lambda: realnvp(3, order=[0, 1]),
        lambda: Permute([0, 0]),
        lambda: Compose(),
        lambda: Logit(lam=0.5),
        lambda: Reshape((4,), (1, 3)),
        lambda: on_pixels(realnvp(3), (1, 2, 2)),
        lambda: Coupling(4, Affine(), net=nn.Linear(2, 3))(torch.zeros(4)),
    ],
)
def test_wrong_arguments_are_refused_with_a_reason(call):
    with pytest.raises(ValueError, match='expected|at least'):
        call()


@pytest.mark.parametrize(
    'build',
    [nice, realnvp, lambda d: Coupling(d, Additive()), lambda d: Coupling(d, Affine())],
)
def test_a_misspelt_keyword_is_refused(build):
    with pytest.raises(TypeError, match='hiden'):
        build(2, hiden=(3,))


cuda = pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason='needs a CUDA device; torch.cuda.is_available() is False here',
)


@cuda
@flows
def test_cuda_agrees_with_the_cpu(name):
    flow, x = make(name, dtype=torch.float64), normal(20, 3)
    want = flow.log_prob(x)
    flow.cuda()
    torch.testing.assert_close(
        flow.log_prob(x.cuda()).cpu(), want, rtol=1e-9, atol=1e-9
    )
    sample, log_p = flow.sample_with_log_prob(
        (4,), generator=torch.Generator('cuda').manual_seed(0)
    )
    assert (
        sample.is_cuda
        and log_p.is_cuda
        and all(t.is_cuda for t in flow.state_dict().values())
    )


@cuda
def test_fit_on_cuda_brings_the_flow_home():
    flow = realnvp(2)
    history = fit(flow, toys['banana'].sample, epochs=2, epoch_size=2000, device='cuda')
    assert next(flow.parameters()).device.type == 'cpu' and math.isfinite(history.best)
