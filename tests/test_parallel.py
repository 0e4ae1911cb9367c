"Several processes do what one does, and say so when one of them is gone."

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from flowbook.files import read_tensors
from support import ROOT

PROGRAM = '''
import os, sys, torch
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler
from flowbook.files import save
from flowbook.realnvp import realnvp
from flowbook.train import fit
kind, path, epochs, resume = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == 'resume'
torch.set_num_threads(1)
gen = torch.Generator().manual_seed(0)
x = 5 + 2 * torch.randn(403, 2, generator=gen)
rank = int(os.environ.get('RANK', 0))
torch.manual_seed(rank)  # processes that begin differently
if kind != 'alone':
    torch.manual_seed(7 + rank)
flow = realnvp(2, layers=2, hidden=(16,))
if rank == 0:
    torch.manual_seed(3)
    flow = realnvp(2, layers=2, hidden=(16,))
data = x
run = dict(epochs=epochs, batch_size=50, ema=0.9, lr=5e-3)
if kind == 'other':
    data = x + rank
if kind == 'loader':
    run['valid'] = x
    data = DataLoader(TensorDataset(x), 50)
if kind == 'weights':
    run['valid'] = x
    data = DataLoader(TensorDataset(x, x, torch.linspace(0, 100, 403)), 50)
if kind.startswith('sampler'):
    torch.distributed.init_process_group('gloo')
    own = [x[:400], x[:400], torch.full((400,), 100.0)]
    rows = TensorDataset(*own[: 3 if 'weights' in kind else 1])
    sampler = DistributedSampler(rows, shuffle=False)
    data = DataLoader(rows, 25, sampler=sampler)
    run['valid'] = x
if kind == 'slow':
    import time
    def loss(m, b, c):
        time.sleep(0.02)
        return -m.log_prob(b, c)
    run['loss'] = loss
try:
    history = fit(flow, data, checkpoint=path + '.run', resume=resume, **run)
except Exception as e:
    print(type(e).__name__ + ': ' + str(e), file=sys.stderr, flush=True)
    os._exit(3)
if rank == 0:
    save(flow, path, train=history.train, valid=history.valid)
'''


def start(tmp_path, processes, kind, name, epochs=3, resume=''):
    file = tmp_path / 'program.py'
    file.write_text(PROGRAM)
    args = [str(file), kind, str(tmp_path / name), str(epochs), resume]
    command = [sys.executable, *args]
    if processes > 1:
        launcher = '-m torch.distributed.run --standalone --nproc-per-node'.split()
        command = [sys.executable, *launcher, str(processes), *args]
    env = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(*args, **kwargs):
    process = start(*args, **kwargs)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def notes(path):
    return read_tensors(path)[1]['notes']


def losses(tmp_path, processes, kind, **kwargs):
    name = f'{kind}{processes}.safetensors'
    code, errors = run(tmp_path, processes, kind, name, **kwargs)
    assert code == 0, errors[-2000:]
    found = notes(tmp_path / name)
    return torch.tensor([found['train'], found['valid']])


@pytest.mark.parametrize('kind', ['rows', 'loader', 'weights'])
def test_two_processes_have_the_losses_of_one(tmp_path, kind):
    one, two = losses(tmp_path, 1, kind), losses(tmp_path, 2, kind)
    assert torch.allclose(one, two, atol=1e-5)


def test_shards_of_a_sampler_make_up_the_batch(tmp_path):
    found = losses(tmp_path, 2, 'sampler')
    assert found.isfinite().all() and found[1, -1] < found[1, 0]
    weighted = losses(tmp_path, 2, 'sampler with weights')
    assert torch.allclose(found, weighted, atol=1e-5), 'equal weights change nothing'


def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    whole = losses(tmp_path, 1, 'rows', epochs=4)
    name = 'cut.safetensors'
    # the first two epochs of four: the schedule must be that of the whole run
    slow = start(tmp_path, 2, 'slow', name, epochs=4)
    wait_for_epochs(tmp_path / f'{name}.run', 2)
    stop(slow)
    done = len(read_tensors(tmp_path / f'{name}.run')[1]['history']['train'])
    assert done < 4
    code, errors = run(tmp_path, 1, 'slow', name, epochs=4, resume='resume')
    assert code == 0, errors[-2000:]
    found = notes(tmp_path / name)
    got = torch.tensor([found['train'], found['valid']])
    assert torch.allclose(got, whole, atol=1e-5)


def wait_for_epochs(path, n, seconds=60):
    "Until a checkpoint holds `n` epochs."
    end = time.time() + seconds
    while time.time() < end:
        if path.is_file():
            if len(read_tensors(path)[1]['history']['train']) >= n:
                return
        time.sleep(0.05)
    raise TimeoutError(path)


def stop(process):
    process.terminate()
    process.communicate(timeout=60)


def start_by_hand(tmp_path, name, rank):
    "One of two processes that nobody watches over."
    file = tmp_path / 'program.py'
    file.write_text(PROGRAM)
    env = dict(MASTER_ADDR='localhost', MASTER_PORT='29731', WORLD_SIZE='2')
    env |= dict(RANK=str(rank), PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    args = [str(file), 'slow', str(tmp_path / name), '4', '']
    return subprocess.Popen(
        [sys.executable, *args], env=os.environ | env, stderr=subprocess.PIPE, text=True
    )


def test_a_killed_process_ends_the_run_in_words_and_it_resumes(tmp_path):
    name = 'killed.safetensors'
    first, second = (start_by_hand(tmp_path, name, rank) for rank in range(2))
    wait_for_epochs(tmp_path / f'{name}.run', 1)
    second.kill()
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 3
    assert 'ProcessLost: another process of this run has ended' in errors
    code, errors = run(tmp_path, 1, 'slow', name, epochs=4, resume='resume')
    assert code == 0, errors[-2000:]
    assert len(notes(tmp_path / name)['train']) == 4


def test_processes_with_different_data_are_refused(tmp_path):
    code, errors = run(tmp_path, 2, 'other', 'other.safetensors')
    assert code != 0 and 'data: the processes hold different data' in errors


def test_the_shell_shares_a_run(tmp_path):
    x = 5 + 2 * torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    lines = ['a,b', *(f'{a:.5f},{b:.5f}' for a, b in x.tolist())]
    (tmp_path / 'my.csv').write_text('\n'.join(lines))
    job = ['fit', 'my.csv', '--epochs', '2', '--hidden', '16', '--out']
    env = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    launcher = '-m torch.distributed.run --standalone --nproc-per-node 2'.split()
    records = []
    for name, words in [('one', []), ('two', launcher)]:
        command = [sys.executable, *words, '-m', 'flowbook.cli', *job, name]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count('record:') == 1, 'one process speaks'
        records.append(json.loads((tmp_path / name / 'run.json').read_text()))
    one, two = (torch.tensor(r['history']['valid']) for r in records)
    assert torch.allclose(one, two, atol=1e-5)
