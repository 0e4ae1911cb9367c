"The steps of tools/on_gpu.sh, each with a time limit, and the record of them."

import argparse
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 9 * 60 - 20  # seconds for all steps together
PAGES = [
    '05_train',
    '07_realnvp',
    '07b_multiscale',
    '13_banana',
    '10_autoregressive',
    '08_glow',
]
TRAINING = {  # runs that a GPU is for; each goes on where the last call left it
    'pixelflow': 'pixelflow mnist --epochs 12 --ema 0.999 --weight-decay 0.05',
    'pixelflow-fashion': 'pixelflow fashion_mnist --epochs 12 --ema 0.999 '
    '--weight-decay 0.05',
    'glow': 'glow mnist --layers 16 --hidden 256 --bound 1 --epochs 200 --lr 0.001',
    'realnvp': 'realnvp-images mnist --layers 4 --hidden 64 --blocks 4 --bound 1 '
    '--epochs 200 --lr 0.001',
    'dry': 'nsf moons --epochs 1 --epoch-size 2000',
}
RUN_PAGE = '''
import sys
from pathlib import Path
import nbformat
from conftest import drop_skipped, run_notebook
path = Path(sys.argv[1])
nb = nbformat.read(path, 4)
drop_skipped(nb)
run_notebook(nb, path.parent, 300)
print(len(nb.cells), 'cells executed')
'''


def run(name, command, left):
    "Run one step in at most `left` seconds: whether it passed, and what it said last."
    start = time.time()
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=max(1, left)
        )
        passed, said = done.returncode == 0, done.stderr + done.stdout
    except subprocess.TimeoutExpired:
        passed, said = False, f'stopped after {left:.0f} s'
    lines = re.sub(r'\x1b\[[0-9;]*m', '', said).strip().splitlines()
    step = dict(step=name, passed=passed, seconds=round(time.time() - start, 1))
    step['said'] = lines[-1:] if passed else lines[-12:]
    step['counts'] = {
        w: int(n) for n, w in re.findall(r'(\d+) (passed|failed|skipped)', lines[-1])
    }
    word = 'passed' if passed else 'FAILED'
    print(word, name, f"{step['seconds']} s", lines[-1][:120], sep='  ', flush=True)
    return step


def training(name, dry, place):
    "The command that trains one run in a folder of `place`, or goes on with it."
    words = ['fit', *TRAINING[name].split()]
    words += ['--half', '--bfloat16', '--device', 'cpu' if dry else 'cuda']
    folder = place / f'{name}-gpu'
    words += ['--out', str(folder)]
    if (folder / 'checkpoint.safetensors').exists():
        words.append('--resume')
    return [sys.executable, '-m', 'flowbook.cli', *words]


def steps(dry, names, place):
    "Name and command of each step, the most telling first."
    for name in names:
        yield f'run {name}', training(name, dry, place)
    if names:
        return
    yield (
        'CUDA tests',
        [sys.executable, '-m', 'pytest', '-q', '-rs', '-k', 'cuda', 'tests'],
    )
    for page in ['83_described'] if dry else PAGES:
        yield (
            f'page {page}',
            [sys.executable, '-c', RUN_PAGE, str(ROOT / 'nbs' / f'{page}.ipynb')],
        )


def device():
    "What the machine computes on."
    cuda = torch.cuda.is_available()
    return dict(
        accelerator=torch.cuda.get_device_name(0) if cuda else None,
        torch=torch.__version__,
        python=platform.python_version(),
        cores=os.cpu_count(),
    )


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('out', nargs='?', default='on_gpu.json', help='the record to write')
    p.add_argument('--dry', action='store_true', help='on a CPU, with one small page')
    p.add_argument(
        '--train', nargs='+', default=[], choices=TRAINING, help='runs to train instead'
    )
    a = p.parse_args()
    if not a.dry and not torch.cuda.is_available():
        sys.exit('on_gpu: no CUDA device here; try --dry')
    missing = [
        m
        for m in 'pytest nbclient nbformat ipykernel execnb nbdev fastcore safetensors'.split()
        if not importlib.util.find_spec(m)
    ]
    if missing:
        sys.exit(
            f'on_gpu: missing {", ".join(missing)}; put their wheels, and those they '
            'need, into the folder $WHEELS'
        )
    start, done = time.time(), []
    record = dict(
        command='tools/on_gpu.sh',
        dry=a.dry,
        device=device(),
        date=time.strftime('%Y-%m-%d'),
        steps=done,
    )
    for name, command in steps(a.dry, a.train, Path(a.out).resolve().parent):
        left = LIMIT - (time.time() - start)
        if left < 5:
            done.append(dict(step=name, passed=None, said=['no time left']))
        else:
            done.append(run(name, command, left))
        record.update(
            passed=all(s['passed'] for s in done), seconds=round(time.time() - start, 1)
        )
        Path(a.out).write_text(
            json.dumps(record, indent=1) + '\n'
        )  # after every step: a lost machine loses little
    return 0 if record['passed'] else 1


if __name__ == '__main__':
    sys.exit(main())
