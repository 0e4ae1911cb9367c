"One thread and no progress bars for every test of this folder."

import os

os.environ['IN_TEST'] = '1'  # also for the subprocesses that tests start

import torch

torch.set_num_threads(1)
