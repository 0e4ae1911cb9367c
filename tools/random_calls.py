"""Call layers and flows at random: python tools/random_calls.py N [RECORD.json].

Each call must give a right answer, or a ValueError or TypeError that names an argument;
`tests/generator.py` says what is called. The record counts the ends of all calls."""

import json
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]


def main(n, record=None, seed=0):
    "Make `n` calls and write down how they end; the number of bad ends."
    from generator import run

    from flowbook.records import hardware

    torch.set_num_threads(1)
    start = time.process_time()
    found = run(n, seed)
    found |= dict(seconds=round(time.process_time() - start), hardware=hardware())
    text = json.dumps(found, indent=1, ensure_ascii=False) + '\n'
    if record:
        Path(record).write_text(text, encoding='utf-8')
    print(text)
    return sum(bad['count'] for bad in found['bad'].values())


if __name__ == '__main__':
    sys.exit(bool(main(int(sys.argv[1]), *sys.argv[2:3])))
