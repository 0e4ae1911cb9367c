"""Spoil files in many ways and load them: python tools/fuzz_files.py N [RECORD.json].

Each must end in a ValueError, or load with the tensors it holds, within a second of CPU
time and 200 MB. Counts, the worst time and the worst memory go to the record."""

import collections
import copy
import json
import math
import random
import signal
import struct
import sys
import tempfile
import time
from operator import itemgetter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from flowbook.all import (
    GAN,
    VAE,
    Autoregressive,
    BinaryMADE,
    Flow,
    StandardNormal,
    fit,
    glow,
    iaf,
    maf,
    nice,
    realnvp,
    realnvp_images,
)
from flowbook.described import Described
from flowbook.files import load, save
from flowbook.pixels import Dequantized, LearnedNoise, on_pixels
from flowbook.realnvp import Affine
from flowbook.records import hardware

ROOT = Path(__file__).resolve().parent.parent
SECONDS, MEGABYTES = 1.0, 200  # that one file may take
IMAGE = (1, 8, 8)
SMALL = dict(steps=2, width=4)
GRAPH = [[int(j < i and (i + j) % 3 > 0) for j in range(30)] for i in range(30)]
MODELS = {
    'nice': lambda: nice(4, hidden=(8,)),
    'realnvp': lambda: realnvp(4, hidden=(8, 8), context_dim=2),
    'maf': lambda: maf(5, hidden=(8,), order=[3, 1, 0, 2, 4]),
    'iaf': lambda: iaf(3, hidden=(8, 8), context_dim=1),
    'graph': lambda: Flow(
        StandardNormal(30), Autoregressive(30, Affine(), adjacency=GRAPH)
    ),
    'bits': lambda: BinaryMADE(6, hidden=(12,)),
    'gan': lambda: GAN(2, hidden=(8,)),
    'vae': lambda: VAE(3, hidden=(8,), latent_dim=2),
    'glow': lambda: glow(IMAGE, **SMALL),
    'realnvp images': lambda: realnvp_images(IMAGE, width=4, checkerboards=1),
    'vectors on pixels': lambda: on_pixels(realnvp(16, hidden=(4,)), (1, 4, 4)),
    'learned noise': lambda: Dequantized(
        on_pixels(glow(IMAGE, **SMALL), IMAGE), LearnedNoise(IMAGE, width=4)
    ),
}


# Good files, as a header and bytes.
def take_apart(data):
    "The header of a safetensors file as a dictionary, its description, and its bytes."
    n = struct.unpack('<Q', data[:8])[0]
    header = json.loads(data[8 : 8 + n])
    notes = header.pop('__metadata__')
    return header, json.loads(notes['flowbook']), data[8 + n :]


def put_together(header, meta, body):
    "A file again, however little the parts agree."
    text = meta if isinstance(meta, str) else json.dumps(meta)
    whole = {'__metadata__': {'flowbook': text}} | header
    head = json.dumps(whole).encode('utf-8', 'surrogatepass')
    return struct.pack('<Q', len(head)) + head + body


def good_files(folder):
    "Files of every kind of model, of both formats, and a checkpoint."
    files = {}
    for name, build in MODELS.items():
        save(build(), folder / 'good')
        files[name] = (folder / 'good').read_bytes()
    for path in sorted((ROOT / 'tests' / 'format1').glob('*.safetensors')):
        files[f'format 1 {path.stem}'] = path.read_bytes()
    x = torch.randn(20, 2)
    options = dict(epochs=1, checkpoint=folder / 'check', progress=False)
    fit(realnvp(2, hidden=(4,)), x, **options)
    files['checkpoint'] = (folder / 'check').read_bytes()
    return files


# Values that no constructor expects.
NUMBERS = [0, -1, 1, 2, 3, 7, 100, 30_000, 2**20, 2**31, 2**63, 10**13, 10**30, 10**400]
FLOATS = [math.nan, math.inf, -math.inf, 0.5, -3.0, 1e300, 1e-300]
OTHERS = [None, True, False, '', 'tanh', '__class__', '∇' * 100, [], {}, [[]], [None]]
OPTIONS = 'hidden blocks width layers bins features levels axis dim context_dim order '
OPTIONS += 'adjacency bound activation flip lam shape net event_dim latent_dim harm'


def nasty(rng):
    "A value from a stranger."
    return rng.choice(
        [
            lambda: rng.choice(NUMBERS),
            lambda: rng.choice(FLOATS),
            lambda: copy.deepcopy(rng.choice(OTHERS)),
            lambda: [rng.choice(NUMBERS) for _ in range(rng.randint(1, 5))],
            lambda: [rng.choice([1, 2, 30_000])] * rng.choice([3, 1000, 50_000]),
            lambda: list(range(rng.choice([2, 5, 10_000]))),
            lambda: [[rng.randint(0, 1) for _ in range(9)] for _ in range(9)],
            lambda: rng.randint(-(2**70), 2**70),
            lambda: rng.uniform(-10, 10),
        ]
    )()


def places(value, found=None):
    "All `(container, key)` inside a description."
    found = [] if found is None else found
    keys = (
        value
        if isinstance(value, dict)
        else range(len(value))
        if isinstance(value, list)
        else ()
    )
    for key in keys:
        found.append((value, key))
        places(value[key], found)
    return found


def nodes(meta):
    "All descriptions of objects inside metadata."
    inner = [box[key] for box, key in places({'meta': meta})]
    return [v for v in inner if isinstance(v, dict) and 'class' in v and 'kwargs' in v]


# Ways to spoil a file: each takes header, metadata and bytes, and returns a file.
def change_value(rng, header, meta, body):
    "Some values of the description become others."
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        box, key = rng.choice(places(meta))
        box[key] = nasty(rng)
    return put_together(header, meta, body)


def scale_number(rng, header, meta, body):
    "Numbers of the description grow."
    for box, key in places(meta):
        if type(box[key]) is int and rng.random() < 0.3:
            box[key] *= 10 ** rng.randint(0, 12)
    return put_together(header, meta, body)


def swap_class(rng, header, meta, body):
    "An object becomes one of another class."
    keys = [*Described.classes, 'os.system', 'builtins.eval', 'flowbook.cli.main', '']
    for node in rng.sample(nodes(meta), min(2, len(nodes(meta)))):
        node['class'] = rng.choice(keys)
    return put_together(header, meta, body)


def add_option(rng, header, meta, body):
    "An object is given arguments that it may not know."
    for node in rng.sample(nodes(meta), min(2, len(nodes(meta)))):
        if isinstance(node['kwargs'], dict):
            node['kwargs'][rng.choice(OPTIONS.split())] = nasty(rng)
    return put_together(header, meta, body)


def graft(rng, header, meta, body):
    "A part of the description takes the place of another."
    found = [p for p in places(meta) if isinstance(p[0][p[1]], (dict, list))]
    if found:
        (box, key), (other, at) = rng.choice(found), rng.choice(found)
        box[key] = copy.deepcopy(other[at])
    return put_together(header, meta, body)


def nest(rng, header, meta, body):
    "Part of the description is put within many others."
    kind = rng.choice(['core.Invert', 'core.Compose', 'multiscale.Split', 'core.Flow'])
    depth = rng.choice([1, 3, 30, 99, 300, 5000])
    head = f'{{"class": "flowbook.{kind}", "kwargs": {{}}, "args": ['
    flow = head * depth + json.dumps(meta.get('flow')) + ']}' * depth
    meta['flow'] = 'HERE'
    return put_together(header, json.dumps(meta).replace('"HERE"', flow), body)


def repeat_layers(rng, header, meta, body):
    "A list of the description becomes very long."
    lists = [box for box, _ in places(meta) if isinstance(box, list)]
    if lists:
        chosen = rng.choice(lists)
        chosen.extend(copy.deepcopy(chosen) * rng.choice([1, 10, 300]))
    return put_together(header, meta, body)


def spoil_text(rng, header, meta, body):
    "The description is no JSON, or another one."
    text = json.dumps(meta)
    at = rng.randrange(len(text))
    text = rng.choice(
        [
            text[:at],
            text[:at] + rng.choice('{}[]",:0e-∇\x00') + text[at + 1 :],
            '[' * rng.choice([10, 10**5]),
            '{"a":' * 10**4,
            '9' * rng.choice([10, 5000, 10**5]),
            rng.choice(['', 'null', '[]', '3', '"x"', 'NaN', '{}', '{"format": 2}']),
            text.replace('"format": ', '"format": 1'),
        ]
    )
    return put_together(header, text, body)


def lie(rng, header, meta, body):
    "The header says something else about a tensor."
    name = rng.choice(list(header))
    field = rng.choice(['dtype', 'shape', 'data_offsets'])
    kinds = ['F64', 'F32', 'F16', 'BF16', 'I64', 'I32', 'U8', 'BOOL', 'F8_E4M3', 'Q']
    header[name][field] = (
        rng.choice(kinds)
        if field == 'dtype'
        else [rng.choice([*NUMBERS[:12], 8, 16]) for _ in range(rng.randint(0, 3))]
    )
    return put_together(header, meta, body)


def change_tensors(rng, header, meta, body):
    "Tensors are missing, too many, called otherwise or of another type."
    names = list(header)
    name = rng.choice(names)
    what = rng.choice(['drop', 'add', 'rename', 'swap', 'type', 'many'])
    if what == 'drop':
        del header[name]
    elif what == 'add':
        header['harm'] = dict(dtype='F32', shape=[0], data_offsets=[0, 0])
    elif what == 'rename':
        header[name + rng.choice(['x', '.0', '∇'])] = header.pop(name)
    elif what == 'swap':
        other = rng.choice(names)
        header[name], header[other] = header[other], header[name]
    elif what == 'type' and header[name]['dtype'] == 'F32':
        header[name]['dtype'] = rng.choice(['I32', 'U32'])
    elif what == 'many':
        empty = dict(dtype='F32', shape=[0], data_offsets=[0, 0])
        header.update({f'{name}.{i}': empty for i in range(2000)})
    return put_together(header, meta, body)


def change_meta(rng, header, meta, body):
    "Format, precision, notes or wide tensors are odd, or missing."
    key = rng.choice(['format', 'dtype', 'notes', 'wide', 'flow'])
    if rng.random() < 0.2:
        meta.pop(key, None)
    else:
        names = [list(header)[:2], [rng.choice(list(header))], ['harm'], 'harm']
        meta[key] = rng.choice([nasty(rng), 1, 2, 'torch.float64', *names])
    return put_together(header, meta, body)


def cut(rng, header, meta, body):
    "The file ends too early or too late, or its first bytes lie."
    data = put_together(header, meta, body)
    size = struct.pack('<Q', rng.choice([0, 1, 2**20, 2**26, 2**40, 2**63, 2**64 - 1]))
    end = data[: rng.randrange(len(data))]
    return rng.choice([end, data + bytes(rng.randint(1, 99)), size + data[8:]])


def flip(rng, header, meta, body):
    "Some bytes are others."
    data = bytearray(put_together(header, meta, body))
    for _ in range(rng.choice([1, 1, 3, 50])):
        data[rng.randrange(len(data))] ^= rng.randint(1, 255)
    return bytes(data)


def leave(rng, header, meta, body):
    "Nothing is changed."
    return put_together(header, meta, body)


WAYS = [
    change_value,
    change_value,
    scale_number,
    swap_class,
    add_option,
    graft,
    nest,
    repeat_layers,
    spoil_text,
    lie,
    change_tensors,
    change_meta,
    cut,
    flip,
    leave,
]


# One file.
def memory(field):
    "A line of /proc/self/status in MB; VmHWM is the peak since `forget_peak`."
    for line in open('/proc/self/status'):
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0.0


def forget_peak():
    "Let the peak of the resident memory start again from what is resident now."
    Path('/proc/self/clear_refs').write_text('5')


class Hung(BaseException):
    "A file was not done within ten times its time."


def ring(*_):
    raise Hung


def outcome(path):
    "How loading ends: 'loaded', 'refused', or what went wrong; CPU seconds, megabytes."
    forget_peak()
    before, start = memory('VmRSS'), time.process_time()
    signal.setitimer(signal.ITIMER_REAL, 10 * SECONDS)
    model = None
    try:
        model = load(path)
        how = 'loaded'
    except ValueError as e:
        how = 'refused' if path.name in str(e) else f'nameless: {e}'[:300]
    except (Exception, Hung) as e:
        how = f'{type(e).__name__}: {e}'[:300]
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds, megabytes = time.process_time() - start, memory('VmHWM') - before
    if seconds > SECONDS or megabytes > MEGABYTES:
        how = f'too much: {seconds:.2f} s, {megabytes:.0f} MB ({how})'
    return (
        ('not whole' if model and not whole(model, path) else how),
        seconds,
        megabytes,
    )


def outcome_of_three(path):
    "`outcome`, again when it is slow: other work on the machine only adds seconds."
    tries = [outcome(path)]
    while tries[-1][1] > SECONDS and len(tries) < 3:
        tries.append(outcome(path))
    return min(tries, key=itemgetter(1))


def whole(model, path):
    "Whether a loaded model has as many numbers as its file, and can be saved again."
    save(model, path.with_name('again'))
    again, _, _ = take_apart(path.with_name('again').read_bytes())
    then, _, _ = take_apart(path.read_bytes())
    count = [
        sum(math.prod(t['shape']) for k, t in h.items() if 'context_units' not in k)
        for h in (then, again)
    ]  # files of earlier formats have no units of contexts
    return count[0] == count[1]


def run(n, seed=0, folder=None):
    "Load `n` spoilt files; the record."
    signal.signal(signal.SIGALRM, ring)
    rng = random.Random(seed)
    counts = collections.defaultdict(collections.Counter)
    failed, worst = [], dict(seconds=0.0, megabytes=0.0)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        files = good_files(Path(place))
        path = Path(place) / 'bad.safetensors'
        for i in range(n):
            kind, way = rng.choice(list(files)), rng.choice(WAYS)
            path.write_bytes(way(rng, *take_apart(files[kind])))
            how, seconds, megabytes = outcome_of_three(path)
            counts[way.__name__][how if how in ('loaded', 'refused') else 'failed'] += 1
            worst['seconds'] = max(worst['seconds'], seconds)
            worst['megabytes'] = max(worst['megabytes'], megabytes)
            if how not in ('loaded', 'refused'):
                failed.append(dict(number=i, kind=kind, way=way.__name__, how=how))
    return dict(
        files=n,
        seed=seed,
        limits=dict(seconds=SECONDS, megabytes=MEGABYTES),
        worst={k: round(v, 3) for k, v in worst.items()},
        outcomes={k: dict(v) for k, v in sorted(counts.items())},
        failed=failed,
        hardware=hardware('cpu'),
    )


if __name__ == '__main__':
    torch.set_num_threads(1)
    record = run(int(sys.argv[1]))
    text = json.dumps(record, indent=1) + '\n'
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(text)
    print(text)
    sys.exit(bool(record['failed']))
