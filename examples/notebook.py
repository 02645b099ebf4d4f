"""A study from a notebook: run it, look at its table and verdicts, measure one of its models.

Editors show the parts between `# %%` as cells; `python examples/notebook.py` runs all of them.
"""

# %% What is run, and where it is kept
from orchestrator import load_results, measure, run

STUDY, ROOT = "demo", "runs"

# %% Train what is missing, on this machine or on the Ray cluster at RAY_ADDRESS
results = run(STUDY, root=ROOT)

# %% Verdicts: in Jupyter this cell shows a table
results  # noqa: B018

# %% The same later, from any machine that sees the root; nothing is trained
results = load_results(ROOT, results.name)
print(results.labels)

# %% Every recorded value is a row: how global [CLS] is at the end, by arm and seed
table = results.table
gyration = table[(table.metric == "globality/cls/gyration") & table.layer.isna()]
last = gyration[gyration.step == gyration.step.max()]
print(last.pivot(index="seed", columns="arm", values="value"))

# %% How global the trained model of the first run is, on more images, block by block
trial = results.study.entry.trials[0]
measured = measure(f"{ROOT}/trials/{trial.key}", limit=32, causal_images=0)
by_block = measured[(measured.metric == "globality/cls/gyration") & measured["head"].isna()]
print(by_block[["layer", "value"]].to_string(index=False))
