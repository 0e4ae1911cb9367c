"""What is shipped, and what it needs.

The wheel works alone, imports fast, and drags in nothing it does not use."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser

import pytest

from support import ROOT, python

CONFIG = ConfigParser(delimiters=['='])
CONFIG.read(ROOT / 'settings.ini', encoding='utf-8')
CONFIG = CONFIG['DEFAULT']
PIP = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '--no-cache-dir']


@pytest.fixture(scope='module')
def dist(tmp_path_factory):
    "Folder with a wheel and an sdist, built from a copy of the working tree."
    source, out = (
        tmp_path_factory.mktemp('source') / 'flowbook',
        tmp_path_factory.mktemp('dist'),
    )
    shutil.copytree(
        ROOT,
        source,
        ignore=shutil.ignore_patterns(
            '.*', 'runs', '_docs', '_proc', 'build', 'dist', '*.egg-info', '__pycache__'
        ),
    )
    if (ROOT / 'flowbook' / 'assets' / 'runs').is_dir():
        shutil.copytree(
            ROOT / 'flowbook' / 'assets' / 'runs',
            source / 'flowbook' / 'assets' / 'runs',
            dirs_exist_ok=True,
        )
    alone = ['--no-isolation'] if importlib.util.find_spec('setuptools') else []
    done = subprocess.run(
        [sys.executable, '-m', 'build', *alone, '--outdir', out, source],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    return out


@pytest.fixture(scope='module')
def installed(dist, tmp_path_factory):
    "An otherwise empty folder with the wheel in it."
    target = tmp_path_factory.mktemp('installed')
    subprocess.run(
        [
            *PIP,
            'install',
            '--quiet',
            '--no-deps',
            '--no-index',
            '--no-compile',
            '--target',
            target,
            next(dist.glob('*.whl')),
        ],
        check=True,
        timeout=120,
    )
    return target


def names(dist):
    return zipfile.ZipFile(next(dist.glob('*.whl'))).namelist()


def test_there_is_one_pure_wheel_and_one_sdist_of_this_version(dist):
    version = CONFIG['version']
    assert {p.name for p in dist.iterdir()} == {
        f'flowbook-{version}-py3-none-any.whl',
        f'flowbook-{version}.tar.gz',
    }


def test_the_wheel_holds_every_module_every_asset_and_the_licence(dist):
    inside = set(names(dist))
    files = {
        p.relative_to(ROOT).as_posix()
        for p in (ROOT / 'flowbook').rglob('*')
        if p.is_file() and '__pycache__' not in p.parts
    }
    assert files <= inside, files - inside
    assert any(n.endswith('images-idx3-ubyte.gz') for n in inside) and any(
        n.endswith('LICENSE') for n in inside
    )


@pytest.mark.skipif(
    not (ROOT / '.git').exists() or not shutil.which('git'), reason='not a git checkout'
)
def test_nothing_that_is_shipped_is_ignored_by_git():
    files = [
        str(p)
        for p in (ROOT / 'flowbook').rglob('*')
        if p.is_file() and '__pycache__' not in p.parts
    ]
    done = subprocess.run(
        ['git', 'check-ignore', *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not done.stdout.splitlines(), '.gitignore keeps these out of the repository'


def test_the_wheel_holds_nothing_else_and_is_small(dist):
    outside = [n for n in names(dist) if not n.startswith(('flowbook/', 'flowbook-'))]
    assert not outside and not [
        n for n in names(dist) if n.endswith(('.ipynb', '.pyc')) or '/tests/' in n
    ]
    assert next(dist.glob('*.whl')).stat().st_size < 20 * 2**20


def test_the_wheel_says_what_it_needs_and_brings_the_command(dist):
    with zipfile.ZipFile(next(dist.glob('*.whl'))) as z:
        info = f'flowbook-{CONFIG["version"]}.dist-info/'
        meta, entry = (
            z.read(info + 'METADATA').decode(),
            z.read(info + 'entry_points.txt').decode(),
        )
    assert 'flowbook = flowbook.cli:main' in entry
    assert (
        'Requires-Python: >=3.10' in meta
        and 'Apache-2.0' in meta
        and 'Summary: Flow' in meta
    )
    needs = {
        re.split(r'[^\w-]', line.split(': ')[1])[0]
        for line in meta.splitlines()
        if line.startswith('Requires-Dist') and 'extra' not in line
    }
    assert (
        needs == {re.split('[<>=!~]', r)[0] for r in CONFIG['requirements'].split()}
        and 'nbdev' not in needs
    )


def test_the_sdist_can_be_built_again(dist):
    with tarfile.open(next(dist.glob('*.tar.gz'))) as t:
        inside = {n.split('/', 1)[1] for n in t.getnames() if '/' in n}
    assert {
        'settings.ini',
        'setup.py',
        'README.md',
        'LICENSE',
        'flowbook/core.py',
    } <= inside
    assert any(n.startswith('flowbook/assets/mnist10k/') for n in inside)


def test_requirements_of_users_are_lower_bounds_only():
    for r in CONFIG['requirements'].split():
        assert re.fullmatch(r'[\w-]+>=[\d.]+', r), r
    assert float(CONFIG['min_python'].split('.')[1]) >= 10


def test_setup_py_runs_and_reports_the_version():
    done = subprocess.run(
        [sys.executable, 'setup.py', '--version'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stdout.split()[-1] == CONFIG['version'], (
        done.stderr[-2000:]
    )


USE = '''
import sys
BLOCKED = (
    'nbdev', 'IPython', 'ipykernel', 'ipywidgets', 'execnb', 'nbclient', 'nbformat',
    'nbconvert', 'ghapi', 'pytest', 'notebook',
)
class Block:
    def find_spec(self, name, *_):
        root = name.split('.')[0]
        if root in BLOCKED or root.startswith('jupyter'):
            said = f'No module named {name!r} (blocked by this test)'
            raise ModuleNotFoundError(said, name=root)
sys.meta_path.insert(0, Block())
import importlib, os, pathlib, tempfile, torch
torch.set_num_threads(1)
import flowbook
home = pathlib.Path(flowbook.__file__).parent
assert home.parent == pathlib.Path(sys.argv[1]), home
for p in sorted(home.rglob('*.py')):
    if p.stem not in ('__init__', '__main__', '_modidx'):
        parts = p.relative_to(home.parent).with_suffix('').parts
        importlib.import_module('.'.join(parts))
from flowbook.data import mnist10k
from flowbook.files import load, save
from flowbook.realnvp import realnvp
from flowbook.train import fit
x = torch.randn(100, 2)
flow = realnvp(2, layers=2, hidden=(8,))
fit(flow, x, epochs=2)
with tempfile.TemporaryDirectory() as d:
    save(flow, d + '/flow.safetensors')
    again = load(d + '/flow.safetensors')
assert torch.equal(again.log_prob(x), flow.log_prob(x)) and again.sample((5,)).shape == (5, 2)
assert mnist10k('test')[0].shape == (1000, 1, 28, 28)
assert not [m for m in sys.modules if m.split('.')[0] in BLOCKED]
print('works', sys.modules['fastcore'].__version__, sys.modules['fastcore'].__file__)
'''


def test_the_installed_wheel_works_without_the_tools_that_built_it(installed, tmp_path):
    assert python(USE, installed, cwd=tmp_path, PYTHONPATH=str(installed)).startswith(
        'works'
    )


def test_it_works_with_the_newest_fastcore(installed, tmp_path):
    target = tmp_path / 'newest'
    got = subprocess.run(
        [
            *PIP,
            'install',
            '--quiet',
            '--no-compile',
            '--retries',
            '1',
            '--timeout',
            '20',
            '--target',
            target,
            'fastcore>=2',
        ],
        capture_output=True,
        text=True,
        timeout=180,
    )
    if got.returncode:
        pytest.skip(
            'fastcore>=2 could not be had from the package registry: '
            f'{got.stderr.strip().splitlines()[-1:]}'
        )
    out = python(
        USE,
        installed,
        cwd=tmp_path,
        PYTHONPATH=os.pathsep.join([str(installed), str(target)]),
    ).split()
    assert int(out[1].split('.')[0]) >= 2 and out[2].startswith(str(target)), out


LIGHT = 'core train coupling realnvp pixels data'.split()
TIMED = f'''
import sys, time, torch
before, start = set(sys.modules), time.perf_counter()
import flowbook, {', '.join('flowbook.' + m for m in LIGHT)}
print(time.perf_counter() - start)
import importlib
for p in sys.argv[1:]: importlib.import_module('flowbook.' + p)
print(*sorted({{m.split('.')[0] for m in set(sys.modules) - before}}))
'''


def test_importing_is_as_fast_as_importing_torch_and_pulls_in_nothing_heavy():
    modules = [
        '.'.join(p.relative_to(ROOT / 'flowbook').with_suffix('').parts)
        for p in (ROOT / 'flowbook').rglob('*.py')
        if p.stem[0] != '_'
    ]
    runs = [python(TIMED, *modules).splitlines() for _ in range(3)]
    best = min(float(r[0]) for r in runs)
    assert best < 0.1, f'{1e3 * best:.0f} ms more than `import torch`'
    assert not set(runs[0][1].split()) & {
        'torchvision',
        'matplotlib',
        'ipywidgets',
        'IPython',
        'nbdev',
        'pandas',
        'scipy',
        'PIL',
    }


def test_the_code_of_the_readme_runs(tmp_path):
    blocks = re.findall(
        r'^```python\n(.*?)^```',
        (ROOT / 'README.md').read_text(encoding='utf-8'),
        re.S | re.M,
    )
    assert blocks, 'README.md shows no Python'
    python(
        'import torch\ntorch.set_num_threads(1)\n' + '\n'.join(blocks),
        cwd=tmp_path,
        MPLBACKEND='agg',
    )


def test_ci_runs_the_test_command_of_the_readme():
    ci = (ROOT / '.ci' / 'run').read_text().strip().split('\n')[-1]
    assert ci.endswith('-m pytest -n 2') and ci in (ROOT / 'README.md').read_text()
