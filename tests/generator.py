"""Random calls over all layers and flows, with arguments right and wrong.

Classes and functions are found by themselves, arguments are drawn by their names. Each
call must give a right answer, or a `ValueError` or `TypeError` that names an argument."""

import importlib
import inspect
import math
import pkgutil
import random
import re
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import flowbook
from flowbook.core import Base, Bijection, Compose, Flow, Invert, Model
from flowbook.coupling import Coupling, Elementwise
from flowbook.described import Described
from flowbook.files import load, save
from flowbook.multiscale import Split
from flowbook.pixels import Dequantized, LearnedNoise, image_bits, on_pixels
from flowbook.realnvp import Affine
from flowbook.train import Diverged, evaluate, fit
from support import randomize


def modules():
    "All modules of the package but those that run programs."
    skip = ('runs', 'cli', 'all', 'experiments', 'figures', '_modidx', 'data')
    for found in pkgutil.iter_modules(flowbook.__path__):
        if found.name not in skip:
            yield importlib.import_module(f'flowbook.{found.name}')


MODULES = list(modules())
ABSTRACT = {Bijection, Base, Model, Elementwise, Flow}
BY_HAND = {'Compose', 'Invert', 'Split', 'Dequantized', 'Coupling'}
BY_HAND |= {'AdversarialPair', 'Autoencoder', 'Networks', 'BaseAndMap', 'Ends'}
OWN = [c for c in Described.classes.values() if c.__module__.startswith('flowbook.')]
KINDS = [c for c in OWN if c not in ABSTRACT and c.__name__ not in BY_HAND]
LAYERS = [c for c in KINDS if issubclass(c, Bijection)]
BASES = [c for c in KINDS if issubclass(c, Base)]
MAPS = [c for c in KINDS if issubclass(c, Elementwise)]
OTHER_MODELS = [c for c in KINDS if issubclass(c, Model)]
FUNCTIONS = {
    name: f
    for m in MODULES
    for name, f in vars(m).items()
    if inspect.isfunction(f)
    and f.__module__ == m.__name__
    and f.__annotations__.get('return') is Flow
    and name != 'on_pixels'
}


# Arguments by their names.
def order_of(rng, n):
    order = list(range(n))
    rng.shuffle(order)
    return order


def image_shape(rng, c=None):
    sides = rng.choice([2, 4]), rng.choice([4, 6])
    return (c or rng.randint(1, 3), *sides)


def valid(rng, name, given):
    "A value that an argument of that name should take."
    dim = given.get('dim', 3)
    pools = dict(
        dim=lambda: rng.randint(2, 5),
        size=lambda: rng.randint(2, 5),
        channels=lambda: rng.randint(2, 4),
        n_in=lambda: rng.randint(1, 4),
        n_out=lambda: rng.choice([2, (2, 3)]),
        order=lambda: order_of(rng, dim),
        adjacency=lambda: np.tril(np.ones((dim, dim), int), -1).tolist(),
        hidden=lambda: rng.choice([(6,), [5, 4], (8, 8)]),
        activation=lambda: rng.choice(['relu', 'tanh', 'silu']),
        context_dim=lambda: rng.choice([0, 0, 1, 3]),
        layers=lambda: rng.randint(1, 3),
        steps=lambda: rng.randint(1, 2),
        scales=lambda: 1,
        width=lambda: rng.choice([2, 4]),
        blocks=lambda: rng.choice([0, 1]),
        features=lambda: 4,
        latent_dim=lambda: rng.randint(1, 3),
        checkerboards=lambda: 1,
        channelwise=lambda: 1,
        bins=lambda: rng.choice([2, 4, 8]),
        components=lambda: rng.choice([1, 3]),
        bound=lambda: rng.choice([1.0, 3.0, None, 40]),
        reach=lambda: rng.choice([8.0, None]),
        tail=lambda: 3.0,
        lam=lambda: rng.choice([1e-6, 0.05]),
        levels=lambda: rng.choice([2, 32, 256]),
        event_dim=lambda: rng.choice([0, 1, 3]),
        flip=lambda: rng.choice([True, False]),
        standardize=lambda: rng.choice([True, False]),
        robust=lambda: rng.choice([True, False]),
        scale=lambda: rng.choice([True, False]),
        zero=lambda: rng.choice([True, False]),
        base=lambda: rng.choice(['logistic', 'normal']),
        elementwise=lambda: make(rng, rng.choice(MAPS)),
        shape=lambda: image_shape(rng),
        shape_in=lambda: (4,),
        shape_out=lambda: rng.choice([(2, 2), (4, 1), (4,)]),
        low=lambda: rng.choice([0.0, -1.0]),
        high=lambda: rng.choice([1.0, 7.5]),
        df=lambda: rng.choice([2.5, 5.0]),
    )
    return pools[name]() if name in pools else SKIP


SKIP = object()
WRONG = [
    None,
    0,
    -1,
    1,
    2.5,
    float('nan'),
    float('inf'),
    'a',
    '',
    [],
    (),
    [1],
    [0, 0],
    [[1, 2], [3]],
    {},
    {'a': 1},
    True,
    b'x',
    object,
    1j,
    7,
]
RICH = [  # as people have them: NumPy and torch numbers, and others
    lambda: np.int64(3),
    lambda: np.float32(2.5),
    lambda: np.array([1, 0, 2]),
    lambda: torch.tensor(3),
    lambda: torch.tensor([0, 2, 1]),
    lambda: torch.randn(3),
    lambda: torch.nn.Linear(2, 2),
    lambda: range(3),
    lambda: 'x' * 1000,
]


def wrong(rng):
    "A value that most arguments should refuse."
    return rng.choice(RICH)() if rng.random() < 0.25 else rng.choice(WRONG)


def arguments(rng, thing, spoil):
    "Positional and named arguments of a class or function; one is spoilt if asked."
    target = thing.__init__ if inspect.isclass(thing) else thing
    given, extra = {}, []
    if target is object.__init__:
        return extra, given
    for name, p in inspect.signature(target).parameters.items():
        if name == 'self' or p.kind is p.VAR_KEYWORD:
            continue
        if p.kind is p.VAR_POSITIONAL:
            extra = [rng.randint(1, 4) for _ in range(rng.randint(1, 2))]
            continue
        needed = p.default is p.empty
        if not needed and rng.random() < 0.6:
            if name not in ('steps', 'width', 'hidden', 'layers', 'scales', 'shape'):
                continue
        value = valid(rng, name, given)
        if value is not SKIP:
            given[name] = value
    if given.get('adjacency') is not None and 'order' in given:
        del given['order']
    if spoil and (given or extra):
        keys = [*given, *range(len(extra))]
        key = rng.choice(keys)
        (extra if isinstance(key, int) else given)[key] = wrong(rng)
    return extra, given


def make(rng, thing, spoil=False):
    "An object of a class, or what a function returns."
    extra, given = arguments(rng, thing, spoil)
    return thing(*extra, **given)


def event_of(layer):
    "Shape of an event on the latent side of a layer, as its arguments tell."
    args, kwargs = layer.built_with
    own = vars(layer)
    if hasattr(layer, 'input_shape') and isinstance(layer, Split):
        return layer.input_shape(())
    for name in ('shape_in', 'shape'):
        if own.get(name) or (name in own and not layer.event_dim):
            return tuple(own[name])
    if 'size' in own:
        return (own['size'],) if own.get('axis', -1) == -1 else (own['size'], 4, 4)
    if 'dim' in own:
        return (own['dim'],)
    if 'channels' in own:
        return (own['channels'], 4, 4)
    if 'order' in own:
        return (len(own['order']),)
    if hasattr(layer, 'layer'):
        shape = layer.output_shape(event_of(layer.layer))
        return shape if shape or not layer.event_dim else (2,)
    if hasattr(layer, 'layers'):
        return event_of(layer.layers[0])
    return (4, 2, 2) if layer.event_dim == 3 else (3,) * layer.event_dim


def make_layer(rng, spoil):
    "A layer: one of a kind, or a few that contain each other."
    what = rng.random()
    if what < 0.55:
        return make(rng, rng.choice(LAYERS), spoil)
    if what < 0.7:
        size, axis = rng.randint(2, 4), rng.choice([-1, -3])
        options = dict(axis=axis, flip=rng.random() < 0.5)
        if spoil:
            key = rng.choice(['axis', 'flip', 'context_dim', 'net', 'harm', 'hidden'])
            options[key] = wrong(rng)
        return Coupling(size, make(rng, rng.choice(MAPS)), **options)
    if what < 0.8:
        inner = wrong(rng) if spoil else make(rng, rng.choice(LAYERS))
        return Invert(inner)
    if what < 0.9:
        n = rng.randint(2, 4)
        layers = [Coupling(n, Affine(), flip=i % 2 == 1) for i in range(2)]
        if spoil:
            layers.insert(rng.randint(0, 2), wrong(rng))
        return Compose(*layers)
    shape = wrong(rng) if spoil else image_shape(rng, 2)
    inner = (
        Coupling(2, Affine(), axis=-3, width=2)
        if spoil
        else Compose(Invert(Invert(Coupling(3, Affine(), axis=-3, width=2))))
    )
    return Split(inner, shape if spoil else (6, *shape[1:]))


def make_model(rng, spoil):
    "A flow of a function, of a base and a layer, of pixels, or another model."
    what = rng.random()
    if what < 0.6:
        return make(rng, FUNCTIONS[rng.choice(list(FUNCTIONS))], spoil)
    if what < 0.7:
        return make(rng, rng.choice(OTHER_MODELS), spoil)
    if what < 0.8:
        layer = make(rng, rng.choice(LAYERS))
        event = event_of(layer)
        base = rng.choice(BASES)(*event)
        return Flow(*((wrong(rng), layer) if spoil else (base, layer)))
    flow = on_pixels(
        FUNCTIONS['realnvp'](8, hidden=(4,), layers=2),
        wrong(rng) if spoil and rng.random() < 0.5 else (1, 2, 4),
        levels=wrong(rng) if spoil else rng.choice([8, 256]),
    )
    if what < 0.9:
        return flow
    noise = LearnedNoise((1, 2, 4), levels=8 if spoil else flow_levels(flow), width=2)
    return Dequantized(flow, noise)


def flow_levels(flow):
    return next(m.levels for m in flow.modules() if hasattr(m, 'levels'))


# Data and contexts.
def container(rng, x):
    "The same numbers as somebody else has them."
    import pandas

    as_they_are = lambda: x  # noqa: E731
    ways = [as_they_are] * 6 + [
        lambda: x.double(),
        lambda: x.numpy(),
        lambda: x.double().numpy(),
        lambda: x.half(),
        lambda: x.numpy()[::-1] if x.dim() else x.numpy(),
        lambda: x.flip(0) if x.dim() else x,
        lambda: x.clone().requires_grad_(),
        lambda: x.tolist(),
        lambda: x.movedim(0, -1).contiguous().movedim(-1, 0) if x.dim() else x,
        lambda: pandas.DataFrame(x.numpy()) if x.dim() == 2 else x.tolist(),
        lambda: x.round().long(),
        lambda: x.round().int().numpy(),
        lambda: x > 0,
        lambda: tuple(x.tolist()) if x.dim() else x.item(),
    ]
    if not x.numel():  # a list of nothing has no width
        ways = ways[:10]
    return rng.choice(ways)()


def bad_numbers(rng, x):
    "Something else in the place of numbers."
    ways = [
        lambda: wrong(rng),
        lambda: x[..., :-1] if x.dim() else x,
        lambda: torch.cat([x, x], -1) if x.dim() else x,
        lambda: x[None, None],
        lambda: x * math.nan,
        lambda: x / 0,
        lambda: x.to(torch.complex64),
        lambda: [['a', 'b'], ['c', 'd']],
        lambda: np.array(['a', None], dtype=object),
        lambda: [[1.0], [1.0, 2.0]],
        lambda: torch.zeros(0),
        lambda: torch.tensor(1.0),
        lambda: 1e38 * x,
        lambda: x.numpy().astype('datetime64[D]'),
    ]
    return rng.choice(ways)()


def numbers(rng, shape):
    "Standard normal numbers of that shape, in float32."
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    return torch.randn(shape, generator=generator)


def context_size(module):
    sizes = {getattr(m, 'context_dim', 0) for m in module.modules()} - {0}
    return max(sizes, default=0)


# One call.
class Wrong(Exception):
    "An answer that is not right."


def expect(condition, what):
    if not condition:
        raise Wrong(what)


def batch_of(value, event):
    "Batch shape of data in any container."
    shape = tuple(np.shape(value.detach() if isinstance(value, Tensor) else value))
    return shape[: len(shape) - len(event)]


def check_layer(rng, layer, spoil):
    "One direction of a layer and back."
    z_event = event_of(layer)
    x_event = layer.output_shape(z_event)
    there, event, out = rng.choice(
        [('forward', z_event, x_event), ('inverse', x_event, z_event)]
    )
    batch = rng.choice([(), (3,), (2, 3), (0,)])
    plain = numbers(rng, (*batch, *event))
    if rng.random() < 0.2:
        layer, plain = layer.double(), plain.double()
    of_positive = ('Exp', 'Logit', 'Positive', 'Bins', 'Hurdle')
    if any(name in repr(layer) for name in of_positive):
        plain = plain.sigmoid()
    size = context_size(layer)
    context = numbers(rng, (*batch, size)).to(plain) if size else None
    value = container(rng, plain)
    if spoil:
        value = bad_numbers(rng, plain)
    elif context is not None and rng.random() < 0.2:
        context = bad_numbers(rng, context)
    back = 'inverse' if there == 'forward' else 'forward'
    with torch.no_grad():
        y, log_det = getattr(layer, there)(value, context)
        if spoil:  # what is odd may still be right
            expect(log_det.shape == y.shape[: y.dim() - len(out)], 'shape of log_det')
            return
        given = torch.as_tensor(np.array(value)).to(plain.dtype)
        now = batch_of(value, event)
        expect(y.shape[len(y.shape) - len(out) :] == out, f'shape {tuple(y.shape)}')
        expect(log_det.shape == y.shape[: y.dim() - len(out)], 'shape of log_det')
        expect(tuple(log_det.shape) == now, f'batch {tuple(log_det.shape)} of {now}')
        if not given.numel():
            return
        if given.isfinite().all() and given.abs().max() < 100:
            expect(y.isfinite().all() and log_det.isfinite().all(), 'not finite')
            again, log_back = getattr(layer, back)(y, context)
            if y.dtype in (torch.float32, torch.float64) and y.abs().max() < 1e3:
                close = (again - given).abs().max() <= 1e-2 * (1 + given.abs().max())
                expect(close, f'round trip {(again - given).abs().max().item():.2g}')
                expect(
                    torch.allclose(log_back.to(log_det), -log_det, 1e-2, 1e-2), 'back'
                )


def layer_call(rng, spoil):
    "Make a layer and use it."
    layer = make_layer(rng, spoil and rng.random() < 0.5)
    randomize(layer, seed=rng.randrange(100), size=0.5)
    check_layer(rng, layer, spoil)


def events(rng, model, n):
    "Examples that a model can take: whole numbers where it is one of whole numbers."
    x = numbers(rng, (n, *model.event_shape))
    levels = {m.levels for m in model.modules() if hasattr(m, 'levels')}
    if levels:
        x = (x.sigmoid() * min(levels)).floor()
        return x if model.discrete else x + 0.5
    return (x > 0).float() if model.discrete else x


def model_call(rng, spoil):
    "Make a model and use it in one of its ways."
    model = make_model(rng, spoil and rng.random() < 0.4)
    ways = [score, score, score, draw, draw, train, keep, scores, walk]
    rng.choice(ways)(rng, model, spoil)


def inputs(rng, model, spoil, n=6):
    "Examples and their contexts, spoilt or not."
    x, size = events(rng, model, n), context_size(model)
    context = numbers(rng, (n, size)) if size else None
    if spoil and (context is None or rng.random() < 0.6):
        x = bad_numbers(rng, x)
    elif spoil:
        context = bad_numbers(rng, context)
    elif not model.discrete:
        x = container(rng, x)
    if context is not None and not spoil:
        context = container(rng, context)
    if context is None and rng.random() < 0.03:
        context = numbers(rng, (n, 2))
    return x, context


def finite_input(*values):
    try:
        arrays = [np.asarray(v, dtype=float) for v in values if v is not None]
    except (TypeError, ValueError, RuntimeError):
        return False
    return all(np.isfinite(a).all() and np.abs(a).max(initial=0) < 100 for a in arrays)


def score(rng, model, spoil):
    x, context = inputs(rng, model, spoil)
    name = rng.choice(['log_prob', 'loss']) if isinstance(model, Flow) else 'loss'
    if rng.random() < 0.3:
        values = evaluate(model, x, context)
    else:
        values = getattr(model, name)(x, context)
    expect(isinstance(values, Tensor), f'{type(values).__name__}')
    if not spoil:
        expect(values.shape == (6,), f'shape {tuple(values.shape)}')
    if finite_input(x) and not spoil and 'Hinge' not in repr(model):
        expect(not values.isnan().any(), 'NaN')


def draw(rng, model, spoil):
    size = context_size(model)
    context = container(rng, numbers(rng, (2, size))) if size else None
    shape = rng.choice([(), 3, (2,), (2, 1), [2], (0,), np.int64(2), torch.Size([1])])
    options = {}
    if spoil:
        key = rng.choice(['shape', 'context', 'temperature', 'generator'])
        if key == 'shape':
            shape = wrong(rng)
        elif key == 'context':
            context = wrong(rng)
        else:
            options[key] = wrong(rng)
    name = rng.choice(['sample', 'rsample', 'sample_with_log_prob'])
    if not isinstance(model, Flow):
        name = 'sample'
    x = getattr(model, name)(shape, context, **options)
    x = x[0] if isinstance(x, tuple) else x
    n = len(model.event_shape)
    expect(tuple(x.shape[x.dim() - n :]) == tuple(model.event_shape), 'shape of events')
    if not spoil:
        lead = tuple(np.atleast_1d(np.array(shape, dtype=int))) + (2,) * (size > 0)
        expect(tuple(x.shape[: x.dim() - n]) == lead, f'batch {tuple(x.shape)}')


def train(rng, model, spoil):
    x, context = inputs(rng, model, spoil and rng.random() < 0.5, n=12)
    options = dict(epochs=1, batch_size=4, progress=False, device='cpu')
    if spoil:
        names = (
            'epochs batch_size lr betas clip schedule warmup ema seed valid patience'
        )
        options[rng.choice([*names.split(), 'harm', 'loss', 'prepare'])] = wrong(rng)
    h = fit(model, x, context, **options)
    expect(len(h.train) == 1 or spoil, f'{len(h.train)} epochs')
    expect(all(map(math.isfinite, h.train)), f'losses {h.train}')


def keep(rng, model, spoil):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'model'
        save(model, path, dtype=wrong(rng) if spoil and rng.random() < 0.2 else None)
        again = load(path)
    for name, t in model.state_dict().items():
        expect(torch.equal(again.state_dict()[name], t), name)


def scores(rng, model, spoil):
    if len(model.event_shape) != 3:
        return score(rng, model, spoil)
    x, context = inputs(rng, model, spoil)
    options = {}
    if spoil:
        key = rng.choice(['noises', 'uniform', 'batch_size', 'seed', 'levels'])
        options[key] = wrong(rng)
    elif isinstance(x, Tensor) and x.is_floating_point():
        x = x.floor()
    bits = image_bits(model, x, context, **options)
    expect(bits.shape == (len(x),) and not bits.isnan().any(), 'bits')


def walk(rng, model, spoil):
    if not isinstance(model, Flow):
        return score(rng, model, spoil)
    size = context_size(model)
    context = container(rng, numbers(rng, (4, size))) if size else None
    if rng.random() < 0.5:
        law = model.distribution(wrong(rng) if spoil else context)
        x = law.sample((3,))
        expect(law.log_prob(x).shape == x.shape[: -len(model.event_shape)], 'shape')
        return None
    z = numbers(rng, (4, *model.base.event_shape))
    z = bad_numbers(rng, z) if spoil else container(rng, z)
    states = list(model.trace(z, context))
    expect(len(states) > 1, 'no states')
    return None


# How it ends.
NAMED = re.compile(r"(^|[ .(])(\w+): |argument[: ]+'?\w+|keyword|positional|\w+=")


def outcome(seed):
    "How one call ends: 'right', 'refused', 'nameless …', 'raw …' or 'wrong …'; and what."
    rng = random.Random(seed)
    torch.manual_seed(seed)
    spoil = rng.random() < 0.5
    call = rng.choice([layer_call, model_call, model_call])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            call(rng, spoil)
        return 'right', ''
    except (ValueError, TypeError) as e:
        kind = 'refused' if NAMED.search(str(e)) else 'nameless'
        return kind, where(e)
    except Diverged as e:  # says which layer, and what to do
        return 'refused', where(e)
    except Wrong as e:
        return 'wrong', where(e)
    except Exception as e:
        return 'raw', where(e)


def where(error):
    "The message, and the line of flowbook or of this file that it came from."
    place = ''
    trace = error.__traceback__
    while trace:
        file = Path(trace.tb_frame.f_code.co_filename)
        if 'flowbook' in file.parts or file.name == 'generator.py':
            place = f'{file.name}:{trace.tb_lineno} {trace.tb_frame.f_code.co_name}'
        trace = trace.tb_next
    return f'{type(error).__name__} at {place}: {str(error)[:160]}'


def run(n, seed=0):
    "Make `n` calls; how often each end came, and an example of each bad one by place."
    counts, bad = {}, {}
    for i in range(n):
        how, what = outcome(seed * 10**6 + i)
        counts[how] = counts.get(how, 0) + 1
        if how not in ('right', 'refused'):
            key = f'{how}: {what.split(": ")[0]}'
            first = dict(count=0, seed=seed * 10**6 + i, example=what)
            bad.setdefault(key, first)['count'] += 1
    ordered = dict(sorted(bad.items(), key=lambda item: -item[1]['count']))
    return dict(calls=n, seed=seed, outcomes=counts, bad=ordered)
