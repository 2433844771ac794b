"""What the page says: of each chart a heading, a caption, and words for those who cannot see it; of the rest a line."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Text:
    """The words that go with one chart."""

    heading: str
    caption: str
    alt: str


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
    "geometry": Text(
        heading="How far apart the solutions of one PLR lie",
        caption="Between the solutions fine-tuned with the lowest and the highest FLR and the averaged one: "
        "the angle between their weights and the error barriers on the straight line that joins "
        "them; medians over seeds. Barriers near zero mean that all three lie in one basin. Dashed, where "
        "measured: barriers along the great circle.",
        alt="Three line charts against the pre-training learning rate: the angle, the train error "
        "barrier and the test error barrier between the solutions fine-tuned with the lowest and "
        "the highest learning rate and the averaged one; medians over seeds. Regimes are shaded.",
    ),
    "features": Text(
        heading="Which features were learned",
        caption="Accuracy on test sets in which a single feature is informative. The features of each run "
        "are sorted from best to worst, then averaged over seeds rank by rank: one line far above "
        "the others means that a run relies on few features. Dashed: the test accuracy, with all features.",
        alt="Line charts of the single-feature accuracies against the pre-training learning rate, one "
        "line for each rank from the best feature of a run to the worst, mean over seeds, and a dashed line for the "
        "test accuracy; a panel each for pre-trained, fine-tuned and averaged models. Regimes are shaded.",
    ),
    "features_full": Text(
        heading="Which features were learned, for every FLR and every average",
        caption="As the chart before, for all models: pre-trained, fine-tuned with each FLR, averaged over each number "
        "of checkpoints (SWA-k); means over seeds.",
        alt="Small line charts of the single-feature accuracies against the pre-training learning rate, sorted within "
        "each run, mean over seeds, with a dashed line for the test accuracy: a panel for pre-trained models, one for "
        "each fine-tuning learning rate, one for each number of averaged checkpoints. Regimes are shaded.",
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
    "bands": Text(
        heading="Which Fourier bands were learned",
        caption="Test accuracy on images of which only one band of frequencies is left, and, where measured, on "
        "images without that band; means over seeds. A band reaches from its lowest to its highest L1 distance "
        "from the zero frequency: band 0 is the mean colour, the highest bands are the finest detail.",
        alt="Line charts of the test accuracy on filtered images against the pre-training learning rate, one line "
        "for each band of frequencies, mean over seeds; a panel each for pre-trained, fine-tuned and averaged "
        "models, and a second row for images without the band. Regimes are shaded.",
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
    "norms": Text(
        heading="How widely the norms of the filters are spread",
        caption="The norm of the weights of each output filter over the norm of all trained weights, as the share of "
        "filters in each step of the axis: before training, after pre-training, and after fine-tuning with the lowest "
        "FLR. All PLRs and seeds of a regime are taken together; filters of norm zero have no place on the axis.",
        alt="Histograms of the logarithm of the filters' norms, a panel for each regime, with an outline each for the "
        "models before training, after pre-training and after fine-tuning.",
    ),
    "sharpness": Text(
        heading="Sharpness and test error at equal training loss",
        caption="A mark for each model, mean over seeds, whose training loss is within a factor of 1.5 of the one "
        "named: the one that most PLRs have a model at, unless chosen. Test error against the top eigenvalue and the "
        "trace of the Hessian and the mean norm of mini-batch gradients. Hollow: the eigenvalue did not converge. "
        "Pre-trained models of regime 3 have found no minimum and are left out.",
        alt="Three scatter plots of the test error of models of about equal training loss: against the top eigenvalue "
        "of the Hessian, its trace, and the gradient norm, a mark for each model, coloured by pre-training learning "
        "rate.",
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
    "pairs": "angles and error barriers between the solutions of a PLR, seed by seed",
    "sparsity": "how unevenly features were learned",
    "features": "accuracy with a single feature informative, feature by feature",
    "bands": "accuracy on Fourier bands of the test images",
    "sharpness": "curvature of the training loss at the end of each run",
    "norms": "norms of the weights of each output filter",
    "convergence": "epochs to convergence, seed by seed",
    "power_law": "the law by which they grow near the threshold",
    "claims": "the verdicts on the paper's claims",
}
