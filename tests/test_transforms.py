"""Every flow under every transform of PyTorch, in both directions, against plain calls.

Compiled in one graph, exported with a free batch, mapped, differentiated."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacfwd, jacrev, vmap

from flowbook.autoregressive import maf
from flowbook.coupling import nice
from flowbook.glow import glow
from flowbook.iaf import iaf
from flowbook.made import BinaryMADE
from flowbook.multiscale import realnvp_images
from flowbook.nets import is_transformed
from flowbook.pixelflow import pixelflow
from flowbook.pixels import on_pixels
from flowbook.realnvp import realnvp
from support import normal, randomize

IMAGE = (1, 4, 4)
SMALL = dict(layers=2, hidden=(8,))
WIDE = dict(layers=1, hidden=(280, 280))  # its masks are large enough for staircases


def small_images(**options):
    options = dict(scales=2, checkerboards=1, channelwise=1, width=4) | options
    return realnvp_images(IMAGE, **options)


def small_glow(**options):
    return glow(IMAGE, **dict(scales=2, steps=1, width=4) | options)


def small_pixelflow(**options):
    sizes = dict(width=4, hidden=6, embed=3, near=3, blocks=2)
    return pixelflow((2, 1, 2), levels=4, **sizes, **options)


FLOWS = {
    'nice': lambda **c: nice(4, **SMALL, **c),
    'realnvp': lambda **c: realnvp(4, **SMALL, **c),
    'maf': lambda **c: maf(4, **SMALL, **c),
    'iaf': lambda **c: iaf(4, **SMALL, **c),
    'maf in another order': lambda **c: maf(4, **SMALL, order=[2, 0, 3, 1], **c),
    'maf without a reach': lambda **c: maf(4, **SMALL, reach=None, **c),
    'wide maf': lambda **c: maf(6, **WIDE, **c),
    'wide iaf': lambda **c: iaf(6, **WIDE, **c),
    'realnvp_images': small_images,
    'glow': small_glow,
    'glow with blocks': lambda **c: small_glow(blocks=1, scales=1, **c),
    'pixelflow': small_pixelflow,
    'pixelflow without a hurdle': lambda **c: small_pixelflow(hurdle=False, **c),
    'pixels of realnvp_images': lambda **c: on_pixels(small_images(**c), IMAGE),
    'pixels of glow': lambda **c: on_pixels(small_glow(**c), IMAGE),
    'pixels of maf': lambda **c: on_pixels(maf(4, **SMALL, **c), (1, 2, 2)),
}
CONDITIONAL = [name for name in FLOWS if 'pixels' not in name]


class Density(nn.Module):
    "Log-densities of data: latents and log-determinants, which is the inverse."

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, x, context=None):
        z, log_det = self.flow.bijection.inverse(x, context)
        return self.flow.base.log_prob(z) + log_det, z


class Sampling(Density):
    "Data points for given latents, with their log-determinants."

    def forward(self, z, context=None):
        x, log_det = self.flow.bijection(z, context)
        return log_det, x


def build(name, direction, n=5, **options):
    "A direction of a flow as a module, and points for it."
    torch.manual_seed(0)
    flow = randomize(FLOWS[name](**options), size=0.7)
    points = normal(n, *flow.base.event_shape, dtype=torch.float32)
    if direction is Density:
        with torch.no_grad():
            context = normal(n, 2, seed=3, dtype=torch.float32) if options else None
            points, _ = flow.bijection(points, context)
            if 'pixels' in name:
                points = points.clamp(1.0, 255.0)
    return direction(flow), points


def assert_equal(found, wanted, tol=1e-5):
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert (a - b).abs().max() <= tol * max(1.0, b.abs().max().item())


def gradients(module, outputs):
    log_p, value = outputs
    total = log_p.sum() + (value / (1 + value.detach().abs().max())).square().sum()
    return torch.autograd.grad(total, list(module.parameters()), allow_unused=True)


every_flow = pytest.mark.parametrize('name', FLOWS)
every_direction = pytest.mark.parametrize('direction', [Density, Sampling])


@every_direction
@every_flow
def test_compiles_in_one_graph_with_gradients(name, direction):
    module, points = build(name, direction)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend='aot_eager')
    found, wanted = compiled(points), module(points)
    assert_equal(found, wanted)
    for a, b in zip(gradients(module, found), gradients(module, wanted)):
        if b is not None and a is not None:
            assert_equal([a], [b], 1e-4)
    with torch.no_grad():
        assert_equal(compiled(points), wanted)


def test_compiles_to_machine_code():
    bijection = randomize(maf(3, layers=1, hidden=(8,))).bijection
    z = normal(5, 3, dtype=torch.float32)
    torch._dynamo.reset()
    with torch.no_grad():
        found = torch.compile(bijection, fullgraph=True)(z)  # by inductor
        assert_equal(found, bijection(z))


@every_direction
@every_flow
def test_exports_with_a_free_batch(name, direction):
    module, points = build(name, direction, n=7)
    shapes = ({0: torch.export.Dim('batch')},)
    program = torch.export.export(module, (points[:3],), dynamic_shapes=shapes)
    exported = program.module()
    for n in (1, 2, 7):
        assert_equal(exported(points[:n]), module(points[:n]))


@every_direction
@every_flow
def test_maps_over_a_batch(name, direction):
    module, points = build(name, direction)
    assert_equal(vmap(module)(points), module(points))


@every_direction
@every_flow
def test_jacobian_of_one_point(name, direction):
    module, points = build(name, direction)

    def value(u):
        return module(u)[1].flatten()

    wanted = torch.autograd.functional.jacobian(value, points[0])
    assert_equal([jacrev(value)(points[0])], [wanted], 1e-4)
    assert_equal([jacfwd(value)(points[0])], [wanted], 1e-4)


@every_direction
@every_flow
def test_gradients_of_each_example(name, direction):
    module, points = build(name, direction)
    weights = {k: p.detach() for k, p in module.named_parameters()}

    def loss(weights, point):
        return functional_call(module, weights, (point,))[0]

    found = vmap(grad(loss), (None, 0))(weights, points)
    for i, point in enumerate(points[:2]):
        wanted = torch.autograd.grad(
            module(point)[0], list(module.parameters()), allow_unused=True
        )
        for k, b in zip(weights, wanted):
            b = torch.zeros_like(weights[k]) if b is None else b
            assert_equal([found[k][i]], [b], 1e-4)


@every_direction
@pytest.mark.parametrize('name', CONDITIONAL)
def test_contexts_are_mapped_compiled_and_exported(name, direction):
    module, points = build(name, direction, context_dim=2)
    contexts = normal(5, 2, seed=3, dtype=torch.float32)
    wanted = module(points, contexts)
    assert_equal(vmap(module)(points, contexts), wanted)
    one_point = vmap(module, (None, 0))(points[0], contexts)
    assert_equal(one_point, module(points[:1].expand_as(points), contexts))
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend='eager')
    assert_equal(compiled(points, contexts), wanted)
    batch = torch.export.Dim('batch')
    given = points[:3], contexts[:3]
    shapes = {0: batch}, {0: batch}
    program = torch.export.export(module, given, dynamic_shapes=shapes)
    assert_equal(program.module()(points, contexts), wanted)


def test_an_ensemble_of_flows_is_one_call():
    flows = [randomize(maf(3, **SMALL), seed=i) for i in range(3)]
    weights, buffers = torch.func.stack_module_state([f.bijection for f in flows])
    z = normal(5, 3, dtype=torch.float32)

    def sample(weights, buffers):
        return functional_call(flows[0].bijection, (weights, buffers), (z,))[0]

    found = vmap(sample)(weights, buffers)
    assert_equal([found], [torch.stack([f.bijection(z)[0] for f in flows])])


def test_forward_mode_keeps_its_tangents():
    layer = randomize(maf(3, **SMALL)).bijection
    z, v = (normal(3, seed=i, dtype=torch.float32) for i in (0, 1))
    _, wanted = torch.func.jvp(lambda z: layer(z)[0], (z,), (v,))
    with torch.autograd.forward_ad.dual_level():
        x, _ = layer(torch.autograd.forward_ad.make_dual(z, v))
        found = torch.autograd.forward_ad.unpack_dual(x).tangent
    assert_equal([found], [wanted])


def test_bits_under_vmap_and_compile():
    model = randomize(BinaryMADE(4, hidden=(8,)))
    bits = (normal(6, 4, dtype=torch.float32) > 0).float()
    assert_equal([vmap(model.log_prob)(bits)], [model.log_prob(bits)])


def test_plain_calls_are_not_transformed():
    assert not is_transformed()
    with torch.no_grad(), torch.inference_mode():
        assert not is_transformed()
