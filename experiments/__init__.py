"""Analysis of trained weights: diagnostic stimuli, representational similarity, accuracy over time, reports.

    python -m experiments.stimuli  --weights best.weights --dataset voc --path VOC
    python -m experiments.rsa      --weights best.weights --dataset voc --path VOC
    python -m experiments.accuracy --weights best.weights
    python -m experiments.report   runs/analysis

Every command reads a weights file with the .json beside it, as run_train.py and run_search.py write them.
"""
