"""What the page says: of each chart a heading, a caption, and words for those who cannot see it; of the rest a line."""

from collections.abc import Mapping

from lratlas.measure.base import Text
from lratlas.measure.builtin import MEASUREMENTS

TEXTS: Mapping[str, Text] = {
    "accuracy": Text(
        heading="Test accuracy against the pre-training LR",
        caption="Mean over seeds, with one standard deviation either way: after pre-training at a constant "
        "LR (PLR), after fine-tuning with each smaller LR (FLR), and for the mean of the weights of "
        "k checkpoints (SWA-k). Background: the regime of each PLR.",
        alt="Line chart of the mean test accuracy over seeds against the pre-training learning rate, "
        "with a band of one standard deviation; one line for pre-training, one for each fine-tuning "
        "learning rate, one for each number of averaged checkpoints. Regimes are shaded.",
    ),
    "last_tenth": Text(
        heading="Test accuracy over the last tenth of pre-training",
        caption="Mean over the trace rows of the last tenth of the steps, with one standard deviation of these rows "
        "either way; over seeds, the mean and the root of the mean variance. It shows how much the accuracy swings at "
        "a constant LR. Runs that diverged are left out. Background: the regime of each PLR.",
        alt="Line chart of the test accuracy during the last tenth of pre-training against the pre-training learning "
        "rate: its mean, with a band of one standard deviation over time. Regimes are shaded.",
    ),
    "loss": Text(
        heading="Test loss against the pre-training LR",
        caption="The task has no accuracy. Mean over seeds, with one standard deviation either way: after pre-training "
        "at a constant LR (PLR), after fine-tuning with each smaller LR (FLR), and for the mean of the weights of "
        "k checkpoints (SWA-k); lower is better. Runs that diverged are left out. Losses above a hundred times the "
        "loss before training are drawn at that height. Background: the regime of each PLR.",
        alt="Line chart of the mean test loss over seeds against the pre-training learning rate, with a band of one "
        "standard deviation; one line for pre-training, one for each fine-tuning learning rate, one for each number of "
        "averaged checkpoints. Regimes are shaded.",
    ),
    "accuracy_at_loss": Text(
        heading="Test accuracy at equal training loss",
        caption="The test accuracy when a run first reaches the training loss named on the axis, mean over "
        "seeds with one standard deviation either way. Runs that never reach it are left out.",
        alt="Line chart of the mean test accuracy at one training loss against the pre-training "
        "learning rate, with a band of one standard deviation. Regimes are shaded.",
    ),
    "traces": Text(
        heading="Training loss and gradient norm on the way",
        caption="Pre-training, mean over seeds, one line for each PLR. In regime 1 both fall towards zero; "
        "in regime 2 they settle on a plateau; in regime 3 the loss stays at chance level or above. Losses above a "
        "hundred times the test loss before training are drawn at that height, and their gradient norms left out.",
        alt="Two line charts against the training step: training loss and gradient norm during pre- "
        "training on log axes, one line for each learning rate, mean over seeds, coloured from blue "
        "for the smallest learning rate to pink for the largest.",
    ),
    "convergence": Text(
        heading="Epochs to convergence near the threshold",
        caption="The first epoch in which every training sample was classified correctly: a dot per seed, and the "
        "median over seeds, those that never got there counting as infinite; a triangle marks PLRs with such seeds. "
        "Where the medians fix one, a power law of the distance to the convergence threshold is dashed, its threshold "
        "is the upright line, and the rise is shown once more by itself. Last, the test accuracy at the end of that "
        "epoch, mean over the seeds that got there, with one standard deviation either way.",
        alt="Charts against the pre-training learning rate: the epochs to convergence on a log axis, a dot for each "
        "seed, a line for the median and, where there is one, the fitted power law with its threshold; and the mean "
        "test accuracy at convergence with a band of one standard deviation. Regimes are shaded.",
    ),
    "two_stages": Text(
        heading="Two stages against one",
        caption="Test accuracy after fine-tuning with each FLR, straight from the higher PLR, straight from the lower "
        "PLR, and from the higher PLR by way of the lower one: mean over seeds in per cent, with one standard "
        "deviation either way. Where the third bar is as high as the second, nothing is left of the higher PLR.",
        alt="Bar charts of the mean test accuracy after fine-tuning, a panel for each pair of pre-training learning "
        "rates, a group of three bars for each fine-tuning learning rate: from the higher one, from the lower one, and "
        "from the higher one by way of the lower one.",
    ),
    "band_picture": Text(
        heading="An image and its Fourier bands",
        caption="The first image of the test set, then the part of it that each band of frequencies holds. Band 0 is "
        "shown on the scale of the image; the others are stretched around mid-grey so that faint ones show too. "
        "The parts sum to the image. Below each, the logarithm of its spectrum, the zero frequency in the middle: "
        "white is the largest magnitude of the image, black a ten-thousandth of it or less, or outside the band.",
        alt="A row of pictures: an image, then the part of it that each band of frequencies holds, from the mean "
        "colour to the finest detail. A second row: the spectrum of each, of which the band leaves a ring.",
    ),
    "ticks": Text(
        heading="One feature of the data",
        caption="The two coordinates of one feature, a mark per sample of the training set. The feature alone "
        "separates the classes at the grey curves, about which a margin is empty (shaded). Where a feature is "
        "uninformative, the point is on a curve, whatever the class: 60 samples of a test set in which only another "
        "feature is informative.",
        alt="Scatter plot of one two-dimensional feature, a mark per sample, coloured by class. Grey curves with an "
        "empty margin separate the classes; marks of both classes on the curves are uninformative.",
    ),
    **{figure.name: figure.text for measurement in MEASUREMENTS for figure in measurement.needs.figures},
}

REGIMES: Mapping[str, str] = {
    "1": "convergence: the training loss goes down to nearly zero",
    "2A": "chaotic equilibrium, lower part: the loss stays on a noisy plateau; whatever is fine-tuned or averaged from "
    "there ends in one basin",
    "2B": "chaotic equilibrium, upper part: what is fine-tuned from there ends in different basins",
    "2": "chaotic equilibrium: the loss stays on a noisy plateau",
    "3": "divergence: predictions are no better than chance",
    "undecided": "not decided; the table of regimes gives the reason for each PLR",
}

VERDICTS: Mapping[str, str] = {
    "supported": "the runs say the same, and the 95 % interval over seeds leaves no room for the opposite",
    "contradicted": "the runs say the opposite, as clearly",
    "inconclusive": "the seeds or the grid are not enough to tell; the sentence says what would be",
}

TABLES: Mapping[str, str] = {
    "runs": "every run: stage, learning rates, seed, losses and accuracies at its end",
    "traces": "losses, accuracies and norms on the way, run by run",
    "regimes": "the regime of each PLR and what it was decided on",
    "boundaries": "where the regimes meet",
    "sparsity": "how unevenly features were learned",
    "convergence": "epochs to convergence, seed by seed",
    "power_law": "the law by which they grow near the threshold",
    "claims": "the verdicts on the paper's claims",
    **{measurement.table: measurement.needs.words for measurement in MEASUREMENTS},
}
