"Files: what is saved comes back bit for bit, and nothing that is read can do harm."

import json
import os
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save as pack
from torch import nn

from flowbook.autoregressive import Autoregressive, maf
from flowbook.core import (
    Bijection,
    Compose,
    Flow,
    Permute,
    Standardize,
    StandardNormal,
)
from flowbook.coupling import Coupling, nice
from flowbook.described import Described, describe
from flowbook.files import (
    FORMAT,
    load,
    read_tensors,
    save,
    write_bytes,
    write_tensors,
)
from flowbook.glow import glow
from flowbook.pixels import on_pixels
from flowbook.realnvp import Affine, realnvp
from flowbook.vae import VAE
from support import normal, python, randomize


class Shift(Bijection):
    "A user's own layer, with an argument and a parameter."

    def __init__(self, dim, by=1.0):
        super().__init__()
        self.by, self.t = by, nn.Parameter(torch.zeros(dim))

    def forward(self, z, context=None):
        return z + self.by + self.t, z.new_zeros(z.shape[:-1])

    def inverse(self, x, context=None):
        return x - self.by - self.t, x.new_zeros(x.shape[:-1])


class Net(Described, nn.Module):
    "A user's own conditioner."

    def __init__(self, n_in, n_out):
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)

    def forward(self, h, context=None):
        return self.linear(h).sin().unflatten(-1, (-1, 2))


FLOWS = {
    'nice': lambda: nice(4),
    'realnvp': lambda: realnvp(4, bound=None, hidden=(8,), activation='relu'),
    'ordered': lambda: realnvp(4, order=[3, 1, 0, 2]),
    'context': lambda: realnvp(4, context_dim=2),
    'pixels': lambda: on_pixels(realnvp(4), (1, 2, 2), lam=1e-3),
    'own layer': lambda: Flow(
        StandardNormal(4), Compose(Shift(4, by=2.0), Coupling(4, Affine()))
    ),
    'own net': lambda: Flow(StandardNormal(4), Coupling(4, Affine(), net=Net(2, 4))),
}
flows = pytest.mark.parametrize('name', FLOWS)


def make(name, dtype=torch.float32):
    flow = FLOWS[name]()
    context = normal(50, 2, dtype=torch.float32) if name == 'context' else None
    x = normal(50, *flow.event_shape, dtype=torch.float32)
    flow.bijection.initialize(
        100 * x.sigmoid() if name == 'pixels' else 3 * x + 1, context
    )
    flow, x = (
        randomize(flow, size=0.7).to(dtype),
        (256 * x.sigmoid() if name == 'pixels' else x).to(dtype),
    )
    return flow, x, (x, context if context is None else context.to(dtype))


@flows
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_what_is_loaded_is_bit_equal(tmp_path, name, dtype):
    flow, x, args = make(name, dtype)
    save(flow, tmp_path / 'f.safetensors', data='test', list=[1, 2])
    again = load(tmp_path / 'f.safetensors')
    assert describe(again) == describe(flow) and again.notes == {
        'data': 'test',
        'list': [1, 2],
    }
    assert (
        torch.equal(again.log_prob(*args), flow.log_prob(*args))
        and again.log_prob(*args).dtype == dtype
    )
    assert [p.name for p in tmp_path.iterdir()] == ['f.safetensors']
    for k, v in flow.state_dict().items():
        assert (
            torch.equal(again.state_dict()[k], v)
            and again.state_dict()[k].dtype == v.dtype
        ), k


@flows
@pytest.mark.parametrize('dtype, tol', [(torch.float16, 1e-2), (torch.bfloat16, 1e-1)])
def test_half_precision_is_storage_only(tmp_path, name, dtype, tol):
    flow, x, args = make(name)
    save(flow, tmp_path / 'full.safetensors')
    save(flow, tmp_path / 'half.safetensors', dtype=dtype)
    again = load(tmp_path / 'half.safetensors')
    assert (
        {p.dtype for p in again.parameters()}
        == {torch.float32}
        == {p.dtype for p in flow.parameters()}
    )
    tensors = read_tensors(tmp_path / 'half.safetensors')[0]
    learned = dict(flow.named_parameters())
    assert {tensors[k].dtype for k in learned} == {dtype}
    rest = [t for k, t in tensors.items() if k not in learned]  # such as the units
    assert {t.dtype for t in rest if t.is_floating_point()} <= {torch.float32}
    torch.testing.assert_close(
        again.log_prob(*args), flow.log_prob(*args), rtol=tol, atol=20 * tol
    )
    assert (tmp_path / 'half.safetensors').stat().st_size < (
        tmp_path / 'full.safetensors'
    ).stat().st_size


def test_loading_and_saving_again_gives_the_same_file(tmp_path):
    save(make('realnvp')[0], tmp_path / 'a')
    save(load(tmp_path / 'a'), tmp_path / 'b')
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


def test_a_path_may_be_a_string_and_an_old_file_is_replaced(tmp_path):
    for name in ('nice', 'realnvp'):
        save(make(name)[0], str(tmp_path / 'f'))
    assert describe(load(str(tmp_path / 'f'))) == describe(make('realnvp')[0])


def test_a_layer_used_twice_is_saved(tmp_path):
    layer = randomize(Coupling(4, Affine()))
    flow, x = (
        Flow(StandardNormal(4), Compose(layer, Permute([3, 2, 1, 0]), layer)),
        normal(5, 4, dtype=torch.float32),
    )
    save(flow, tmp_path / 'f')
    assert torch.equal(load(tmp_path / 'f').log_prob(x), flow.log_prob(x))


def test_an_autoregressive_layer_used_twice_is_saved(tmp_path):
    layer = randomize(Autoregressive(4, Affine(), hidden=(8,)))
    flow, x = (
        Flow(StandardNormal(4), Compose(layer, Permute([3, 2, 1, 0]), layer)),
        normal(5, 4, dtype=torch.float32),
    )
    save(flow, tmp_path / 'f')
    assert torch.equal(load(tmp_path / 'f').log_prob(x), flow.log_prob(x))


def test_numbers_too_large_for_half_precision_are_refused_and_no_file_is_left(tmp_path):
    flow = randomize(Coupling(4, Affine()))
    flow = Flow(StandardNormal(4), Compose(flow))
    with torch.no_grad():
        next(flow.parameters()).flatten()[0] = 1e5
    with pytest.raises(ValueError, match='too large'):
        save(flow, tmp_path / 'f', dtype=torch.float16)
    assert not list(tmp_path.iterdir())


def test_lists_inside_arguments_belong_to_the_flow(tmp_path):
    graph = [[0, 0], [1, 0]]
    flow, x = (
        Flow(
            StandardNormal(2),
            Compose(randomize(Autoregressive(2, Affine(), adjacency=graph))),
        ),
        normal(5, 2, dtype=torch.float32),
    )
    graph[1][0], graph[0][1] = 0, 1
    save(flow, tmp_path / 'f')
    assert torch.equal(load(tmp_path / 'f').log_prob(x), flow.log_prob(x))


def test_arguments_changed_after_the_flow_was_built_do_not_matter(tmp_path):
    widths = [8]
    flow = realnvp(4, hidden=widths)
    widths.append(9)
    save(flow, tmp_path / 'f')
    assert describe(load(tmp_path / 'f')) == describe(realnvp(4, hidden=[8]))


def test_saving_leaves_the_flow_and_random_numbers_alone(tmp_path):
    flow, x, args = make('nice')
    state, want = torch.get_rng_state(), flow.log_prob(x)
    save(flow, tmp_path / 'f', dtype=torch.float16)
    assert torch.equal(flow.log_prob(x), want) and torch.equal(
        torch.get_rng_state(), state
    )
    load(tmp_path / 'f')
    assert torch.equal(torch.get_rng_state(), state), (
        'load moved the global random generator'
    )


@pytest.mark.parametrize(
    'net',
    [
        lambda: nn.Linear(2, 4),
        lambda: nn.Sequential(nn.Linear(2, 4)),
        lambda: max,
        lambda: {1: 2},
    ],
)
def test_what_cannot_be_described_is_refused_by_the_constructor_with_advice(net):
    with pytest.raises(
        ValueError, match='^Coupling, argument net: expected .* derives from Described'
    ):
        Coupling(4, Affine(), net=net())


NUMBERS = {
    'a NumPy dimension': lambda: realnvp(np.prod((2, 3))),
    'a NumPy bound': lambda: realnvp(6, bound=np.float32(3)),
    'a NumPy order': lambda: maf(6, order=np.random.default_rng(0).permutation(6)),
    'a torch order': lambda: maf(6, order=torch.randperm(6)),
    'a torch order of couplings': lambda: realnvp(6, order=torch.randperm(6)),
    'a torch graph': lambda: Flow(
        StandardNormal(3),
        Autoregressive(3, Affine(), adjacency=torch.ones(3, 3).tril(-1)),
    ),
    'a NumPy graph': lambda: Flow(
        StandardNormal(3),
        Autoregressive(3, Affine(), adjacency=np.tri(3, k=-1, dtype=bool)),
    ),
    'a NumPy shape': lambda: glow(tuple(np.array([1, 4, 4]))),
    'NumPy widths': lambda: realnvp(6, hidden=np.array([5, 4])),
    'a torch dimension': lambda: VAE(torch.tensor(3), latent_dim=np.int8(2)),
    'a range': lambda: Flow(StandardNormal(3), Permute(range(3)[::-1])),
}


@pytest.mark.parametrize('name', NUMBERS)
def test_numbers_of_any_kind_are_arguments_and_are_saved(tmp_path, name):
    flow = NUMBERS[name]()
    save(flow, tmp_path / 'f')
    assert describe(load(tmp_path / 'f')) == describe(flow)


def test_two_classes_of_one_name_do_not_meet(tmp_path):
    save(make('own layer')[0], tmp_path / 'f')
    type('Shift', (Bijection,), {'__module__': 'elsewhere'})  # the same bare name
    x = normal(3, 4)
    assert torch.equal(
        load(tmp_path / 'f').double().log_prob(x),
        make('own layer')[0].double().log_prob(x),
    )


@pytest.mark.parametrize('notes', [dict(a=object()), dict(a={1, 2})])
def test_notes_that_json_cannot_hold_are_refused_and_no_file_is_left(tmp_path, notes):
    with pytest.raises(TypeError):
        save(make('nice')[0], tmp_path / 'f', **notes)
    assert not list(tmp_path.iterdir())


def test_a_class_that_is_not_imported_is_named(tmp_path):
    save(make('own layer')[0], tmp_path / 'f')
    message = python(
        'import sys; from flowbook.files import load\n'
        'try: load(sys.argv[1])\nexcept ValueError as e: print(e)',
        tmp_path / 'f',
    )
    assert (
        "unknown class 'test_save.Shift'" in message
        and 'import the module that defines it' in message
    )


# Bad files.
def good(tmp_path, name='realnvp'):
    flow = make(name)[0]
    save(flow, tmp_path / 'good.safetensors')
    return (tmp_path / 'good.safetensors').read_bytes(), flow


def refuse(tmp_path, data, match=None):
    path = tmp_path / 'bad.safetensors'
    path.write_bytes(data)
    with pytest.raises(ValueError, match=match) as e:
        load(path)
    return str(e.value)


@pytest.mark.parametrize('eighth', range(8))
def test_a_truncated_file_is_refused_by_name(tmp_path, eighth):
    data, _ = good(tmp_path)
    assert 'bad.safetensors' in refuse(
        tmp_path, data[: len(data) * eighth // 8], 'not a complete safetensors file'
    )


@pytest.mark.parametrize('cut', [1, 7, 8, 9])
def test_a_file_that_lost_or_gained_a_few_bytes_is_refused(tmp_path, cut):
    data, _ = good(tmp_path)
    refuse(tmp_path, data[:-cut])
    refuse(tmp_path, data[:cut])
    refuse(tmp_path, data + bytes(cut))


@pytest.mark.parametrize('seed', range(10))
def test_random_bytes_are_refused(tmp_path, seed):
    refuse(
        tmp_path,
        bytes(
            torch.randint(
                0, 256, (200,), generator=torch.Generator().manual_seed(seed)
            ).tolist()
        ),
    )


@pytest.mark.parametrize(
    'data',
    [
        b'PK\x03\x04',
        b'\x80\x02}q\x00.',
        struct.pack('<Q', 2**63),
        struct.pack('<Q', 10**6) + b'{}',
        b'{}' * 50,
        '∇'.encode() * 50,
    ],
)
def test_other_formats_are_refused(tmp_path, data):
    refuse(tmp_path, data, 'bad.safetensors')


def test_another_program_s_safetensors_are_refused(tmp_path):
    refuse(tmp_path, pack({'w': torch.zeros(2)}), 'not one that flowbook wrote')
    refuse(
        tmp_path,
        pack({'w': torch.zeros(2)}, {'format': 'pt'}),
        'not one that flowbook wrote',
    )


def test_a_checkpoint_is_not_a_flow(tmp_path):
    write_tensors(
        tmp_path / 'c', {'w': torch.zeros(2)}, dict(format=FORMAT, history={})
    )
    refuse(tmp_path, (tmp_path / 'c').read_bytes(), 'holds no flow')


def test_a_file_of_the_future_is_refused_with_advice(tmp_path):
    write_tensors(
        tmp_path / 'f',
        make('nice')[0].state_dict(),
        dict(format=FORMAT + 1, flow=describe(make('nice')[0]), dtype='torch.float32'),
    )
    refuse(tmp_path, (tmp_path / 'f').read_bytes(), 'upgrade flowbook')


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path):
    for path in (tmp_path / 'absent.safetensors', tmp_path):
        with pytest.raises((OSError, ValueError), match=path.name):
            load(path)
    with pytest.raises(OSError):
        save(make('nice')[0], tmp_path / 'no such folder' / 'f')
    (tmp_path / 'folder').mkdir()
    with pytest.raises(OSError):
        save(make('nice')[0], tmp_path / 'folder')
    assert [p.name for p in tmp_path.iterdir()] == ['folder'] and not list(
        (tmp_path / 'folder').iterdir()
    )


def node(name, *args, **kwargs):
    return {'class': name, 'args': list(args), 'kwargs': kwargs}


BASE = node('StandardNormal', 2)
DEEP = DEEPER = BASE
for _ in range(100):
    DEEP = node('Invert', DEEP)
HOSTILE = {
    'a function of os': node('os.system', 'echo harm'),
    'a module': node('flowbook.cli.main'),
    'no such module': node('flowbook.nowhere.Thing'),
    'a private module': node('flowbook._modidx.d'),
    'a builtin': node('eval', '1'),
    'a dunder': node('__import__', 'os'),
    'a torch class': node('Linear', 2, 2),
    'no class': {'args': [], 'kwargs': {}},
    'class is a list': node(['Flow']),
    'class is null': node(None),
    'no args': {'class': 'Flow'},
    'args is a number': {'class': 'Flow', 'args': 3, 'kwargs': {}},
    'kwargs is a list': {'class': 'Flow', 'args': [], 'kwargs': [1]},
    'too few args': node('Flow'),
    'too many args': node('Flow', BASE, BASE, BASE),
    'numbers for layers': node('Flow', 1, 2),
    'strings for layers': node('Flow', 'a', 'b'),
    'unknown keyword': node('Flow', BASE, node('DiagScale', 2), harm=1),
    'dunder keyword': node('DiagScale', 2, __class__='x'),
    'negative size': node('Flow', BASE, node('DiagScale', -2)),
    'string size': node('Flow', BASE, node('DiagScale', 'two')),
    'float size': node('Flow', BASE, node('DiagScale', 2.5)),
    'no layers': node('Flow', BASE, node('Compose')),
    'a base for a layer': node('Flow', BASE, BASE),
    'a layer for a base': node('Flow', node('DiagScale', 2), node('DiagScale', 2)),
    'not a flow': node('DiagScale', 2),
    'an abstract class': node('Flow', node('Base', 2), node('Bijection')),
    'a bad net': node('Flow', BASE, node('Coupling', 2, node('Additive'), net='os')),
    'a huge size': node('Flow', BASE, node('DiagScale', 10**13)),
    'a huger size': node('Flow', BASE, node('DiagScale', 10**30)),
    'deep': node('Flow', BASE, DEEP),
    'null': None,
    'a string': 'Flow',
    'a number': 3,
    'a list': [1, 2],
    'true': True,
    'empty': {},
}


ROOM = dict(
    Flow='core',
    StandardNormal='core',
    Invert='core',
    Compose='core',
    DiagScale='coupling',
    Coupling='coupling',
    Additive='coupling',
    Base='core',
    Bijection='core',
)


def rooms(d):
    "The same description with the classes of flowbook named as format 2 names them."
    if not isinstance(d, dict):
        return [rooms(v) for v in d] if isinstance(d, list) else d
    name = d.get('class')
    named = (
        {'class': f'flowbook.{ROOM[name]}.{name}'}
        if isinstance(name, str) and name in ROOM
        else {}
    )
    return {
        **{
            k: {a: rooms(v) for a, v in w.items()}
            if k == 'kwargs' and isinstance(w, dict)
            else rooms(w)
            for k, w in d.items()
        },
        **named,
    }


def hostile(flow, **meta):
    flow = rooms(flow) if meta.get('format', FORMAT) == FORMAT else flow
    meta = dict(format=FORMAT, flow=flow, dtype='torch.float32', notes={}) | meta
    return pack({'bijection.log_s': torch.zeros(2)}, {'flowbook': json.dumps(meta)})


def test_the_hostile_files_start_from_a_good_one(tmp_path):
    (tmp_path / 'f').write_bytes(hostile(node('Flow', BASE, node('DiagScale', 2))))
    assert repr(load(tmp_path / 'f')) == 'Flow(StandardNormal(2), DiagScale(2))'


@pytest.mark.parametrize('number', [1, FORMAT])
@pytest.mark.parametrize('what', HOSTILE)
def test_a_hostile_description_is_refused(tmp_path, what, number, capfd):
    assert 'bad.safetensors' in refuse(
        tmp_path, hostile(HOSTILE[what], format=number)
    ), 'the message does not name the file'
    assert 'harm' not in capfd.readouterr().out


@pytest.mark.parametrize(
    'meta',
    [
        dict(dtype='torch.load'),
        dict(dtype='torch.nonsense'),
        dict(dtype='os.system'),
        dict(dtype='torch.int64'),
        dict(dtype=None),
        dict(dtype=['torch.float32']),
        dict(format='2'),
        dict(format=None),
        dict(format=[1]),
        dict(format=1e400),
        dict(notes='text'),
        dict(notes=None),
    ],
)
def test_hostile_metadata_are_refused_or_harmless(tmp_path, meta):
    flow = node('Flow', BASE, node('DiagScale', 2))
    if 'notes' in meta:
        (tmp_path / 'f').write_bytes(hostile(flow, **meta))
        assert load(tmp_path / 'f').log_prob(torch.zeros(2)).shape == ()
    else:
        refuse(tmp_path, hostile(flow, **meta))


@pytest.mark.parametrize(
    'text',
    [
        '',
        '{',
        'null',
        '[]',
        '3',
        '"text"',
        'NaN',
        '{"flow": ',
        '[' * 100_000,
        '{"a":' * 100_000,
        '\ud83d'.encode('utf-8', 'replace').decode(),
    ],
)
def test_metadata_that_are_no_json_object_are_refused(tmp_path, text):
    refuse(tmp_path, pack({'w': torch.zeros(2)}, {'flowbook': text}))


def test_a_description_nested_without_end_is_refused(tmp_path):
    text = '{"class":"Invert","kwargs":{},"args":[' * 5000 + '1' + ']}' * 5000
    data = pack(
        {'w': torch.zeros(2)},
        {'flowbook': f'{{"format":1,"dtype":"torch.float32","flow":{text}}}'},
    )
    refuse(tmp_path, data)


@pytest.mark.parametrize('change', ['missing', 'extra', 'shape'])
def test_tensors_that_do_not_fit_the_description_are_refused(tmp_path, change):
    flow, state = make('nice')[0], make('nice')[0].state_dict()
    first = next(iter(state))
    if change == 'missing':
        del state[first]
    elif change == 'extra':
        state['harm'] = torch.zeros(2)
    else:
        state[first] = torch.zeros(7)
    write_tensors(
        tmp_path / 'f',
        state,
        dict(format=FORMAT, flow=describe(flow), dtype='torch.float32'),
    )
    refuse(tmp_path, (tmp_path / 'f').read_bytes(), 'do not fit')


@pytest.mark.parametrize('part', ['header', 'anywhere'])
def test_flipped_bytes_never_raise_anything_but_value_error(tmp_path, part):
    data, flow = good(tmp_path)
    gen, path, shapes = (
        torch.Generator().manual_seed(0),
        tmp_path / 'bad',
        {k: v.shape for k, v in flow.state_dict().items()},
    )
    end, refused = (
        (struct.unpack('<Q', data[:8])[0] + 8) if part == 'header' else len(data),
        0,
    )
    problems = {}
    for i in range(200):
        bad = bytearray(data)
        at, by = (
            torch.randint(0, end, (1,), generator=gen).item(),
            torch.randint(1, 256, (1,), generator=gen).item(),
        )
        if i % 2:
            by = 1 << by % 8  # a single bit
        bad[at] ^= by
        path.write_bytes(bad)
        try:
            assert {k: v.shape for k, v in load(path).state_dict().items()} == shapes, (
                f'another structure after byte {at} ^= {by}'
            )
        except ValueError:
            refused += 1
        except Exception as e:
            problems[f'{type(e).__name__}: {e}'[:150]] = (at, by)
    assert not problems
    assert refused > 0


# What files may lack, and hold more exactly.
class Units(nn.Module):
    "A part that models of the first version had not."

    since_format_2 = True

    def __init__(self, dim):
        super().__init__()
        self.register_buffer('mean', torch.full((dim,), 3.0))
        self.register_buffer('log_s', torch.zeros(dim))


class Later(Flow):
    "A flow that got such a part."

    def __init__(self, dim):
        super().__init__(StandardNormal(dim), Shift(dim))
        self.units = Units(dim)


@pytest.mark.parametrize('lost', [['mean', 'log_s'], ['mean']])
def test_a_part_that_came_later_may_be_missing_as_a_whole(tmp_path, lost):
    flow = randomize(Later(2))
    state = {k: v for k, v in flow.state_dict().items()}
    for name in lost:
        del state[f'units.{name}']
    meta = dict(format=FORMAT, flow=describe(flow), dtype='torch.float32')
    write_tensors(tmp_path / 'f', state, meta)
    if len(lost) == 2:
        again = load(tmp_path / 'f')
        assert torch.equal(again.units.mean, torch.full((2,), 3.0))
        assert torch.equal(again.bijection.t, flow.bijection.t)
    else:
        with pytest.raises(ValueError, match='units.mean: is missing'):
            load(tmp_path / 'f')


@pytest.mark.parametrize('dtype', [None, torch.float16, torch.float64])
def test_a_mean_in_double_precision_stays_so(tmp_path, dtype):
    flow = Flow(StandardNormal(2), Compose(Shift(2), Standardize(2)))
    exact = torch.tensor([2_459_000.123456789, 1e-9], dtype=torch.float64)
    flow.bijection.layers[1].mean = exact
    save(flow, tmp_path / 'f', dtype=dtype)
    again = load(tmp_path / 'f')
    assert torch.equal(again.bijection.layers[1].mean, exact)
    assert again.bijection.layers[1].mean.dtype == torch.float64
    assert {p.dtype for p in again.parameters()} == {torch.float32}


def test_a_name_of_a_wide_tensor_that_is_none_does_no_harm(tmp_path):
    flow = node('Flow', BASE, node('DiagScale', 2))
    (tmp_path / 'f').write_bytes(hostile(flow, wide=['bijection.log_s', [], 'x']))
    assert load(tmp_path / 'f').bijection.log_s.dtype == torch.float32
    refuse(tmp_path, hostile(flow, wide='bijection.log_s'), 'damaged')


@pytest.mark.parametrize('dtype', [torch.int32, torch.bool, torch.uint8])
def test_a_tensor_of_another_type_is_refused(tmp_path, dtype):
    flow = make('nice')[0]
    state = flow.state_dict()
    name = next(iter(state))
    meta = dict(format=FORMAT, flow=describe(flow), dtype='torch.float32')
    write_tensors(tmp_path / 'f', state | {name: state[name].to(dtype)}, meta)
    refuse(tmp_path, (tmp_path / 'f').read_bytes(), f'{name}: expected F16')


def test_no_tensor_is_read_before_names_and_shapes_are_right(tmp_path, monkeypatch):
    import flowbook.files

    flow = make('nice')[0]
    meta = dict(format=FORMAT, flow=describe(flow), dtype='torch.float32')
    write_tensors(tmp_path / 'f', {'w': torch.zeros(2)}, meta)
    monkeypatch.setattr(flowbook.files, 'fill', None)
    monkeypatch.setattr(flowbook.files, 'widen', None)
    refuse(tmp_path, (tmp_path / 'f').read_bytes(), 'do not fit')


class Worked(Shift):
    "A layer that computes with large tables while it is built, and keeps little."

    def __init__(self, dim):
        super().__init__(dim, by=float(torch.ones(3000, 3000).mean()))


def test_one_s_own_file_that_takes_much_to_build_loads_on_trust(tmp_path):
    flow = Flow(StandardNormal(2), Worked(2))
    save(flow, tmp_path / 'f')
    with pytest.raises(ValueError, match='trust=True'):
        load(tmp_path / 'f')
    assert describe(load(tmp_path / 'f', trust=True)) == describe(flow)


@pytest.mark.parametrize('dim', [12, 60, 120])
def test_a_graph_of_many_coordinates_loads(tmp_path, dim):
    chain = [[int(j == i - 1) for j in range(dim)] for i in range(dim)]
    flow = Flow(StandardNormal(dim), Autoregressive(dim, Affine(), adjacency=chain))
    save(flow, tmp_path / 'f')
    assert describe(load(tmp_path / 'f')) == describe(flow)


def test_a_flow_too_deep_or_too_long_to_be_read_again_is_not_written(tmp_path):
    from flowbook.core import Invert

    layer = Shift(2)
    for _ in range(120):
        layer = Invert(layer)
    with pytest.raises(ValueError, match='layers within layers'):
        save(Flow(StandardNormal(2), layer), tmp_path / 'f')
    with pytest.raises(ValueError, match='long tables'):
        save(make('nice')[0], tmp_path / 'f', table=[[]] * 200_000)
    assert not list(tmp_path.iterdir())


def test_parts_of_killed_processes_go_with_the_next_write(tmp_path):
    dead = [f'.f.{n}.part' for n in (999_999_999, 2**22 + 1)]
    alive = [f'.f.{os.getpid()}.part', '.f.1.part', '.g.999999999.part', '.f.x.part']
    for name in dead + alive:
        (tmp_path / name).write_bytes(b'half')
    write_bytes(tmp_path / 'f', b'whole')
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {'f', *alive} - {f'.f.{os.getpid()}.part'}


def test_a_killed_writer_leaves_no_part_after_the_next_write(tmp_path):
    code = """
import os, sys
import flowbook.files as files
os.replace = lambda *_: os._exit(0)  # killed before the file has its name
files.write_bytes(sys.argv[1], b'half')"""
    python(code, tmp_path / 'f')
    assert [p.suffix for p in tmp_path.iterdir()] == ['.part']
    write_bytes(tmp_path / 'f', b'whole')
    assert [p.name for p in tmp_path.iterdir()] == ['f']
