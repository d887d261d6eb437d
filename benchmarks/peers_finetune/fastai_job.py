"""The job in fastai: ``vision_learner`` and ``fine_tune``, as its documentation shows them."""

import sys

from fastai.vision.all import (
    ClassificationInterpretation,
    ImageDataLoaders,
    Path,
    Resize,
    SaveModelCallback,
    accuracy,
    aug_transforms,
    get_image_files,
    set_seed,
    vision_learner,
)

folder, model, weights, size, batch, epochs, seed, workers, photo = sys.argv[1:]  # benchmark

if __name__ == "__main__":
    set_seed(int(seed))
    dls = ImageDataLoaders.from_folder(
        folder,
        item_tfms=Resize(2 * int(size)),
        batch_tfms=aug_transforms(size=int(size)),
        bs=int(batch),
        num_workers=int(workers),
    )
    learn = vision_learner(dls, model, metrics=accuracy, path=Path(), pretrained_cfg_overlay={"file": weights})
    learn.fine_tune(int(epochs), cbs=SaveModelCallback(monitor="accuracy"))
    test = dls.test_dl(get_image_files(Path(folder, "test")), with_labels=True)
    print("accuracy", learn.validate(dl=test)[1])
    ClassificationInterpretation.from_learner(learn, dl=test).print_classification_report()
    learn.export("model.pkl")
    print(learn.predict(photo))
