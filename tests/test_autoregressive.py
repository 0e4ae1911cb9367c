"Autoregressive flows: files, copies, threads, empty batches, frozen weights, overflow."

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn.utils import parametrize, prune

from flowbook.autoregressive import Autoregressive, by_loop, fill_in, maf
from flowbook.check import check_bijection
from flowbook.core import Flow, Invert
from flowbook.coupling import Additive
from flowbook.engine import fill_in_blocks
from flowbook.files import load, read_tensors, save, write_tensors
from flowbook.iaf import iaf
from flowbook.made import MADE, BinaryMADE
from flowbook.realnvp import Affine
from flowbook.train import fit
from support import normal, randomize


@pytest.mark.parametrize(
    'options', [{}, dict(order=[2, 0, 3, 1]), dict(context_dim=2, hidden=(9,))]
)
def test_file_gives_the_same_flow(tmp_path, options):
    flow = randomize(maf(4, layers=2, **{'hidden': (16, 16), **options}))
    save(flow, tmp_path / 'maf.safetensors')
    again = load(tmp_path / 'maf.safetensors')
    c = normal(5, 2, dtype=torch.float32) if 'context_dim' in options else None
    x = normal(5, 4, dtype=torch.float32)
    assert torch.equal(flow.log_prob(x, c), again.log_prob(x, c))
    draws = [
        f.sample(
            (3,),
            context=None if c is None else c[:1],
            generator=torch.Generator().manual_seed(0),
        )
        for f in (flow, again)
    ]
    assert torch.equal(*draws)


@pytest.mark.parametrize('dim, batch', [(64, 1), (64, 64), (200, 3), (200, 20)])
def test_filling_in_agrees_with_the_loop_in_single_precision(dim, batch):
    layer = randomize(Autoregressive(dim, Affine(), hidden=(100, 80)), size=0.8)
    z = normal(batch, dim, dtype=torch.float32)
    with torch.no_grad():
        wanted = by_loop(layer, z)[0]
        for found in (layer(z)[0], fill_in(layer, z)[0]):
            assert (found - wanted).abs().max() < 1e-5 * max(1, wanted.abs().max())


def test_a_copy_and_the_original_do_not_share_buffers():
    layer = randomize(Autoregressive(6, Affine(), hidden=(16,)).double())
    z = normal(4, 6)
    layer(z)
    other = randomize(copy.deepcopy(layer), seed=1)
    with torch.no_grad():
        for one in (layer, other, layer):
            assert torch.allclose(one(z)[0], by_loop(one, z)[0], atol=1e-12)


def test_results_survive_the_next_call_and_threads():
    layer = randomize(Autoregressive(20, Affine(), hidden=(32,)).double())
    batches = [normal(7, 20, seed=i) for i in range(16)]
    with torch.no_grad():
        wanted = [by_loop(layer, z)[0] for z in batches]

    def work(z):
        with torch.no_grad():
            return layer(z)[0]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, batches))
    for a, b in zip(found, wanted):
        assert torch.allclose(a, b, atol=1e-12)


def test_batch_shapes_and_empty_batches():
    layer = Autoregressive(3, Affine(), hidden=(8,), context_dim=2)
    for batch in [(), (0,), (2, 3)]:
        x, log_det = layer(torch.randn(*batch, 3), torch.randn(*batch, 2))
        assert x.shape == (*batch, 3) and log_det.shape == batch


def test_frozen_weights_give_samples_without_gradient():
    flow = randomize(maf(3, hidden=(8,)).double()).requires_grad_(False)
    x, _ = flow.bijection(normal(2, 3))
    assert not x.requires_grad
    z = normal(2, 3).requires_grad_()
    flow.bijection(z)[0].sum().backward()
    assert torch.isfinite(z.grad).all() and (z.grad != 0).any()


def test_a_guess_that_overflows_does_not_spoil_its_block():
    layer = Autoregressive(20, Affine(None), hidden=(40,)).double()
    randomize(layer, seed=3, size=6.0)
    z = 0.01 * normal(4, 20)
    with torch.no_grad():
        wanted = by_loop(layer, z)[0]
        found, _ = fill_in_blocks(layer, layer.net.sort(z), None, 'sweeps', 20)
        found = layer.net.unsort(found)
    finite = wanted.isfinite()
    assert torch.allclose(found[finite], wanted[finite], rtol=1e-8)


def test_inverse_autoregressive_flow_is_trained_by_its_density():
    "The slow direction in training: gradients of the implicit solution lower the loss."
    torch.manual_seed(0)
    flow = Flow(
        maf(2, layers=1).base, Invert(Autoregressive(2, Affine(), hidden=(16,)))
    )
    x = normal(400, 2, dtype=torch.float32) @ torch.tensor([[1.0, 0.9], [0.0, 0.3]])
    history = fit(flow, x, epochs=8, batch_size=50, lr=1e-2, device='cpu')
    assert history.valid[-1] < history.valid[0] - 0.1
    check_bijection(flow.double().bijection, normal(3, 2))


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(hidden=()), 'hidden'),
        (dict(order=[0, 0, 1]), 'order'),
        (dict(adjacency=[[0, 1], [1, 0]]), 'adjacency'),
        (dict(adjacency=[[0, 1, 0], [0, 0, 1], [1, 0, 0]]), 'cycle'),
        (dict(activation='step'), 'activation'),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        MADE(3, 2, **options)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError):
        maf(3, width=8)
    with pytest.raises(ValueError, match='context'):
        maf(3, context_dim=2).log_prob(torch.zeros(1, 3))


def test_a_file_holds_only_the_weights_that_count_and_no_other_number_of_them_is_accepted(
    tmp_path,
):
    flow, path = (
        randomize(maf(40, layers=2, hidden=(60, 60))),
        tmp_path / 'maf.safetensors',
    )
    save(flow, path)
    assert path.stat().st_size < 0.6 * 4 * sum(p.numel() for p in flow.parameters())
    tensors, meta = read_tensors(path)
    name = next(k for k in tensors if k.endswith('last.weight'))
    for wrong in (
        tensors[name][:-1],
        torch.cat([tensors[name], tensors[name][:1]]),
        tensors[name][None],
    ):
        write_tensors(path, tensors | {name: wrong}, meta)
        with pytest.raises(ValueError, match='last.weight: expected'):
            load(path)


@pytest.mark.parametrize('width', [8, 300])
def test_second_derivatives_are_those_of_the_plain_formula(width):
    layer = randomize(MADE(300, 2, hidden=(width,), activation='tanh').double())
    assert bool(layer.last.stairs) == (width == 300)
    x = normal(3, 300).requires_grad_()
    v, w = normal(3, 300, seed=1), normal(3, 300, 2, seed=2)

    def directional(x):
        return (
            torch.autograd.grad((layer(x) * w).sum(), x, create_graph=True)[0] * v
        ).sum()

    (exact,) = torch.autograd.grad(directional(x), x)
    step = 1e-5
    with torch.enable_grad():
        near = [
            torch.autograd.grad((layer(p) * w).sum(), p)[0]
            for p in ((x + s * step * v).detach().requires_grad_() for s in (1, -1))
        ]
    assert torch.allclose(exact, (near[0] - near[1]) / (2 * step), atol=1e-6)


def smooth_layer():
    layer = Autoregressive(3, Affine(), hidden=(16,), activation='tanh', context_dim=2)
    return randomize(layer.double()), normal(4, 3), normal(4, 2, seed=1)


def energy(x, log_det):
    return x.sin().sum() + log_det.square().sum()


def test_second_derivatives_of_samples_are_those_of_the_loop():
    layer, z, c = smooth_layer()
    hessians = [
        torch.autograd.functional.hessian(lambda z, c, f=f: energy(*f(z, c)), (z, c))
        for f in (layer, lambda z, c: by_loop(layer, z, c))
    ]
    for a, b in zip(*hessians):
        for one, other in zip(a, b):
            assert torch.allclose(one, other, atol=1e-10) and one.abs().max() > 1e-2


def test_second_derivatives_by_weights_that_were_swapped_are_of_those_weights():
    layer, z, c = smooth_layer()
    own = dict(layer.named_parameters())
    swapped = {k: (1.5 * p).detach().requires_grad_() for k, p in own.items()}
    x, log_det = torch.func.functional_call(layer, swapped, (z, c))
    first = torch.autograd.grad(
        energy(x, log_det), [*swapped.values()], create_graph=True
    )
    found = torch.autograd.grad(
        sum(g.square().sum() for g in first), [*swapped.values()]
    )
    twin = copy.deepcopy(layer)
    twin.load_state_dict(swapped)
    first = torch.autograd.grad(
        energy(*by_loop(twin, z, c)), [*twin.parameters()], create_graph=True
    )
    wanted = torch.autograd.grad(
        sum(g.square().sum() for g in first), [*twin.parameters()]
    )
    for a, b in zip(found, wanted):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10)


def test_many_gradients_at_once():
    for width in (16, 300):  # with staircases, and without
        layer = randomize(Autoregressive(12, Affine(), hidden=(width, width)).double())
        z = normal(12).requires_grad_()
        x, _ = layer(z)
        eye = torch.eye(12, dtype=torch.float64)
        (rows,) = torch.autograd.grad(
            x, z, eye, is_grads_batched=True, retain_graph=True
        )
        for row, e in zip(rows, eye):
            (one,) = torch.autograd.grad(x, z, e, retain_graph=True)
            assert torch.allclose(row, one, atol=1e-12)


def test_without_gradients_nothing_but_the_engine_runs():
    layer, z, c = smooth_layer()
    passes = []
    layer.net.last.register_forward_hook(lambda *_: passes.append(1))
    with torch.no_grad():
        layer(z.requires_grad_(), c.requires_grad_())
    assert not passes
    layer(z, c)
    assert passes == [1]


def test_on_the_meta_device_a_flow_of_any_size_is_built_without_memory():
    with torch.device('meta'):
        flow = maf(3000, hidden=(100_000, 3000), layers=1)
        MADE(3, 2, adjacency=[[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    assert all(p.is_meta for p in flow.parameters())
    small = {k: v.shape for k, v in maf(4, context_dim=2).state_dict().items()}
    with torch.device('meta'):
        shapes = {k: v.shape for k, v in maf(4, context_dim=2).state_dict().items()}
    assert shapes == small


def test_a_backward_pass_can_be_repeated():
    layer, z, c = smooth_layer()
    total = energy(*layer(z, c))
    weights = [*layer.parameters()]
    once, twice = (
        torch.autograd.grad(total, weights, retain_graph=True) for _ in range(2)
    )
    for a, b in zip(once, twice):
        assert torch.equal(a, b)


REACH = [
    dict(reach=0.5),
    dict(reach=0.5, order=[4, 1, 0, 2, 3]),
    dict(reach=0.5, hidden=(7,)),
]
GRAPH = [[0] * 5, [1, 0, 0, 0, 0], [1, 0, 0, 0, 1], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0]]


@pytest.mark.parametrize('options', [*REACH, dict(reach=0.5, adjacency=GRAPH)])
@pytest.mark.parametrize('way', ['steps', 'sweeps'])
def test_a_reach_is_the_same_by_every_way(options, way):
    layer = randomize(Autoregressive(5, Affine(), **options).double())
    z = 2 * normal(6, 5)
    with torch.no_grad():
        x, log_det = by_loop(layer, z)
        assert (x.abs() > 0.5).any() and (x.abs() < 0.5).any()
        for size in (1, 2, 5):
            for n in (1, 6, 0):
                found, each = fill_in_blocks(
                    layer, layer.net.sort(z[:n]), None, way, size
                )
                assert torch.allclose(layer.net.unsort(found), x[:n], atol=1e-12)
                assert torch.allclose(each.sum(-1), log_det[:n], atol=1e-12)
        for found in (fill_in(layer, z), layer(z)):
            assert torch.allclose(found[0], x, atol=1e-12)
            assert torch.allclose(found[1], log_det, atol=1e-12)
        free = Autoregressive(5, Affine(), **options | dict(reach=None)).double()
        free.load_state_dict(layer.state_dict())
        assert (free(z)[0] - x).abs().max() > 1e-3
    for b in (layer, Invert(layer)):
        check_bijection(b, z)


def test_gradients_with_a_reach_are_those_of_the_loop():
    layer = randomize(Autoregressive(5, Affine(), reach=0.5).double())
    z = 2 * normal(6, 5).requires_grad_()
    found, wanted = (
        torch.autograd.grad(energy(*f(z)), [z, *layer.parameters()])
        for f in (layer, lambda z: by_loop(layer, z))
    )
    for a, b in zip(found, wanted):
        assert torch.allclose(a, b, atol=1e-10)


@pytest.mark.parametrize('make', [maf, iaf])
def test_far_rows_cost_what_a_gaussian_would_ask(make, tmp_path):
    flow = randomize(make(4, layers=3, hidden=(16, 16)), size=2.0).double()
    ray = normal(7, 4).sign() * (1 + normal(7, 4, seed=1).abs())
    prices = [-flow.log_prob(t * ray) / t**2 for t in (1e4, 1e5, 1e6)]
    assert torch.allclose(prices[1], prices[2], rtol=1e-2)
    assert all((p <= 1.01 * prices[2] + 1e-4).all() for p in prices)
    save(flow, tmp_path / 'flow.safetensors')
    again = load(tmp_path / 'flow.safetensors')
    assert [m.reach for m in again.modules() if isinstance(m, Autoregressive)] == [
        8.0
    ] * 3
    assert torch.equal(again.log_prob(ray), flow.log_prob(ray))


def test_a_file_without_a_reach_gives_a_layer_without_one(tmp_path):
    flow = randomize(Flow(maf(3).base, Autoregressive(3, Affine(), hidden=(8,))))
    save(flow, tmp_path / 'flow.safetensors')
    assert 'reach' not in (tmp_path / 'flow.safetensors').read_bytes().decode('latin1')
    assert load(tmp_path / 'flow.safetensors').bijection.reach is None


@pytest.mark.parametrize('make', [maf, iaf])
def test_one_coordinate_is_a_gaussian_and_says_so(make):
    with pytest.warns(UserWarning, match='Gaussian at any depth.*nsf'):
        flow = make(1, layers=2)
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    curve = randomize(flow).double().log_prob(x)
    assert curve.diff(n=3).abs().max() < 1e-12


class Copied(torch.nn.Module):
    def forward(self, w):
        return w.clone()


def test_weights_that_are_computed_anew_in_each_call_are_never_stale():
    layer, z = (
        randomize(Autoregressive(10, Affine(), hidden=(64, 64))),
        normal(20, 10, dtype=torch.float32),
    )
    for m in layer.net.stack():
        parametrize.register_parametrization(m, 'weight', Copied())
    with torch.no_grad():
        for k in range(20):
            for p in layer.parameters():
                p.add_(
                    0.02
                    * torch.randn(p.shape, generator=torch.Generator().manual_seed(k))
                )
            assert torch.allclose(layer(z)[0], by_loop(layer, z)[0], atol=1e-4)


def test_pruned_layers_are_refused_with_advice(tmp_path):
    flow = randomize(maf(4, layers=1, hidden=(16,)))
    prune.random_unstructured(flow.bijection.layers[0].net.last, 'weight', 0.5)
    with pytest.raises(ValueError, match='make pruning'):
        flow.sample((3,))
    with pytest.raises(ValueError, match='make pruning'):
        save(flow, tmp_path / 'x.safetensors')
    prune.remove(flow.bijection.layers[0].net.last, 'weight')
    flow.sample((3,))


def test_small_parts_of_a_gradient_survive_large_ones():
    layer = Autoregressive(3, Additive(), hidden=(4,))
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
        layer.net.layers[0].weight[0, 0], layer.net.last.weight[1, 0] = 1, 1e4
        layer.net.layers[0].weight[2, 1], layer.net.last.weight[2, 2] = 1, 1e-8
    z = torch.ones(1, 3, requires_grad=True)
    assert torch.allclose(
        torch.autograd.grad(layer(z)[0][:, 2].sum(), z)[0],
        torch.tensor([[1e-4, 1e-8, 1.0]]),
    )


def test_empty_batches_have_gradients():
    for make in (maf, iaf):
        make(3, layers=1).sample_with_log_prob((0,))[1].sum().backward()


@pytest.mark.parametrize(
    'batches', [((4,), (3, 2)), ((1, 4), (3, 2)), ((5, 1, 4), (3, 2)), ((3, 4), (2,))]
)
def test_latents_and_contexts_broadcast_in_both_directions(batches):
    layer = randomize(Autoregressive(4, Affine(), hidden=(8,), context_dim=2).double())
    z, c = (normal(*shape) for shape in batches)
    x, log_det = layer(z, c)
    back, minus = layer.inverse(x, c)
    assert x.shape == (*torch.broadcast_shapes(batches[0][:-1], batches[1][:-1]), 4)
    assert torch.allclose(back, z.expand_as(back)) and torch.allclose(minus, -log_det)


def test_autocast_changes_precision_and_nothing_else():
    flow, x = (
        randomize(maf(16, layers=2, hidden=(512, 512))),
        normal(5, 16, dtype=torch.float32),
    )
    exact = flow.log_prob(x)
    with torch.autocast('cpu', torch.bfloat16):
        assert (
            torch.allclose(flow.log_prob(x), exact, rtol=0.05, atol=0.5)
            and flow.sample((4,)).isfinite().all()
        )


def test_two_batch_sizes_in_turn_keep_their_workspaces():
    layer = randomize(Autoregressive(20, Affine(), hidden=(32,)))
    with torch.no_grad():
        for n in [20, 30, 20, 30]:
            layer(normal(n, 20, dtype=torch.float32))
        assert len(layer.workspaces) == 2
        for n in range(40, 60):
            layer(normal(n, 20, dtype=torch.float32))
        assert len(layer.workspaces) <= 4
    assert layer(normal(2, 20))[0].dtype == torch.float32


def test_bad_sizes_are_named():
    for make in (maf, iaf):
        with pytest.raises(ValueError, match='layers'):
            make(3, layers=0)
        with pytest.raises(ValueError, match='order'):
            make(3, order=[0.5, 1, 2])
        with pytest.raises(ValueError, match='hidden'):
            make(3, hidden=64)
        with pytest.raises(ValueError, match='hidden'):
            make(3, hidden=(8.5,))
    with pytest.raises(ValueError, match='context'):
        BinaryMADE(4).log_prob(torch.zeros(4), torch.zeros(2))
    for reach in (0, -1, float('nan'), 'far'):
        with pytest.raises(ValueError, match='reach: expected a number'):
            maf(3, reach=reach)
