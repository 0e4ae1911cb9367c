"""Flows on images: the contract on 4-D tensors, whole multi-scale flows.

Also learned noise, files, and bad input."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from flowbook.check import check_bijection
from flowbook.core import Compose, Flow, Permute, StandardLogistic, StandardNormal
from flowbook.coupling import Additive, Coupling
from flowbook.data import mnist10k
from flowbook.described import build, describe
from flowbook.files import load, save
from flowbook.glow import ActNorm, GlowStep, InvConv1x1, glow
from flowbook.ladder import baselines, count_levels, gaussian_bits, histogram_bits
from flowbook.multiscale import CheckerboardCoupling, Split, Squeeze, realnvp_images
from flowbook.nets import ConvNet
from flowbook.pixels import (
    Dequantized,
    LearnedNoise,
    Logit,
    bits_per_dim,
    dequantize,
    evaluate_bits,
    image_bits,
    levels_of,
    on_pixels,
)
from flowbook.realnvp import Affine, realnvp
from flowbook.records import read_run, shipped_flows
from flowbook.train import fit
from support import ROOT, normal, python, randomize


def norm(c):
    layer = ActNorm(c).double()
    layer.initialize(3 * normal(20, c, 4, 4, seed=1) - 1)
    return layer


# name: (how to build it for c channels of 4×4 pixels, the least c, a divisor of c,
# length of the context)
LAYERS = {
    'ActNorm': (norm, 1, 1, 0),
    'InvConv1x1': (InvConv1x1, 1, 1, 0),
    'GlowStep': (lambda c: GlowStep(c, width=8), 2, 1, 0),
    'GlowStep with context': (lambda c: GlowStep(c, width=8, context_dim=3), 2, 1, 3),
    'ChannelCoupling': (lambda c: Coupling(c, Affine(), axis=-3, width=8), 2, 1, 0),
    'ChannelCoupling flipped': (
        lambda c: Coupling(
            c, Additive(), axis=-3, width=8, flip=True, activation='silu'
        ),
        2,
        1,
        0,
    ),
    'CheckerboardCoupling': (
        lambda c: CheckerboardCoupling(c, Affine(), width=8),
        1,
        1,
        0,
    ),
    'CheckerboardCoupling flipped': (
        lambda c: CheckerboardCoupling(
            c, Affine(), width=8, blocks=1, flip=True, context_dim=3
        ),
        1,
        1,
        3,
    ),
    'Squeeze': (lambda c: Squeeze(), 4, 4, 0),
}


@pytest.mark.parametrize('channels', [1, 2, 3, 4, 5, 12])
@pytest.mark.parametrize('name', LAYERS)
def test_layer_keeps_the_contract_on_images(name, channels):
    build, least, divisor, context_dim = LAYERS[name]
    if channels < least or channels % divisor:
        pytest.skip('refused, see the tests of bad input')
    context = normal(2, context_dim, seed=3) if context_dim else None
    assert (
        check_bijection(
            randomize(build(channels).double()),
            normal(2, channels, 4, 4, seed=2),
            context,
            tol=1e-9,
        ).points
        == 2
    )


@pytest.mark.parametrize('prior', [False, True])
@pytest.mark.parametrize('shape', [(2, 4, 4), (3, 4, 2), (5, 2, 2)])
def test_split_keeps_the_contract(shape, prior):
    c, h, w = shape
    split = Split(CheckerboardCoupling(c - c // 2, Affine(), width=8), shape)
    layer = randomize(
        (
            Compose(split, Coupling(c, Affine(), axis=-3, width=4 * c))
            if prior
            else split
        ).double()
    )
    assert check_bijection(layer, normal(2, math.prod(shape)), tol=1e-9).points == 2
    assert layer.output_shape((math.prod(shape),)) == shape and layer.input_shape(
        shape
    ) == (math.prod(shape),)


FLOWS = {
    'glow': lambda shape, **k: glow(shape, **k, steps=2, width=8),
    'realnvp': lambda shape, **k: realnvp_images(shape, **k, width=8),
    'glow in three scales': lambda shape, **k: glow(
        shape, **k, scales=3, steps=1, width=8
    ),
    'glow in one scale': lambda shape, **k: glow(
        shape, **k, scales=1, steps=2, width=8
    ),
}


@pytest.mark.parametrize('shape', [(1, 8, 8), (3, 8, 8), (2, 8, 16), (5, 8, 8)])
@pytest.mark.parametrize('name', FLOWS)
def test_whole_flow_keeps_the_contract(name, shape):
    flow = randomize(FLOWS[name](shape).double(), size=0.7)
    assert (
        check_bijection(
            flow.bijection, normal(2, *flow.base.event_shape), tol=1e-9, max_points=1
        ).points
        == 1
    )
    assert flow.event_shape == shape and math.prod(flow.base.event_shape) == math.prod(
        shape
    )


@pytest.mark.parametrize('shape', [(1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize('name', ['glow', 'realnvp'])
def test_whole_flow_keeps_the_contract_at_full_size(name, shape):
    torch.manual_seed(0)
    flow = randomize(FLOWS[name](shape).double(), size=0.5)
    z = normal(1, *flow.base.event_shape)
    x, log_det = flow.bijection(z)
    back, log_det_back = flow.bijection.inverse(x)
    torch.testing.assert_close(back, z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-9, atol=1e-9)
    J = (
        torch.autograd.functional.jacobian(
            lambda v: flow.bijection(v)[0].flatten(), z, vectorize=False
        )[:, 0]
        if shape[0] == 1
        else None
    )
    if J is not None:
        torch.testing.assert_close(
            torch.linalg.slogdet(J).logabsdet, log_det[0], rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize('name', FLOWS)
@pytest.mark.parametrize('batch', [(), (0,), (3,), (2, 3)])
def test_one_code_path_for_any_batch_shape(name, batch):
    flow = randomize(FLOWS[name]((1, 8, 8), context_dim=3).double(), size=0.5)
    context = normal(3, seed=4)
    x, log_p = flow.sample_with_log_prob(
        batch, context, generator=torch.Generator().manual_seed(0)
    )
    assert x.shape == (*batch, 1, 8, 8) and log_p.shape == batch
    torch.testing.assert_close(flow.log_prob(x, context), log_p, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    'flow', [realnvp(4), glow((1, 8, 8), steps=1, width=8)], ids=['vectors', 'images']
)
def test_trace_ends_at_the_sample(flow):
    flow = randomize(flow.double(), size=0.5)
    z = flow.base.sample((3,))
    *_, (x, log_det) = flow.trace(z)
    torch.testing.assert_close(flow.bijection(z), (x, log_det))
    torch.testing.assert_close(flow.log_prob(x), flow.base.log_prob(z) - log_det)


@pytest.mark.parametrize('name', FLOWS)
def test_a_new_flow_has_unit_volume_and_ignores_its_context(name):
    torch.manual_seed(0)
    flow = FLOWS[name]((1, 8, 8), context_dim=3).double()
    x = normal(4, 1, 8, 8)
    torch.testing.assert_close(
        flow.log_prob(x, normal(4, 3)), flow.log_prob(x, normal(4, 3, seed=1))
    )
    torch.testing.assert_close(
        flow.log_prob(x, normal(4, 3)),
        StandardNormal(64).double().log_prob(x.flatten(1)),
    )


def test_actnorm_starts_at_the_statistics_once_and_keeps_a_constant_channel():
    x = 5 * normal(100, 3, 4, 4) + 2
    x[:, 1] = 0.1  # no variance, and a mean that is not exact in binary
    layer = ActNorm(3).double()
    layer.initialize(x)
    z, log_det = layer.inverse(x)
    values = z.movedim(1, 0).flatten(1)
    torch.testing.assert_close(
        values.mean(1), torch.zeros(3).double(), atol=1e-12, rtol=0
    )
    torch.testing.assert_close(
        values.std(1, correction=0),
        torch.tensor([1.0, 0.0, 1.0]).double(),
        atol=1e-12,
        rtol=0,
    )
    assert log_det.isfinite().all()
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    layer.initialize(100 * x)
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())


def test_a_flow_fitted_to_a_constant_border_is_finite():
    x = torch.zeros(64, 1, 8, 8)
    x[:, :, 2:6, 2:6] = normal(64, 1, 4, 4, dtype=torch.float32)
    flow = glow((1, 8, 8), steps=2, width=8)
    assert math.isfinite(
        fit(
            flow,
            x + 1e-3 * normal(64, 1, 8, 8, seed=2, dtype=torch.float32),
            epochs=1,
            seed=0,
        ).train[-1]
    )


@pytest.mark.parametrize(
    'build',
    [
        lambda: glow((1, 8, 8), steps=2, width=8),
        lambda: on_pixels(
            glow((1, 8, 8), steps=1, width=8, context_dim=10), (1, 8, 8), lam=0.05
        ),
        lambda: on_pixels(realnvp_images((1, 8, 8), width=8), (1, 8, 8)),
        lambda: Dequantized(
            on_pixels(glow((1, 8, 8), steps=1, width=8), (1, 8, 8)),
            LearnedNoise((1, 8, 8), width=8),
        ),
    ],
)
def test_what_is_loaded_is_bit_equal_and_not_started_again(tmp_path, build):
    torch.manual_seed(0)
    model, x = (
        build(),
        torch.randint(
            256, (20, 1, 8, 8), generator=torch.Generator().manual_seed(0)
        ).float(),
    )
    context = (
        torch.eye(10)[torch.arange(20) % 10]
        if any(getattr(m, 'context_dim', 0) == 10 for m in model.modules())
        else None
    )
    model.initialize(x + (0 if model.discrete else 0.5), context)
    save(model, tmp_path / 'm.safetensors')
    again = load(tmp_path / 'm.safetensors')
    again.initialize(
        (x / 2).floor(), context
    )  # has no effect: the state says that the start was chosen
    assert all(
        torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items()
    )

    def score(m):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return m.loss(x + (0 if m.discrete else 0.5), context)

    assert torch.equal(score(again), score(model))


def test_another_process_scores_alike(tmp_path):
    torch.manual_seed(0)
    flow = glow((1, 8, 8), steps=2, width=8)
    x = normal(8, 1, 8, 8, dtype=torch.float32)
    flow.initialize(3 * x + 1)
    save(flow, tmp_path / 'f.safetensors')
    code = '''
import sys, torch
from flowbook.files import load
import flowbook.glow
torch.set_num_threads(1)
flow = load(sys.argv[1])
generator = torch.Generator().manual_seed(0)
x = torch.randn((8, 1, 8, 8), generator=generator, dtype=torch.float64).float()
flow.initialize(100*x)
print(flow.log_prob(x).double().sum().item())'''
    torch.testing.assert_close(
        float(python(code, tmp_path / 'f.safetensors')),
        flow.log_prob(x).double().sum().item(),
        rtol=1e-6,
        atol=0,
    )


def test_convnet_gives_the_same_alone_and_in_a_large_batch():
    net = randomize(ConvNet(2, (3, 1), width=64))
    x = normal(70, 2, 14, 14, dtype=torch.float32)
    torch.testing.assert_close(net(x)[37], net(x[37]), rtol=1e-4, atol=1e-5)


def test_context_of_one_vector_equals_constant_planes():
    net = randomize(ConvNet(2, (3, 1), width=8, context_dim=4).double())
    x, c = normal(5, 2, 6, 6), normal(5, 4)
    torch.testing.assert_close(net(x, c), net(x, c[..., None, None].expand(5, 4, 6, 6)))


def test_learned_noise_is_scored_by_its_own_density():
    noise = randomize(LearnedNoise((1, 4, 4), width=8).double())
    x = torch.randint(
        256, (1, 1, 4, 4), generator=torch.Generator().manual_seed(0)
    ).double()
    u, log_q = noise.sample(x, torch.Generator().manual_seed(1))
    assert u.shape == x.shape and (0 < u).all() and (u < 1).all()
    context = noise.look(Squeeze().inverse(x / 256 - 0.5)[0])
    e, log_det = noise.flow.inverse(torch.logit(u), context)
    expected = (
        StandardNormal(4, 2, 2).double().log_prob(e)
        + log_det
        - (u * (1 - u)).log().sum()
    )
    torch.testing.assert_close(log_q, expected, rtol=1e-8, atol=1e-8)


def test_uniform_noise_is_the_case_q_equal_to_one():
    class Even(LearnedNoise):
        def sample(self, x, generator=None):
            return torch.rand(x.shape, generator=generator, dtype=x.dtype), x.new_zeros(
                len(x)
            )

    flow = on_pixels(realnvp_images((1, 8, 8), width=8), (1, 8, 8))
    images = torch.randint(
        256,
        (50, 1, 8, 8),
        generator=torch.Generator().manual_seed(0),
        dtype=torch.uint8,
    )
    assert evaluate_bits(flow, images, noises=3) == evaluate_bits(
        Dequantized(flow, Even((1, 8, 8))), images, noises=3
    )


@pytest.mark.parametrize('kind', [np.int16, torch.tensor, np.array])
def test_settings_of_a_score_may_be_any_whole_number(kind):
    x = torch.randint(0, 16, (6, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    flow = on_pixels(glow((1, 4, 4), scales=1, steps=1, width=4), (1, 4, 4))
    plain = evaluate_bits(flow, x, seed=3, noises=2, batch_size=5)
    given = dict(seed=kind(3), noises=kind(2), batch_size=kind(5))
    assert evaluate_bits(flow, x, **given) == plain
    assert plain != evaluate_bits(flow, x, seed=4, noises=2, batch_size=5)
    assert gaussian_bits(x, x, seed=kind(3)) == gaussian_bits(x, x, seed=3)


def test_fit_takes_whole_numbers_for_learned_noise_and_improves():
    torch.manual_seed(0)
    images, labels = mnist10k('train')
    small = images[:1500, :, 6:22, 6:22]
    model = Dequantized(
        on_pixels(
            glow((1, 16, 16), steps=2, width=16, context_dim=10), (1, 16, 16), lam=0.05
        ),
        LearnedNoise((1, 16, 16), width=8),
    )
    classes = torch.nn.functional.one_hot(labels[:1500], 10).float()
    model.initialize(small.float(), classes)
    before = evaluate_bits(model, small, classes).mean
    fit(model, small, classes, epochs=2, batch_size=32, lr=3e-3, seed=0)
    assert evaluate_bits(model, small, classes).mean < before - 1
    assert model.sample((2,), classes[:3]).shape == (2, 3, 1, 16, 16)


def test_every_pixel_costs_at_least_its_share_of_a_code():
    "Bits per dimension of a flow on noise cannot be below 8, the entropy of noise."
    images = torch.randint(
        256,
        (200, 1, 8, 8),
        generator=torch.Generator().manual_seed(0),
        dtype=torch.uint8,
    )
    flow = on_pixels(glow((1, 8, 8), steps=2, width=8), (1, 8, 8), lam=0.05)
    fit(flow, images[:150], prepare=dequantize, epochs=2, seed=0)
    assert evaluate_bits(flow, images[150:]).mean > 7.9
    assert bits_per_dim(-64 * 8 * math.log(2), 64) == pytest.approx(8)


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda: glow((1, 9, 8)), 'even sides, got \\(1, 9, 8\\)'),
        (lambda: glow((1, 6, 6)), 'even sides'),
        (
            lambda: glow((1, 8, 8)).log_prob(torch.zeros(2, 1, 8, 10)),
            'x: expected shape \\(..., 1, 8, 8\\), got \\(2, 1, 8, 10\\)',
        ),
        (
            lambda: glow((1, 8, 8)).log_prob(torch.zeros(2, 3, 8, 8)),
            'x: expected shape \\(..., 1, 8, 8\\), got \\(2, 3, 8, 8\\)',
        ),
        (
            lambda: glow((1, 8, 8), context_dim=3).log_prob(torch.zeros(2, 1, 8, 8)),
            'context: expected shape \\(..., 3\\), got None',
        ),
        (
            lambda: glow((1, 8, 8), context_dim=3).log_prob(
                torch.zeros(2, 1, 8, 8), torch.zeros(2, 4)
            ),
            'context: expected shape \\(..., 3\\), got \\(2, 4\\)',
        ),
        (
            lambda: glow((1, 8, 8), activation='gelu'),
            "activation: expected one of relu, tanh, silu, got 'gelu'",
        ),
        (lambda: glow((1, 8, 8), bound=-1.0), 'bound: expected a number above 0'),
        (lambda: realnvp_images((1, 7, 8)), 'even sides'),
        (lambda: Coupling(1, Affine(), axis=-3), 'at least 2, got 1'),
        (
            lambda: Coupling(4, Affine(), axis=-3)(torch.zeros(2, 3, 4, 4)),
            'z: expected images of shape \\(..., 4, h, w\\), got \\(2, 3, 4, 4\\)',
        ),
        (
            lambda: ActNorm(4).inverse(torch.zeros(2, 3, 4, 4)),
            'x: expected images of shape \\(..., 4, h, w\\)',
        ),
        (lambda: InvConv1x1(4)(torch.zeros(4, 4)), 'z: expected events of 3'),
        (
            lambda: Squeeze()(torch.zeros(1, 3, 2, 2)),
            'z: expected images \\(..., 4·C, h, w\\), got \\(3, 2, 2\\)',
        ),
        (lambda: Squeeze().inverse(torch.zeros(1, 1, 3, 4)), 'even sides'),
        (lambda: Split(Squeeze(), (1, 4, 4)), 'at least 2 channels, got 1'),
        (
            lambda: on_pixels(glow((1, 8, 8)), (1, 8, 16)),
            'flow: expected events of shape',
        ),
        (
            lambda: on_pixels(glow((1, 8, 8)), (1, 8, 8)).log_prob(
                torch.full((1, 1, 8, 8), 300.0)
            ),
            'expected pixel values in \\[0, 256\\]',
        ),
        (
            lambda: Dequantized(
                on_pixels(glow((1, 8, 8)), (1, 8, 8)), LearnedNoise((1, 4, 4))
            ),
            'noise: expected shape \\(1, 8, 8\\) as of flow',
        ),
        (lambda: LearnedNoise((1, 7, 8)), 'even sides'),
        (
            lambda: Dequantized(
                on_pixels(glow((1, 8, 8)), (1, 8, 8)), LearnedNoise((1, 8, 8))
            ).bound(torch.full((1, 1, 8, 8), 0.5)),
            'x: expected whole numbers 0…255',
        ),
        (
            lambda: fit(
                on_pixels(glow((1, 8, 8)), (1, 8, 8)),
                torch.zeros(9, 1, 8, 8, dtype=torch.uint8),
            ),
            'pass prepare=dequantize',
        ),
        (
            lambda: ConvNet(2, (2, 1), context_dim=3)(
                torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
            ),
            'context: expected 3 numbers or channels',
        ),
    ],
)
def test_bad_input_is_an_error_that_says_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_unknown_options_are_refused():
    with pytest.raises(TypeError):
        glow((1, 8, 8), widths=3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('name', FLOWS)
def test_cuda_agrees_with_cpu(name):
    flow = randomize(FLOWS[name]((1, 8, 8)).double(), size=0.5)
    x = normal(4, 1, 8, 8)
    torch.testing.assert_close(
        flow.cuda().log_prob(x.cuda()).cpu(),
        flow.cpu().log_prob(x),
        rtol=1e-8,
        atol=1e-8,
    )
    assert flow.cuda().sample((2,)).is_cuda


def test_folded_step_equals_its_three_layers():
    step, z = randomize(GlowStep(6, width=8).double()), normal(3, 6, 4, 4)
    for folded, naive in [
        (step(z), Compose.forward(step, z)),
        (step.inverse(z), Compose.inverse(step, z)),
    ]:
        torch.testing.assert_close(folded, naive, rtol=1e-11, atol=1e-11)


def test_half_precision_is_only_for_the_networks():
    flow = randomize(glow((1, 8, 8), steps=2, width=8), size=0.3)
    x = normal(4, 1, 8, 8, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        z, log_det = flow.bijection.inverse(x)
    assert z.dtype == log_det.dtype == torch.float32
    torch.testing.assert_close(z, flow.bijection.inverse(x)[0], rtol=0.1, atol=0.1)


SHARED = """
import sys, torch, torch.distributed as dist
from flowbook.glow import glow
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
torch.manual_seed(rank)  # other weights and other data in each process
class Loss(torch.nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.flow = flow
    def forward(self, x): return -self.flow.log_prob(x).mean()
flow = glow((2, 8, 8), steps=2, width=8)
x = torch.randn(20, 2, 8, 8)*(1 + rank)
flow.initialize(x)
shared = torch.nn.parallel.DistributedDataParallel(Loss(flow))
optimizer = torch.optim.Adam(shared.parameters(), 1e-2)
for _ in range(3):
    optimizer.zero_grad()
    shared(x).backward()
    optimizer.step()
flow.initialize(100*x)  # must do nothing any more
torch.save(flow.state_dict(), f'{folder}/{rank}.pt')
dist.destroy_process_group()
"""


def test_actnorm_in_several_processes(tmp_path):
    "Two processes start apart; wrapped, they train as one and end with the same state."
    first = subprocess.Popen(
        [sys.executable, '-c', SHARED, '0', str(tmp_path)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        python(SHARED, 1, tmp_path)
    finally:
        error = first.communicate(timeout=60)[1]
    assert first.returncode == 0, error
    a, b = (torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in (0, 1))
    started = [k for k in a if k.endswith('initialized')]
    assert len(started) == 4 and all(a[k] for k in started)
    for k in a:
        assert torch.equal(a[k], b[k]), k


# Levels of grey travel with the flow.
LEVELS = [2, 3, 8, 17, 32, 256, 1000]


def grey(levels, n=60, shape=(1, 4, 4), seed=0):
    "Images in which every level occurs."
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(levels, (n, *shape), generator=generator)
    x.view(-1)[: min(levels, x.numel())] = torch.arange(levels)[: x.numel()]
    return x


def evenly(levels):
    "A flow that is uniform on its grey levels."
    flow = Flow(StandardLogistic(16), Permute(range(16)))
    return on_pixels(flow, (1, 4, 4), levels=levels)


@pytest.mark.parametrize('levels', LEVELS)
def test_the_uniform_density_costs_the_logarithm_of_the_levels(levels):
    flow, x = evenly(levels), grey(levels)
    bits = math.log2(levels)
    assert levels_of(flow) == levels
    assert evaluate_bits(flow, x).mean == pytest.approx(bits, abs=1e-4)
    other = randomize(on_pixels(realnvp(16), (1, 4, 4), levels=levels))
    for weight in (0.01, 0.5, 0.999999):
        mixed = image_bits(other, x, uniform=weight)
        assert (mixed <= bits - math.log2(weight) / 16 + 1e-6).all()
        same = evaluate_bits(flow, x, uniform=weight).mean
        assert same == pytest.approx(bits, abs=1e-4)
    assert baselines(x, x, levels=levels)['uniform'] == pytest.approx(bits)
    if levels <= x.numel():
        assert baselines(x[:30], x[30:]) == baselines(x[:30], x[30:], levels=levels)
        assert histogram_bits(x, x) == histogram_bits(x, x, levels=levels)


@pytest.mark.parametrize('levels', LEVELS)
def test_a_gaussian_and_histograms_on_noise_cost_about_its_entropy(levels):
    train, test = grey(levels, 3000), grey(levels, 300, seed=1)
    found = baselines(train, test, levels=levels)
    bits = math.log2(levels)
    assert bits - 0.05 < found['one histogram'] < bits + 0.05
    assert bits - 0.05 < found['histogram per pixel'] < 1.2 * bits + 0.1
    assert bits - 0.05 < found['Gaussian in logit space'] < bits + 0.3


@pytest.mark.parametrize('levels', [5, 32, 300])
def test_containers_and_types_do_not_change_a_score(levels):
    x = grey(levels)
    flow = randomize(on_pixels(realnvp(16), (1, 4, 4), levels=levels))
    want, floor = image_bits(flow, x, uniform=0.1), baselines(x, x)
    kinds = [x.int(), x.float(), x.double(), x.numpy(), x.tolist(), x.short()]
    if levels < 256:
        kinds += [x.byte(), x.numpy().astype(np.uint8), x.to(torch.int8)]
    for same in kinds:
        assert torch.equal(image_bits(flow, same, uniform=0.1), want)
        assert baselines(same, same) == floor


@pytest.mark.parametrize('levels', [5, 17, 32, 256])
def test_levels_beyond_the_flow_s_are_refused(levels):
    flow, x = evenly(levels), grey(levels) + 1
    for call in (
        lambda: evaluate_bits(flow, x),
        lambda: baselines(x, x, levels=levels),
        lambda: count_levels(x, levels),
        lambda: gaussian_bits(x, x, levels=levels),
    ):
        with pytest.raises(ValueError, match=f'whole numbers 0…{levels - 1}'):
            call()
    with pytest.raises(ValueError, match=f'levels: expected {levels} as of flow'):
        evaluate_bits(flow, grey(levels), levels=levels + 1)


def test_a_flow_that_does_not_know_its_levels_has_to_be_told():
    flow, x = glow((1, 4, 4), scales=1, steps=1, width=4), grey(32)
    assert levels_of(flow) is None
    assert math.isfinite(evaluate_bits(flow, x).mean)
    with pytest.raises(ValueError, match='levels: .*pass their number'):
        evaluate_bits(flow, x, uniform=0.5)
    assert evaluate_bits(flow, x, uniform=0.5, levels=32).mean <= 5 + 1 / 16
    for levels in (0, -1, 2.5, 'a'):
        with pytest.raises(ValueError, match='levels: expected a whole number'):
            evaluate_bits(flow, x, levels=levels)
        with pytest.raises(ValueError, match='levels: expected a whole number'):
            baselines(x, x, levels=levels)


def test_a_flow_and_its_noise_have_the_same_levels():
    flow = on_pixels(glow((1, 4, 4), scales=1, steps=1, width=4), (1, 4, 4), levels=32)
    with pytest.raises(
        ValueError, match='noise: expected levels=32 as of flow, got 256'
    ):
        Dequantized(flow, LearnedNoise((1, 4, 4)))
    model = Dequantized(flow, LearnedNoise((1, 4, 4), levels=32, width=4))
    x = grey(32)
    assert levels_of(model) == 32
    fit(model, x, epochs=1, seed=0)
    assert evaluate_bits(model, x, uniform=0.5).mean <= 5 + 1 / 16
    with pytest.raises(ValueError, match='whole numbers 0…31'):
        fit(model, x + 1, epochs=1)
    two = Flow(StandardNormal(1, 4, 4), Compose(Logit(levels=8), Logit(levels=16)))
    with pytest.raises(ValueError, match='disagree about the grey levels: 8, 16'):
        levels_of(two)


# Few images, and images that are no good.
@pytest.mark.parametrize('n', [2, 3, 10, 15, 16, 17, 40])
@pytest.mark.parametrize('kind', ['noise', 'constant pixels', 'all alike', 'black'])
def test_baselines_of_few_images_are_numbers(n, kind):
    x = grey(32, n + 20)
    if kind == 'constant pixels':
        x[:, :, 1:3] = 7
    elif kind == 'all alike':
        x[:] = x[:1]
    elif kind == 'black':
        x[:] = 0
    found = baselines(x[:n], x[n:], levels=32)
    assert all(math.isfinite(v) for v in found.values()), found
    assert found['Gaussian in logit space'] < (12 if n >= 10 else 1e6)


def test_one_image_has_no_covariance():
    with pytest.raises(ValueError, match='train: expected at least 2 images'):
        baselines(grey(32, 1), grey(32, 5))
    for bad in ([], [[[]]], 3, torch.zeros(0, 1, 4, 4)):
        with pytest.raises(ValueError, match='train: expected images'):
            baselines(bad, grey(32))
    with pytest.raises(ValueError, match='test: expected images of shape'):
        baselines(grey(32), grey(32, shape=(1, 2, 8)))


def test_shrinking_helps_where_images_are_few_and_fades_where_they_are_many():
    generator = torch.Generator().manual_seed(0)
    common = torch.randint(24, (4000, 1, 1, 1), generator=generator)
    x = common + torch.randint(8, (4000, 1, 4, 4), generator=generator)
    few, many = (gaussian_bits(x[:n], x[3000:], levels=32) for n in (20, 3000))
    assert many < few < 5
    logits, _ = Logit(levels=32, event_dim=1).inverse(
        dequantize(x[:3000].flatten(1), generator, torch.float64, 32)
    )
    fresh, log_det = Logit(levels=32, event_dim=1).inverse(
        dequantize(x[3000:].flatten(1), generator, torch.float64, 32)
    )
    likely = torch.distributions.MultivariateNormal(
        logits.mean(0), logits.T.cov(correction=0)
    )
    exact = bits_per_dim((likely.log_prob(fresh) + log_det).mean().item(), 16)
    assert many == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize('levels', [8, 32, 256])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_images_scaled_to_one_are_refused_with_the_line_that_converts(levels, dtype):
    flow = on_pixels(realnvp(16), (1, 4, 4), levels=levels).to(dtype)
    noisy = Dequantized(
        on_pixels(glow((1, 4, 4), scales=1, steps=1, width=4), (1, 4, 4), levels),
        LearnedNoise((1, 4, 4), levels=levels, width=4),
    ).to(dtype)
    whole = grey(levels)
    x = whole.to(dtype) / (levels - 1)
    line = rf'\* {levels - 1}\)\.round\(\)'
    for call in (
        lambda: flow.log_prob(x),
        lambda: flow.log_prob(x[3]),
        lambda: fit(flow, x, epochs=1),
        lambda: fit(flow, x, epochs=1, prepare=dequantize),
        lambda: fit(flow, (whole + torch.rand(x.shape)) / levels, epochs=1),
        lambda: evaluate_bits(flow, x),
        lambda: fit(noisy, x, epochs=1),
        lambda: evaluate_bits(noisy, x),
        lambda: baselines(x, x, levels=levels),
    ):
        with pytest.raises(ValueError, match='round'):
            call()
    with pytest.raises(ValueError, match=line):
        flow.log_prob(x)
    assert torch.equal((x * (levels - 1)).round().long(), whole)


def test_dark_images_are_no_scaled_images():
    flow = on_pixels(realnvp(16), (1, 4, 4))
    x = torch.zeros(5, 1, 4, 4)
    assert flow.log_prob(x).isfinite().all()
    assert flow.log_prob(dequantize(x)).isfinite().all()
    with torch.no_grad():
        assert flow.log_prob(flow.sample((50,))).isfinite().all()


# A reach: how far the networks read.
REACHES = {
    'glow': lambda **k: glow((1, 8, 8), steps=2, width=8, **k),
    'realnvp': lambda **k: realnvp_images((1, 8, 8), width=8, **k),
    'noise': lambda **k: LearnedNoise((1, 8, 8), width=8, **k),
}


def reaches(model):
    kinds = (Coupling, CheckerboardCoupling)
    return {m.reach for m in model.modules() if isinstance(m, kinds)}


@pytest.mark.parametrize('name', REACHES)
def test_every_coupling_of_an_image_flow_has_the_reach(name):
    build = REACHES[name]
    assert reaches(build()) == {None if name == 'noise' else 8.0}
    assert reaches(build(reach=2.5)) == {2.5} and reaches(build(reach=None)) == {None}
    for bad in (0, -1.0, float('nan'), 'far'):
        with pytest.raises(ValueError, match='reach: expected a number'):
            build(reach=bad)


def clamp_hooks(flow, reach):
    "Clamp what the networks of a flow read, from outside."
    for m in flow.modules():
        if isinstance(m, ConvNet):
            m.register_forward_pre_hook(
                lambda net, args: (args[0].clamp(-reach, reach), *args[1:])
            )
    return flow


@pytest.mark.parametrize('name', ['glow', 'realnvp'])
def test_a_reach_clamps_what_networks_read_and_nothing_else(name):
    near = randomize(REACHES[name](reach=1.0).double())
    free = REACHES[name](reach=None).double()
    free.load_state_dict(near.state_dict())
    x = 3 * normal(4, 1, 8, 8)
    z, log_det = near.bijection.inverse(x)
    assert not torch.allclose(free.bijection.inverse(x)[0], z)
    same, same_log_det = clamp_hooks(free, 1.0).bijection.inverse(x)
    assert torch.equal(same, z) and torch.equal(same_log_det, log_det)
    torch.testing.assert_close(near.bijection(z)[0], x, rtol=1e-8, atol=1e-8)
    check_bijection(near.bijection, 3 * normal(1, 64), tol=1e-7, max_points=1)


def test_far_images_grow_as_the_scales_allow_and_no_faster():
    grown = {}
    for reach in (8.0, None):
        flow = randomize(REACHES['realnvp'](bound=0.1, reach=reach).double(), size=2.0)
        x = 1e9 * normal(4, 1, 8, 8)
        z = flow.bijection.inverse(x)[0]
        grown[reach] = (z.abs().amax() / x.abs().amax()).item()
    couplings = 3 + 3 + 4  # on the way of any number, at most
    assert grown[8.0] < math.exp(0.1 * couplings) < 1e3 < grown[None]


@pytest.mark.parametrize('name', ['glow', 'realnvp'])
def test_a_file_keeps_the_reach_that_it_names(name, tmp_path):
    flow = randomize(REACHES[name](reach=3.0))
    save(flow, tmp_path / 'flow.safetensors')
    again = load(tmp_path / 'flow.safetensors')
    x = 5 * normal(2, 1, 8, 8).float()
    assert reaches(again) == {3.0}
    assert torch.equal(again.log_prob(x), flow.log_prob(x))
    old = Flow(StandardNormal(1, 8, 8), CheckerboardCoupling(1, Affine(), width=8))
    save(old, tmp_path / 'old.safetensors')
    assert 'reach' not in (tmp_path / 'old.safetensors').read_bytes().decode('latin1')
    assert reaches(load(tmp_path / 'old.safetensors')) == {None}


@pytest.mark.parametrize(
    'run',
    [r for r in shipped_flows() if 'glow' in r or 'realnvp-' in r],
)
def test_shipped_flows_on_images_have_a_reach_and_no_image_explodes(run):
    model, record = read_run(run)
    assert reaches(getattr(model, 'flow', model)) == {8.0}
    assert all(m['largest'] < 10 for m in record['metrics'])
    if record['job']['reach'] is None:  # trained with the flow's own, which is 8
        assert 'without a reach' not in record
    else:
        assert record['job']['reach'] == 8.0
        assert {m['split'] for m in record['without a reach']['metrics']} >= {'test'}


def test_a_reach_can_be_written_into_a_description():
    sys.path.insert(0, str(ROOT / 'tools'))
    from rescore import with_reach

    flow = Flow(
        StandardNormal(64),
        Compose(realnvp_images((1, 8, 8), width=8, reach=None).bijection),
    )
    vectors = realnvp(4, reach=None)
    for model, expected in [(flow, 5.0), (vectors, None)]:
        again = build(with_reach(describe(model), 5.0))
        assert reaches(again) == {expected}
