"""The claims: how an arm of each is trained and evaluated.

language: language supervision distortion; what tuning the text tower does to styles seen and unseen.
sorting: whether sorting teaches time.
masking: accuracy over mask ratios at equal steps and at equal time.
"""

from collections.abc import Callable

from benchmarks.study.evaluation import evaluate_drift, evaluate_language, evaluate_time, sorting_accuracy
from benchmarks.study.runs import StudyFolder, make_trainer
from benchmarks.study.settings import Arm
from benchmarks.study.step_costs import activation_bytes, read_step_costs


def evaluate_language_arm(study_folder: StudyFolder, seed: int, arm: Arm) -> dict:
    """Styles, linear probe, drift."""
    synthetic, start = study_folder.videos(seed), study_folder.start(study_folder.clip(seed))
    embedder, training = start, {}
    if arm.trains:
        trainer, embedder = make_trainer(study_folder, seed, arm)
        training = {"training": trainer.train(study_folder.study.claims["language"].num_steps)}
    return {"metrics": evaluate_language(embedder, synthetic) | evaluate_drift(embedder, start, synthetic), **training}


def evaluate_sorting_arm(study_folder: StudyFolder, seed: int, arm: Arm) -> dict:
    """Order, direction of motion, plain retrieval, and the sorter itself."""
    synthetic = study_folder.videos(seed)
    if not arm.trains:
        return {"metrics": evaluate_time(study_folder.start(study_folder.clip(seed)), synthetic)}
    trainer, embedder = make_trainer(study_folder, seed, arm)
    training = trainer.train(study_folder.study.claims["sorting"].num_steps)
    metrics = evaluate_time(embedder, synthetic)
    if arm.sorts:
        metrics["sorter"] = sorting_accuracy(embedder, synthetic.test_narrated)
    return {"metrics": metrics, "training": training}


def evaluate_masking_arm(study_folder: StudyFolder, seed: int, arm: Arm) -> dict:
    """Language at equal steps, and after as many steps as take the time that mask 0 takes for these."""
    synthetic, num_steps = study_folder.videos(seed), study_folder.study.claims["masking"].num_steps
    costs = read_step_costs(study_folder)
    own = costs["milliseconds_per_step"][arm.name]
    num_steps_in_time = round(num_steps * costs["milliseconds_per_step"][costs["reference"]] / own)
    moments = {"equal_steps": num_steps, "equal_time": num_steps_in_time}
    trainer, embedder = make_trainer(study_folder, seed, arm)
    metrics = {}
    for moment in sorted(moments, key=moments.get):
        training = trainer.train(moments[moment])
        metrics |= {f"{moment}/{name}": value for name, value in evaluate_language(embedder, synthetic).items()}
    metrics |= {
        "num_steps_at_equal_time": num_steps_in_time,
        "milliseconds_per_step": own,
        "activation_mib": activation_bytes(embedder.model, trainer.sources[0].next_batch()) / 2**20,
    }
    return {"metrics": metrics, "training": training}


# How a run of each claim is run.
EVALUATIONS: dict[str, Callable[[StudyFolder, int, Arm], dict]] = {
    "language": evaluate_language_arm,
    "sorting": evaluate_sorting_arm,
    "masking": evaluate_masking_arm,
}
