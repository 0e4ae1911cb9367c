"The tools of the house do what they say."

import json
import os
import subprocess
import sys

from support import ROOT


def test_the_gpu_run_is_one_command_that_leaves_a_record(tmp_path):
    out = tmp_path / 'record.json'
    done = subprocess.run(
        [ROOT / 'tools' / 'on_gpu.sh', '--dry', out],
        env=os.environ | {'PYTHON': sys.executable},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(out.read_text())
    assert record['passed'] and record['dry'] and record['device']['torch']
    tests, page = record['steps']
    assert tests['step'] == 'CUDA tests' and sum(tests['counts'].values()) >= 10
    assert (
        page['step'].startswith('page ')
        and page['passed']
        and 'cells executed' in page['said'][0]
    )


def test_a_gpu_run_that_was_cut_off_goes_on(tmp_path):
    out = tmp_path / 'record.json'
    command = [sys.executable, ROOT / 'tools' / 'on_gpu.py', out, '--dry']
    for _ in range(2):
        done = subprocess.run(
            [*command, '--train', 'dry'], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (step,) = json.loads(out.read_text())['steps']
    assert step['step'] == 'run dry' and step['passed']
    run = json.loads((tmp_path / 'dry-gpu' / 'run.json').read_text())
    assert run['job']['epochs'] == 1 and run['model'] == 'nsf'
