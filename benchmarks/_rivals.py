"""What one would use instead of motet, each as a plain script would: gradient boosting, one model per target.

Every rival gets the same matrix, learning rate 0.1, at most 2,000 rounds, early stopping on the validation rows, and
an equal share of the time limit for each model; a rival that the limit stopped says so in its notes.
"""

import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from _encoding import Encoded, Fitted, Predictions
from _network import mlp

ROUNDS, PATIENCE, RATE, LEAVES = 2000, 50, 0.1, 63


@dataclass
class Clock:
    """The time that one model has; it remembers whether it had to stop one."""

    seconds: float
    stopped: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def is_over(self, name: str) -> bool:
        """Whether the model called `name` must stop now."""
        over = time.monotonic() - self.begun > self.seconds
        if over and name not in self.stopped:
            self.stopped.append(name)
        return over

    def restart(self) -> None:
        """Begins the time of the next model."""
        self.begun = time.monotonic()

    @property
    def notes(self) -> list[str]:
        """One note if any model was stopped."""
        return [f"stopped by the time limit: {', '.join(self.stopped)}"] if self.stopped else []


def lightgbm(data: Encoded, seed: int, threads: int, limit: float) -> Fitted:
    """One LightGBM per target; a row trains every target whose label it has."""
    import lightgbm as lgb

    clock, boosters = Clock(limit / len(data.dataset.targets)), {}
    for target, kind in data.dataset.targets:
        settings = _lightgbm_settings(kind, len(data.classes.get(target, ())), seed, threads)
        parts = [data.rows(split, target) for split in ("train", "validation")]
        boosters[target] = _lightgbm_one(settings, parts, data.category_places, clock, target)
    texts = {target: booster.model_to_string(booster.best_iteration) for target, booster in boosters.items()}
    kept = {target: lgb.Booster(model_str=text) for target, text in texts.items()}

    def predict(matrix: np.ndarray, threads: int) -> Predictions:
        return {target: booster.predict(matrix, num_threads=threads) for target, booster in kept.items()}

    rounds = ", ".join(f"{target} {booster.best_iteration}" for target, booster in boosters.items())
    return Fitted(predict, "".join(texts.values()).encode(), [f"rounds: {rounds}", *clock.notes])


def lightgbm_per_task(data: Encoded, seed: int, threads: int, limit: float) -> Fitted:
    """Where each row belongs to one task: a LightGBM for the rows of each, and the pooled one where none can be."""
    ((target, kind),) = data.dataset.targets
    pooled, place = lightgbm(data, seed, threads, limit / 2), data.column(data.dataset.task_column)
    parts = [data.rows(split, target) for split in ("train", "validation")]
    settings = _lightgbm_settings(kind, len(data.classes.get(target, ())), seed, threads)
    tasks, boosters = np.unique(parts[0][0][:, place]), {}
    clock = Clock(limit / 2 / len(tasks))
    for task in tasks:
        own = [(matrix[matrix[:, place] == task], labels[matrix[:, place] == task]) for matrix, labels in parts]
        if len(own[1][1]) and len(np.unique(own[0][1])) > 1:
            boosters[task] = _lightgbm_one(settings, own, data.category_places, clock, str(task))

    def predict(matrix: np.ndarray, threads: int) -> Predictions:
        found = pooled.predict(matrix, threads)[target]
        for task in set(np.unique(matrix[:, place])) & set(boosters):
            rows = matrix[:, place] == task
            found[rows] = boosters[task].predict(matrix[rows], num_threads=threads)
        return {target: found}

    artefact = pooled.artefact + b"".join(booster.model_to_string().encode() for booster in boosters.values())
    return Fitted(predict, artefact, [f"{len(boosters)} tasks have trees of their own", *clock.notes])


def _lightgbm_settings(kind: str, num_classes: int, seed: int, threads: int) -> dict[str, object]:
    objectives = {"regression": "regression", "binary": "binary", "multiclass": "multiclass", "count": "poisson"}
    settings = {"objective": objectives[kind], "num_leaves": LEAVES, "learning_rate": RATE, "seed": seed}
    settings |= {"num_threads": threads, "verbosity": -1, "deterministic": True, "force_row_wise": True}
    return settings | ({"num_class": num_classes} if kind == "multiclass" else {})


def _lightgbm_one(settings: dict[str, object], parts: list, categories: list[int], clock: Clock, name: str) -> object:
    """One booster of train and validation rows, which ends when the clock says so."""
    import lightgbm as lgb

    train = lgb.Dataset(*parts[0], categorical_feature=categories)
    validation = lgb.Dataset(*parts[1], reference=train)
    clock.restart()

    def watch(env: lgb.callback.CallbackEnv) -> None:
        if clock.is_over(name):
            raise lgb.callback.EarlyStopException(env.iteration, env.evaluation_result_list)

    stops = [lgb.early_stopping(PATIENCE, verbose=False), watch]
    return lgb.train(settings, train, ROUNDS, valid_sets=[validation], callbacks=stops)


def xgboost(data: Encoded, seed: int, threads: int, limit: float) -> Fitted:
    """One vector-leaf XGBoost for all numbers and one for all yes/no labels; one booster for any other target.

    A vector-leaf model must drop a row that lacks any label of its group, and reads categories as numbers.
    """
    import xgboost as xgb

    kinds: dict[str, list[str]] = {}
    for target, kind in data.dataset.targets:
        # Poisson and softmax objectives take one target at a time.
        key = kind if kind in ("regression", "binary") else target
        kinds.setdefault(key, []).append(target)
    clock, parts, notes = Clock(limit / len(kinds)), [], []
    by_name = dict(data.dataset.targets)
    for targets in kinds.values():
        kind = by_name[targets[0]]
        train, validation = (_stacked(data, split, targets) for split in ("train", "validation"))
        dropped = data.dataset.part("train").height - len(train[1])
        if dropped:
            notes.append(f"dropped {dropped} training rows that lack a label of {', '.join(targets)}")
        centre, scale = train[1].mean(0), train[1].std(0)
        if kind != "regression":
            centre, scale = np.zeros(len(targets)), np.ones(len(targets))
        scale = np.where(scale > 0, scale, 1)
        # Vector leaves take no categories yet (XGBoost 3.2): their codes go in as numbers.
        word = "c" if len(targets) == 1 else "q"
        types = ["q"] * len(data.numbers) + [word] * len(data.levels)
        matrices = [
            xgb.DMatrix(
                matrix, (labels - centre) / scale, feature_types=types, enable_categorical=True, nthread=threads
            )
            for matrix, labels in (train, validation)
        ]
        clock.restart()
        booster = xgb.train(
            _xgboost_settings(kind, data, targets, seed, threads),
            matrices[0],
            ROUNDS,
            evals=[(matrices[1], "validation")],
            callbacks=[
                xgb.callback.EarlyStopping(rounds=PATIENCE, save_best=True),
                _xgboost_watch(clock, ", ".join(targets)),
            ],
            verbose_eval=False,
        )
        booster.set_param({"nthread": threads})
        notes.append(f"rounds: {', '.join(targets)} {booster.num_boosted_rounds()}")
        parts.append((targets, kind, booster, centre, scale))

    given = [threads]  # setting it at every call costs more than a row

    def predict(matrix: np.ndarray, threads: int) -> Predictions:
        found = {}
        for targets, kind, booster, centre, scale in parts:
            if threads != given[0]:
                booster.set_param({"nthread": threads})
            out = booster.inplace_predict(matrix, validate_features=False)
            if kind == "multiclass":
                found[targets[0]] = out
            else:
                out = out.reshape(len(matrix), len(targets)) * scale + centre
                found |= {target: out[:, place] for place, target in enumerate(targets)}
        given[0] = threads
        return found

    return Fitted(predict, b"".join(bytes(part[2].save_raw("ubj")) for part in parts), [*notes, *clock.notes])


def _xgboost_settings(kind: str, data: Encoded, targets: list[str], seed: int, threads: int) -> dict[str, object]:
    objectives = {"regression": "reg:squarederror", "binary": "binary:logistic"}
    objectives |= {"multiclass": "multi:softprob", "count": "count:poisson"}
    settings = {"objective": objectives[kind], "learning_rate": RATE, "tree_method": "hist", "seed": seed}
    settings |= {"nthread": threads, "max_depth": 8, "verbosity": 1}
    if len(targets) > 1:
        settings["multi_strategy"] = "multi_output_tree"
    if kind == "multiclass":
        settings["num_class"] = len(data.classes[targets[0]])
    return settings


def _xgboost_watch(clock: Clock, name: str) -> object:
    import xgboost as xgb

    class Watch(xgb.callback.TrainingCallback):
        def after_iteration(self, model: object, epoch: int, evals_log: object) -> bool:  # noqa: ARG002
            return clock.is_over(name)

    return Watch()


def _stacked(data: Encoded, split: str, targets: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and labels (N, L) of the rows that have every one of the labels."""
    frame = data.dataset.part(split).drop_nulls(targets)
    labels = np.stack([data.labels(frame, target) for target in targets], axis=1)
    known = ~np.isnan(labels).any(axis=1)
    return data.matrix(frame)[known], labels[known]


def catboost(data: Encoded, seed: int, threads: int, limit: float) -> Fitted:
    """One CatBoost per target."""
    import catboost as cb

    losses = {"regression": "RMSE", "binary": "Logloss", "multiclass": "MultiClass", "count": "Poisson"}
    clock, models, count = Clock(limit / len(data.dataset.targets)), {}, len(data.numbers)

    def pool(matrix: np.ndarray, labels: np.ndarray | None = None) -> cb.Pool:
        words = np.nan_to_num(matrix[:, count:], nan=-1).astype(np.int64).astype("S").astype(object)
        numbers = np.ascontiguousarray(matrix[:, :count]) if count else None
        return cb.Pool(cb.FeaturesData(numbers, words if data.levels else None), labels)

    class Watch:
        def __init__(self, name: str) -> None:
            self.name = name

        def after_iteration(self, info: object) -> bool:  # noqa: ARG002
            return not clock.is_over(self.name)

    for target, kind in data.dataset.targets:
        settings = {"loss_function": losses[kind], "iterations": ROUNDS, "learning_rate": RATE, "depth": 6}
        settings |= {"random_seed": seed, "thread_count": threads, "verbose": False, "allow_writing_files": False}
        model, train = cb.CatBoost(settings), pool(*data.rows("train", target))
        validation = pool(*data.rows("validation", target))
        clock.restart()
        model.fit(train, eval_set=validation, early_stopping_rounds=PATIENCE, callbacks=[Watch(target)])
        models[target] = model
    forms = {"regression": "RawFormulaVal", "binary": "Probability", "multiclass": "Probability", "count": "Exponent"}

    def predict(matrix: np.ndarray, threads: int) -> Predictions:
        rows, found = pool(matrix), {}
        for target, kind in data.dataset.targets:
            out = models[target].predict(rows, prediction_type=forms[kind], thread_count=threads)
            found[target] = out[:, 1] if kind == "binary" else out
        return found

    rounds = ", ".join(f"{target} {model.tree_count_}" for target, model in models.items())
    artefact = b"".join(model._serialize_model() for model in models.values())
    return Fitted(predict, artefact, [f"rounds: {rounds}", *clock.notes])


def sklearn(data: Encoded, seed: int, threads: int, limit: float) -> Fitted:  # noqa: ARG001
    """One histogram gradient boosting of scikit-learn per target; it takes no time limit and no number of threads."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    models = {}
    for target, kind in data.dataset.targets:
        maker = HistGradientBoostingClassifier if kind in ("binary", "multiclass") else HistGradientBoostingRegressor
        loss = {"regression": "squared_error", "count": "poisson"}.get(kind, "log_loss")
        model = maker(
            loss=loss,
            learning_rate=RATE,
            max_iter=ROUNDS,
            max_leaf_nodes=LEAVES,
            early_stopping=True,
            n_iter_no_change=PATIENCE,
            categorical_features=data.category_places or None,
            random_state=seed,
        )
        matrix, labels = data.rows("validation", target)
        models[target] = model.fit(*data.rows("train", target), X_val=matrix, y_val=labels)

    def predict(matrix: np.ndarray, threads: int) -> Predictions:  # noqa: ARG001
        found = {}
        for target, kind in data.dataset.targets:
            classifies = kind in ("binary", "multiclass")
            out = models[target].predict_proba(matrix) if classifies else models[target].predict(matrix)
            found[target] = out[:, 1] if kind == "binary" else out
        return found

    rounds = ", ".join(f"{target} {model.n_iter_}" for target, model in models.items())
    return Fitted(predict, pickle.dumps(models), [f"rounds: {rounds}"])


Rival = Callable[[Encoded, int, int, float], Fitted]
SEEDLESS = ("lightgbm", "xgboost", "sklearn", "lightgbm_per_task")  # as they are set here, the seed changes nothing
RIVALS: dict[str, Rival] = {
    rival.__name__: rival for rival in (lightgbm, xgboost, catboost, sklearn, mlp, lightgbm_per_task)
}
