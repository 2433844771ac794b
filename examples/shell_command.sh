#!/bin/sh
# The initial LR of a program that trains, by the command line alone.
#
# In this folder:  sh shell_command.sh
set -eu

steps=1000 # of a full training
folder=shell-command-search

# A second time, this says at once what it found.
lratlas find --steps $steps --lrs 1e-4 1 3 --folder $folder --command "python command_training.py
  --lr {lr} --final-lr {final_lr} --start {start} --stop {stop}
  --average-from {average_from} --seed {seed} --state {checkpoint}.npz"

# advice.json is for scripts.
advised() { python -c "import json; print(json.load(open('$folder/advice.json'))['$1'])"; }
train() { python command_training.py --lr "$(advised lr)" --seed 0 --state $folder/whole.npz "$@"; }

[ "$(advised lr)" != None ] || exit 0 # no LR could be told from the others
echo "A full training as it is advised:"
if [ "$(advised finish)" = anneal ]; then
  train --final-lr "$(advised lr)" --start 0 --stop $((steps * 4 / 5)) --average-from 0 | tail -n 1
  train --final-lr 0 --start $((steps * 4 / 5)) --stop $steps --average-from $((steps * 9 / 10)) | tail -n 1
else
  train --final-lr "$(advised lr)" --start 0 --stop $steps --average-from $((steps * 9 / 10)) | tail -n 1
fi
