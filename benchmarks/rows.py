"What the benchmarks of densities share: rows of a record, one by one."

import json
from collections.abc import Callable, Iterable
from pathlib import Path


def collect(
    path: Path,  # The record; its rows are kept, so that a run can be cut off
    keys: tuple,  # Names of the entries that tell one row from another
    jobs: Iterable,  # Their values, a tuple for each row that is wanted
    measure: Callable,  # From such values to a row
    describe: Callable,  # From all rows to the record
) -> None:
    "Measure the rows that a record lacks, and write it after each."
    rows = json.loads(path.read_text())['rows'] if path.exists() else []
    done = {tuple(row[key] for key in keys) for row in rows}
    for job in jobs:
        if job in done:
            continue
        rows.append(measure(*job))
        print(json.dumps(rows[-1]), flush=True)
        path.write_text(json.dumps(describe(rows), indent=1) + '\n')
