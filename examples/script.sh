#!/bin/sh
# The initial LR of a training script as it is, and the regime of its training.
#
# In this folder:  sh script.sh
set -eu

folder=script-search
epochs=20

# The average of the weights is validated too, since the expression is evaluated in the script's own loop.
lratlas find --script ordinary_training.py --value "accuracy(model, *held_out)" --direction maximize \
  --limit 1 --chance 0.1 --samples 540 --folder $folder -- --lr={lr} --epochs=$epochs --seed={seed}

lr=$(python -c "import json; print(json.load(open('$folder/advice.json'))['lr'])") # advice.json is for scripts
[ "$lr" != None ] || exit 0 # no LR could be told from the others
echo "A full training as it is advised:"
lratlas watch ordinary_training.py -- --lr="$lr" --epochs=$epochs | tail -n 2
