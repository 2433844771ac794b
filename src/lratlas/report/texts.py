"""What the page says about each chart: heading, caption, and the words for those who cannot see it."""

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
        "them; medians over seeds. Barriers near zero mean that all three lie in one basin.",
        alt="Three line charts against the pre-training learning rate: the angle, the train error "
        "barrier and the test error barrier between the solutions fine-tuned with the lowest and "
        "the highest learning rate and the averaged one; medians over seeds. Regimes are shaded.",
    ),
    "features": Text(
        heading="Which features were learned",
        caption="Accuracy on test sets in which a single feature is informative. The features of each run "
        "are sorted from best to worst, then averaged over seeds rank by rank: one line far above "
        "the others means that a run relies on few features.",
        alt="Line charts of the single-feature accuracies against the pre-training learning rate, one "
        "line for each rank from the best feature of a run to the worst, mean over seeds; a panel "
        "each for pre-trained, fine-tuned and averaged models. Regimes are shaded.",
    ),
    "traces": Text(
        heading="Training loss and gradient norm on the way",
        caption="Pre-training, mean over seeds, one line for each PLR. In regime 1 both fall towards zero; "
        "in regime 2 they settle on a plateau; in regime 3 the loss stays at chance level or above.",
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
    "band_picture": Text(
        heading="An image and its Fourier bands",
        caption="The first image of the test set, then the part of it that each band of frequencies holds. Band 0 is "
        "shown on the scale of the image; the others are stretched around mid-grey so that faint ones show too. "
        "The parts sum to the image.",
        alt="A row of pictures: an image, then the part of it that each band of frequencies holds, from the mean "
        "colour to the finest detail.",
    ),
    "ticks": Text(
        heading="One feature of the data",
        caption="The two coordinates of one feature for a sample of the training set; each feature alone "
        "tells the classes apart.",
        alt="Scatter plot of one two-dimensional feature, one dot per sample, coloured by class.",
    ),
}
