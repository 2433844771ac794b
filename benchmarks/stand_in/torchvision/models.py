"""Models, which no benchmark needs; torchmetrics imports their names."""

resnet50 = vgg16 = VGG16_Weights = None
