# %% [markdown]
# What can be said about the arms of a study, in a notebook or as a script:
#
#     python examples/compare_arms.py [FOLDER FOR THE FIGURES]
#
# Editors that know `# %%` cells run it cell by cell (VS Code, PyCharm, Spyder), and
# `jupytext --to ipynb examples/compare_arms.py` makes a notebook of it. It reads the records that are committed with
# the project; put the folder of your own study in their place. Nothing here needs torch, a GPU or pyplot.

# %%
import sys
from pathlib import Path

import sqzlab

script = "__file__" in globals()  # else a notebook
here = Path(__file__).parent if script else Path.cwd()
results = next(folder / "results" for folder in (here, *here.parents) if (folder / "results").is_dir())
study = results / "squeeze_ablation-laptop"
figures = Path(sys.argv[1]) if script and len(sys.argv) > 1 else None

# %% [markdown]
# One row for each run, planned or found. Metrics are fractions of the last epoch; `state` says which runs count.

# %%
records = sqzlab.load_records(study)
print(f"{(records['state'] == 'done').sum()} of {len(records)} runs are done, baseline {records.attrs['baseline']}")
records[["run_id", "state", "seed", "top1", "val_loss", "params"]].head()

# %% [markdown]
# One row for each arm: its seeds against the baseline's. `low` and `high` are the 95 % interval of that difference by
# itself, `p_adjusted` is Dunnett's over all arms, and `separated` what may be claimed.

# %%
shown = ["arm", "n", "mean", "sd", "difference", "low", "high", "p_adjusted", "separated"]


def percent(table):
    """Accuracies in percent, differences in points."""
    numbers = ["mean", "sd", "difference", "low", "high"]
    return table[shown].assign(**{name: (100 * table[name]).round(2) + 0.0 for name in numbers})


arms = sqzlab.compare(records)
print(percent(arms).to_string(index=False))
percent(arms)

# %% [markdown]
# What if? Any rows of the frame can be compared, against any of their arms, in any metric, with another correction.
# Asked after the results were seen, such a question is an exploration and no test: p values hold for the comparison
# that was planned.

# %%
squeezes = ["gap", "gmp", "std", "gapXstd", "random"]
fewer = sqzlab.compare(records[records["model.squeeze"].isin(squeezes)], "gap", correction="holm")
print("\nonly these arms, against gap, with Holm's correction")
print(percent(fewer).to_string(index=False))

losses = sqzlab.compare(records, metric="val_loss")
lowest = losses.loc[losses["mean"].idxmin()]
print(f"\nlowest validation loss: {lowest['arm']}, {lowest['mean']:.4f}")

# %% [markdown]
# Every figure of the report is a function of the same frame and gives a matplotlib Figure: the value of a cell is
# shown, `savefig` writes it in any format, and its axes can be changed before that.

# %%
differences = sqzlab.plot_differences(records)
differences

# %%
pareto = sqzlab.plot_pareto(records)
pareto

# %%
curves = sqzlab.plot_curves(records[records["model.squeeze"].isin(["baseline", "gap"])])
curves

# %%
if figures is not None:
    figures.mkdir(parents=True, exist_ok=True)
    for name, figure in {"differences": differences, "pareto": pareto, "curves": curves}.items():
        figure.savefig(figures / f"{name}.svg")
        figure.savefig(figures / f"{name}.png", dpi=200)
    print(f"\nfigures: {figures}")
